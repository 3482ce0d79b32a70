"""The files of a study's records through which workers agree: listed, read, compared and swapped.

    <root>/<group>/<cell id>/<name>      name: one of `STATE_FILES`
    <root>/<group>/.stop/<run id>        asks the workers of one `study run` to stop

The same four operations serve a folder and a bucket, so leases and claims are one protocol. A
write is atomic, and can be conditional on the version that the writer last saw: in a bucket by the
generation of the object (`ifGenerationMatch`), in a folder under a lock of the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from study.records.metrics_log import METRICS
from study.records.record import CELL, DONE, FAILED, write_json
from study.records.storage import bucket_errors, is_bucket

LEASE, ATTEMPTS, CANCELLED = "lease.json", "attempts.json", "CANCELLED.json"
STATE_FILES = (CELL, METRICS, LEASE, ATTEMPTS, CANCELLED, FAILED, DONE)
_PAGE = 5000  # objects in one response of a listing
_LOCK_S = 2.0  # that a lock of a file may be held by another process
_SETTLE_S = 1.0  # after which processes that replaced a file without a lock look who was last
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class Version(NamedTuple):
    """One version of a file."""

    token: str  # differs from that of every other version
    size: int  # bytes
    mtime: float  # when it was written, in seconds by the clock of the file system or bucket


Listing = dict[str, dict[str, Version]]  # by cell id, then by file name


class Store(Protocol):
    """What claims, leases and status need of the place where records are kept.

    Every method may raise OSError or RecordError where the storage does not respond.
    """

    renew_s: float  # seconds between two heartbeats of a lease
    stale_s: float  # seconds without a heartbeat after which a lease may be taken over
    poll_s: float  # seconds between two looks of a worker at the marks that ask it to stop
    reads_are_cheap: bool  # whether reading a small file costs neither money nor a round trip

    def list(self, cell: str | None = None, *, skip: Collection[str] = ()) -> Listing:
        """The state files of all cells, or of one; those of cells in `skip` may be missing."""

    def read(self, cell: str, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""

    def read_many(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        """The contents of the files that exist."""

    def write(self, cell: str, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON object, whether or not the file exists."""

    def swap(
        self, cell: str, name: str, content: bytes, expected: Version | None
    ) -> Version | None:
        """Replaces the version `expected` (None: no file); None if the file is another by now.

        No content frees the file: a folder removes it, a bucket keeps an empty object.
        """

    def touch(self, cell: str, name: str, content: bytes, held: Version) -> Version | None:
        """Renews the file that this process wrote as `held`; None if it was replaced since."""


def open_store(folder: Path) -> Store:
    """The store of the study whose records are in `folder`."""
    return BucketStore(folder) if is_bucket(folder) else FolderStore(folder)


class FolderStore:
    """Records in a folder, local or shared over a network file system."""

    renew_s, stale_s, poll_s = 5.0, 60.0, 0.5
    reads_are_cheap = True

    def __init__(self, folder: Path):
        self.folder = folder

    def list(self, cell: str | None = None, *, skip: Collection[str] = ()) -> Listing:
        if cell is not None:
            return {cell: self._files(cell)}
        names = [
            entry.name
            for entry in _scan(self.folder)
            if not entry.name.startswith(".") and entry.name not in skip and entry.is_dir()
        ]
        return {name: self._files(name) for name in names}

    def _files(self, cell: str) -> dict[str, Version]:
        files = {}
        for file in _scan(self.folder / cell):
            if file.name in STATE_FILES:
                with contextlib.suppress(FileNotFoundError):  # removed since
                    files[file.name] = _version(file.stat())
        return files

    def read(self, cell: str, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.folder / cell / name).read_bytes()
        return None

    def read_many(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        contents = {(cell, name): self.read(cell, name) for cell, name in files}
        return {key: content for key, content in contents.items() if content is not None}

    def write(self, cell: str, name: str, content: dict[str, Any]) -> None:
        (self.folder / cell).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / cell / name, content)

    def swap(
        self, cell: str, name: str, content: bytes, expected: Version | None
    ) -> Version | None:
        path = self.folder / cell / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written elsewhere first: nobody reads half of a file, and a full disk leaves none.
        part = path.with_name(f".{name}.{uuid.uuid4().hex[:12]}")
        try:
            part.write_bytes(content)
            if expected is None:
                return self._create(part, path)
            return self._replace(part, path, expected)
        finally:
            part.unlink(missing_ok=True)

    def _create(self, part: Path, path: Path) -> Version | None:
        try:
            os.link(part, path)
        except FileExistsError:
            # NFS repeats a request whose response was lost, and the second one fails.
            with contextlib.suppress(FileNotFoundError):
                return _version(path.stat()) if part.samefile(path) else None
            return None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with contextlib.suppress(FileExistsError):
                path.open("xb").close()
                return self._replace(part, path, _version(path.stat()))
            return None
        return _version(path.stat())

    def _replace(self, part: Path, path: Path, expected: Version) -> Version | None:
        with _locked(path) as (fd, locked):
            if fd is None or _version(os.fstat(fd)).token != expected.token:
                return None
            version = _version(part.stat())
            if not version.size:
                path.unlink()
                return Version("", 0, 0.0)
            part.replace(path)
        if not locked:  # of several that replaced it at once the last one has it
            time.sleep(_SETTLE_S)
            with contextlib.suppress(FileNotFoundError):
                return version if _version(path.stat()).token == version.token else None
            return None
        return version

    def touch(self, cell: str, name: str, content: bytes, held: Version) -> Version | None:
        del held  # a network file system may report an old time, so the content decides
        path = self.folder / cell / name
        with _locked(path) as (fd, _):
            if fd is None or os.pread(fd, len(content) + 1, 0) != content:
                return None
            os.utime(fd)
            return _version(os.fstat(fd))


class BucketStore:
    """Records in a Google Cloud Storage bucket."""

    renew_s, stale_s, poll_s = 15.0, 90.0, 10.0  # each request costs money
    reads_are_cheap = False

    def __init__(self, folder: Any):
        self.folder = folder
        self._system = folder.fs
        self._bucket, _, self._prefix = folder.path.strip("/").partition("/")

    def list(self, cell: str | None = None, *, skip: Collection[str] = ()) -> Listing:
        listing: Listing = {}
        query = {
            "prefix": f"{self._prefix}/{'' if cell is None else f'{cell}/'}",
            # Google's servers leave out checkpoints; others may ignore it, so names are checked.
            "matchGlob": f"{self._prefix}/{cell or '*'}/{{{','.join(STATE_FILES)}}}",
            "fields": "items(name,generation,size,updated),nextPageToken",
            "maxResults": _PAGE,
        }
        with bucket_errors(self.folder, "read"):
            while True:
                page = self._system.call("GET", "b/{}/o", self._bucket, json_out=True, **query)
                for item in page.get("items") or ():
                    of, _, name = item["name"].removeprefix(f"{self._prefix}/").partition("/")
                    if name in STATE_FILES:
                        listing.setdefault(of, {})[name] = _object_version(item)
                if not (token := page.get("nextPageToken")):
                    return listing
                query["pageToken"] = token

    def read(self, cell: str, name: str) -> bytes | None:
        return self.read_many([(cell, name)]).get((cell, name))

    def read_many(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        names = {f"{self._bucket}/{self._name(cell, name)}": (cell, name) for cell, name in files}
        if not names:
            return {}
        with bucket_errors(self.folder, "read"):
            contents = self._system.cat(list(names), on_error="return")
            if not isinstance(contents, dict):  # of a single file
                contents = {next(iter(names)): contents}
            for content in contents.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        return {names[n]: bytes(c) for n, c in contents.items() if not isinstance(c, Exception)}

    def write(self, cell: str, name: str, content: dict[str, Any]) -> None:
        write_json(self.folder / cell / name, content)

    def swap(
        self, cell: str, name: str, content: bytes, expected: Version | None
    ) -> Version | None:
        key = self._name(cell, name)
        generation = "0" if expected is None else expected.token
        with bucket_errors(self.folder, "write"):
            try:
                return _object_version(self._upload(key, content, generation))
            except FileExistsError:
                pass  # the precondition failed
            except Exception as error:
                if getattr(error, "code", None) != 412 and "412" not in str(error):
                    raise
            # A repeated request fails if the first one succeeded and its response was lost.
            item = self._stat(key)
            if item is not None and content and self.read(cell, name) == content:
                return _object_version(item)
        return None

    def touch(self, cell: str, name: str, content: bytes, held: Version) -> Version | None:
        return self.swap(cell, name, content, held)

    def _name(self, cell: str, name: str) -> str:
        return f"{self._prefix}/{cell}/{name}"

    def _stat(self, key: str) -> dict[str, Any] | None:
        try:
            item: dict[str, Any] = self._system.call(
                "GET", "b/{}/o/{}", self._bucket, key, json_out=True
            )
        except FileNotFoundError:
            return None
        return item

    def _upload(self, key: str, content: bytes, generation: str) -> dict[str, Any]:
        """One request. gcsfs can make it conditional for a new object only."""
        boundary = f"=={uuid.uuid4().hex}=="
        head = "Content-Type: application/json; charset=UTF-8\n\n" + json.dumps({"name": key})
        body = (
            f"--{boundary}\n{head}\n--{boundary}\nContent-Type: application/json\n\n".encode()
            + content
            + f"\n--{boundary}--".encode()
        )
        item: dict[str, Any] = self._system.call(
            "POST",
            f"{self._system._location}/upload/storage/v1/b/{quote(self._bucket)}/o",
            uploadType="multipart",
            ifGenerationMatch=generation,
            headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
            data=body,
            json_out=True,
        )
        return item


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _version(status: os.stat_result) -> Version:
    token = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
    return Version(token, status.st_size, status.st_mtime)


def _object_version(item: dict[str, Any]) -> Version:
    updated = datetime.fromisoformat(item["updated"]).timestamp()
    return Version(str(item["generation"]), int(item["size"]), updated)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[tuple[int | None, bool]]:
    """Locks the file at `path`.

    Yields its descriptor, or None if it is missing or was replaced; and whether the file system has
    locks. Of any number of processes that replace the same file under its lock exactly one
    succeeds: the others hold the lock of a file that is no longer at `path`. The lock ends with its
    process.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        yield None, True
        return
    try:
        locked = _lock(fd)
        try:
            same = os.path.samestat(os.fstat(fd), path.stat())
        except FileNotFoundError:
            same = False
        yield (fd if same else None), locked
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Waits a little, but not for ever: the process that has the lock may be stopped."""
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError("another process keeps the file locked") from None
            time.sleep(0.01)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
        else:
            return True
