"""Files of data sets in a folder or a bucket, by the same functions, and a local cache of them.

    to_path("data/cc12m") / "00000.tar"           # a pathlib.Path
    to_path("gs://lab/cc12m") / "00000.tar"       # a UPath: the same methods over fsspec

Data are read from Google's buckets only, as records are written to no others
(`study.records.storage`): nothing here has met another service.

The cache holds copies of objects by name and generation, so a changed object is copied again.
Processes of a machine share it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from study.data.errors import HINT, DataError
from study.data.ranges import read_bytes, read_ranges
from study.records.record import atomic_write
from study.records.storage import RecordError, bucket_errors, is_bucket, resolve

__all__ = ["Stat", "join", "local_copy", "read_bytes", "read_ranges", "stat", "to_path"]

CACHE_VARIABLE = "STUDY_DATA_CACHE"


class Stat(NamedTuple):
    """Size of a file in bytes, and its version: the generation of an object, or the time in ns."""

    size: int
    version: int


def to_path(location: str | os.PathLike[str]) -> Path:
    """The path of a file or folder: a UPath for gs://, a `pathlib.Path` for a local one or file://.

    Raises:
      DataError: another scheme, or gcsfs is not installed.
    """
    text = str(location)
    if "://" in text and not text.startswith(("gs://", "file://")):
        raise DataError(f"{text}: data are read from a folder or from gs://BUCKET/FOLDER")
    try:
        return resolve(location)
    except RecordError as error:
        raise DataError(str(error)) from None


def join(folder: Path, name: str) -> Path:
    """The path `name` of a manifest: relative to `folder`, absolute, or in a bucket."""
    if "://" in name or Path(name).is_absolute():
        return to_path(name)
    return folder / name


def stat(path: Path) -> Stat:
    """Size and version of a file.

    Raises:
      DataError: a file that is missing, or a bucket that cannot be read.
    """
    try:
        if not is_bucket(path):
            status = path.stat()
            return Stat(status.st_size, status.st_mtime_ns)
        remote: Any = path
        with bucket_errors(path, "read"):
            return _stat_of(remote.fs.info(remote.path))
    except RecordError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'no such object'}; {HINT}") from None


def _stat_of(info: dict[str, Any]) -> Stat:
    return Stat(int(info["size"]), int(info["generation"]))


# --- cache --------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The folder of local copies: $STUDY_DATA_CACHE, else one in the user's cache."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "study" / "data"


def local_copy(path: Path) -> Path:
    """The path of a small file on this machine: `path` itself, or a copy of the object.

    Raises:
      DataError: an object that is missing or cannot be read, or a cache that cannot be written.
    """
    if not is_bucket(path):
        return path
    folder = cache_folder() / hashlib.sha256(str(path).encode()).hexdigest()[:20]
    copy = folder / f"{stat(path).version}-{path.name}"
    if copy.exists():
        return copy
    content = read_bytes(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as file:
            file.write(content)
        for stale in folder.iterdir():
            if stale.name.endswith(f"-{path.name}") and stale != copy:
                stale.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write the data cache {folder.parent}: {error.strerror or error}; make room, "
            f"or set {CACHE_VARIABLE} to another folder"
        ) from None
    return copy
