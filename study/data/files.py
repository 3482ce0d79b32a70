"""Files of data sets in a folder or a bucket, by the same functions.

    to_path("data/cc12m") / "00000.tar"           # a pathlib.Path
    to_path("gs://lab/cc12m") / "00000.tar"       # a UPath: the same methods over fsspec

Data are read from Google's buckets only, as records are written to no others
(`study.records.storage`): nothing here has met another service.

"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from study.data.errors import HINT, DataError
from study.data.ranges import download, read_bytes, read_ranges
from study.records.storage import RecordError, bucket_errors, is_bucket, resolve

__all__ = [
    "Stat",
    "absolute",
    "exists",
    "expand",
    "is_bucket",
    "join",
    "list_files",
    "local_copy",
    "read_bytes",
    "read_ranges",
    "stat",
    "stat_all",
    "to_path",
]


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


def absolute(location: str | os.PathLike[str]) -> str:
    """The location as seen from any folder."""
    path = to_path(location)
    return str(path if is_bucket(path) else path.absolute())


def stat(path: Path) -> Stat:
    """Size and version of a file.

    Raises:
      DataError: a file that is missing, or a bucket that cannot be read.
    """
    try:
        if not is_bucket(path):
            status = path.stat()
            return Stat(status.st_size, status.st_mtime_ns)
        with errors(path):
            remote: Any = path
            return _stat_of(remote.fs.info(remote.path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'no such object'}; {HINT}") from None


def exists(path: Path) -> bool:
    """Whether a file or object exists.

    Raises:
      DataError: a bucket that cannot be read.
    """
    if not is_bucket(path):
        return path.is_file()
    remote: Any = path
    with errors(path):
        return bool(remote.fs.exists(remote.path))


def stat_all(paths: Iterable[Path]) -> dict[Path, Stat]:
    """Size and version of files, by one listing of each folder of a bucket; no missing ones."""
    stats: dict[Path, Stat] = {}
    folders: dict[Path, dict[str, Stat]] = {}
    for path in paths:
        if not is_bucket(path):
            if path.is_file():
                stats[path] = stat(path)
            continue
        if path.parent not in folders:
            folders[path.parent] = list_files(path.parent)
        if path.name in folders[path.parent]:
            stats[path] = folders[path.parent][path.name]
    return stats


def list_files(folder: Path) -> dict[str, Stat]:
    """Size and version of the files in a folder, by name; empty if it does not exist."""
    if not is_bucket(folder):
        return {path.name: stat(path) for path in sorted(folder.glob("*")) if path.is_file()}
    remote: Any = folder
    with errors(folder):
        try:
            entries = remote.fs.ls(remote.path.rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
    files = {e["name"].rpartition("/")[2]: _stat_of(e) for e in entries if e["type"] == "file"}
    return dict(sorted(files.items()))


def expand(base: Path, patterns: str | Iterable[str]) -> list[Path]:
    """The files that match patterns, sorted and each once.

    A pattern is relative to `base`, absolute, or in a bucket. It may hold braces, "{00000..01242}"
    or "{train,val}", and below its last folder "*", "?" and "[...]". Names that braces alone make
    must exist.

    Raises:
      DataError: a file that braces name is missing, or a bucket cannot be read.
    """
    paths: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = list(_expand_braces(pattern))
        named = [join(base, name) for name in names if not set(name) & set("*?[")]
        existing = stat_all(named)
        if missing := [path for path in named if path not in existing]:
            if len(names) == 1:
                continue
            raise DataError(
                f"{missing[0]} is missing ({len(missing)} of the {len(names)} files that {pattern} "
                "names)"
            )
        paths.update(named)
        for name in names:
            if set(name) & set("*?["):
                paths.update(_glob(base, name))
    return sorted(paths, key=lambda path: path.parts)  # as local paths are sorted


def _glob(base: Path, pattern: str) -> list[Path]:
    folder, _, name = pattern.rpartition("/")
    parent = join(base, folder) if folder else (to_path("/") if pattern[:1] == "/" else base)
    if is_bucket(parent):
        if set(folder) & set("*?["):
            raise DataError(f"{pattern}: in a bucket only the file names may be a pattern")
        return [parent / file for file in list_files(parent) if fnmatch.fnmatchcase(file, name)]
    path = join(base, pattern)
    return list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def _expand_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, names = match.groups()
    if names is None:
        width = len(first) if first.startswith("0") else 0
        values = [f"{k:0{width}d}" for k in range(int(first), int(last) + 1)]
    else:
        values = names.split(",")
    for value in values:
        yield from _expand_braces(pattern[: match.start()] + value + pattern[match.end() :])


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turns the errors of a bucket into DataErrors; a folder's, and missing paths, pass."""
    try:
        with bucket_errors(path, "read"):
            yield
    except RecordError as error:
        raise DataError(str(error)) from None


def sha256(path: Path) -> str:
    """The SHA-256 of an object of a bucket, which is read once and not kept."""
    sink = _Hash()
    download(path, stat(path).size, sink)  # type: ignore[arg-type]
    return sink.digest.hexdigest()


class _Hash:
    """A file that hashes what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)


def _stat_of(entry: dict[str, Any]) -> Stat:
    return Stat(int(entry["size"]), int(entry["generation"]))


def local_copy(path: Path) -> Path:
    """The path of a small file on this machine: `path` itself, or a copy of the object.

    Raises:
      DataError: an object that is missing or cannot be read, or a cache that cannot be written.
    """
    from study.data import local_cache

    return local_cache.copy(path, stat(path)) if is_bucket(path) else path
