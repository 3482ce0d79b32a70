"""Copies of a bucket's objects on this machine, within a budget.

    <cache>/files/<digest>/<generation>-<name>    small files: tokenizers, indexes, derived arrays
            derived/<digest>/                     what was made from a data set, such as tokens
            shards/<digest>/<generation>-<name>   whole shards of one split
                            size.json             what the split takes when all of it is here

The folder is $STUDY_DATA_CACHE, else in the user's cache; $STUDY_DATA_CACHE_GB bounds the shards.
A copy is named after its object's generation, so an object that changed is copied again, and the
old copy removed. Processes of a machine share the copies.

Only a split that fits as a whole is copied. Of a larger one nothing is kept: in random order every
shard is as likely to be read next as any other, so a cache of a tenth of it saves a tenth of the
requests, and evicting saves none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from study.data.errors import DataError
from study.data.files import Stat, is_bucket
from study.data.ranges import download
from study.records.record import atomic_write, read_json, write_json

FOLDER, GIGABYTES = "STUDY_DATA_CACHE", "STUDY_DATA_CACHE_GB"
DEFAULT_GB = 16.0
_UNUSED_S = 24 * 3600.0  # after which a split makes room for another
_SIZE_FILE = "size.json"

log = logging.getLogger(__name__)


def folder() -> Path:
    """The folder of the copies."""
    if path := os.environ.get(FOLDER):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "study" / "data"


def derived(dataset: Path) -> Path:
    """The folder for what is derived from a data set: its own, or for one in a bucket one here."""
    if not is_bucket(dataset):
        return dataset / "cache"
    return folder() / "derived" / digest(str(dataset))


def configure(path: str | None, gigabytes: float | None) -> None:
    """Sets the folder and its budget for this process and those that it starts; None keeps them."""
    for name, value in ((FOLDER, path), (GIGABYTES, gigabytes)):
        if value is not None:
            os.environ[name] = str(value)


def budget() -> int:
    """Bytes that shards may take.

    Raises:
      DataError: $STUDY_DATA_CACHE_GB is not a number.
    """
    text = os.environ.get(GIGABYTES) or str(DEFAULT_GB)
    try:
        return int(float(text) * 1e9)
    except ValueError:
        raise DataError(f"{GIGABYTES}={text} is not a number of gigabytes") from None


def copy(path: Path, stat: Stat, parent: Path | None = None) -> Path:
    """Copies an object here unless it is here; other processes wait for the copy.

    Arguments:
      parent: the folder of the copy; None is one of the object's own, for small files.

    Raises:
      DataError: an object that cannot be read, or a cache that cannot be written.
    """
    parent = parent or folder() / "files" / digest(str(path))
    target = parent / f"{stat.version}-{path.name}"
    if target.exists():
        return target
    with _disk_errors():
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{path.name}.lock"):
            if not target.exists():
                with atomic_write(target) as file:
                    download(path, stat.size, file)
                for other in parent.glob(f"*-{path.name}"):
                    if other != target and other.name.partition("-")[2] == path.name:
                        other.unlink()
    return target


class Copies:
    """Whole shards of a split on this machine, if all of them fit into the budget.

    Arguments:
      name: identifies the split, and names it in messages.
      stats: its shards that are in a bucket.

    Attributes:
      admitted: whether they fit.
    """

    def __init__(self, name: str, stats: Mapping[Path, Stat]):
        self._name, self._stats = name, stats
        self._folder = folder() / "shards" / digest(name)
        self.admitted = bool(stats) and self._admit()

    def path(self, shard: Path) -> Path | None:
        """The copy of a shard, made now if it is missing; None if the split does not fit."""
        if not self.admitted or shard not in self._stats:
            return None
        return copy(shard, self._stats[shard], self.target(shard).parent)

    def target(self, shard: Path) -> Path:
        """Where the copy of a shard is, or will be."""
        # Shards of one name may be in several folders.
        parent = self._folder / digest(str(shard.parent))[:6]
        return parent / f"{self._stats[shard].version}-{shard.name}"

    def _admit(self) -> bool:
        size = sum(stat.size for stat in self._stats.values())
        limit = budget()
        if size > limit:
            log.warning(
                "%s takes %.1f GB, more than the data cache (%.1f GB): its shards are read by "
                "ranges; execution.data_cache_gb or %s sets its size",
                *(self._name, size / 1e9, limit / 1e9, GIGABYTES),
            )
            return False
        with _disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder.parent / ".lock"):
                others = {
                    path: _reserved(path)
                    for path in self._folder.parent.glob(f"*/{_SIZE_FILE}")
                    if path.parent != self._folder
                }
                for path in sorted(others, key=lambda path: path.stat().st_mtime):
                    if sum(others.values()) + size <= limit:
                        break
                    if time.time() - path.stat().st_mtime > _UNUSED_S:
                        shutil.rmtree(path.parent, ignore_errors=True)
                        del others[path]
                if sum(others.values()) + size > limit:
                    log.warning(
                        "%s (%.1f GB) does not fit into the data cache %s beside what was used in "
                        "the last day: its shards are read by ranges",
                        *(self._name, size / 1e9, self._folder.parents[1]),
                    )
                    return False
                write_json(self._folder / _SIZE_FILE, {"name": self._name, "bytes": size})
        return True


def digest(text: str) -> str:
    """A name for a folder."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _reserved(path: Path) -> int:
    return int((read_json(path) or {}).get("bytes", 0))


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write the data cache {folder()}: {error.strerror or error}; make room, or "
            f"set {FOLDER} to another folder"
        ) from None
