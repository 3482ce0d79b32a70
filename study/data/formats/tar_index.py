"""Byte ranges of the members of a webdataset tar, found by one scan and kept next to the tar.

The index of a tar in a bucket is also kept on this machine. The scan reads the whole tar unless its
members are long (`study.data.range_file`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from study.data import files
from study.data.files import Stat
from study.data.formats.dataset import HINT, DataError
from study.data.range_file import RangeFile
from study.records.record import atomic_write
from study.records.storage import RecordError, is_bucket

IMAGE_NAMES = ("jpg", "jpeg", "png", "webp")
IMAGE, TEXT, JSON = 0, 1, 2  # columns of offsets and sizes
BLOCK = tarfile.BLOCKSIZE
INDEX_SUFFIX = ".index.npz"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TarIndex:
    """Byte ranges of the examples of one tar, in tar order.

    Attributes:
      keys_N: the examples' names, UTF-8.
      offsets_Nx3, sizes_Nx3: of image, text and JSON; size -1 for a missing member.
    """

    keys_N: np.ndarray
    offsets_Nx3: np.ndarray
    sizes_Nx3: np.ndarray

    @classmethod
    def of_members(cls, members: dict[str, dict[int, tuple[int, int]]]) -> TarIndex:
        """The index of {key: {column: (offset, size)}}."""
        ranges = [[row.get(c, (0, -1)) for c in (IMAGE, TEXT, JSON)] for row in members.values()]
        ranges_Nx3x2 = np.array(ranges, np.int64).reshape(-1, 3, 2)
        return cls(
            keys_N=np.array([key.encode() for key in members], np.bytes_),
            offsets_Nx3=ranges_Nx3x2[..., 0],
            sizes_Nx3=ranges_Nx3x2[..., 1],
        )

    def __len__(self) -> int:
        return len(self.keys_N)

    @property
    def nbytes(self) -> int:
        return self.keys_N.nbytes + self.offsets_Nx3.nbytes + self.sizes_Nx3.nbytes

    def spans(self, row_N: np.ndarray, columns_Nx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and size of the bytes that hold the chosen members of examples, N each.

        The size is 0 for an example without any of them.
        """
        size_Nx3 = np.where(columns_Nx3, self.sizes_Nx3[row_N], -1)
        offset_Nx3, exists_Nx3 = self.offsets_Nx3[row_N], size_Nx3 > 0
        start_N = np.where(exists_Nx3, offset_Nx3, np.iinfo(np.int64).max).min(1)
        stop_N = np.where(exists_Nx3, offset_Nx3 + size_Nx3, 0).max(1)
        return start_N, np.where(exists_Nx3.any(1), stop_N - start_N, 0)


def load_or_scan(
    tar: Path, cache: Path | None = None, *, stat: Stat | None = None, publish: bool = False
) -> TarIndex:
    """The index of a tar: the saved one if it is of this very file, else from a scan of the tar.

    An example without image or text is part of the index.

    Arguments:
      cache: a folder for the index if the tar's own folder is read-only or in a bucket.
      stat: of the tar, if known.
      publish: also save the index of a tar in a bucket next to it.

    Raises:
      DataError: the tar is missing, truncated or damaged.
    """
    stat = stat or files.stat(tar)
    bucket = is_bucket(tar)
    index = next(filter(None, (_load(p, stat) for p in _index_paths(tar, cache, bucket))), None)
    if index is not None and not bucket:
        return index
    published = _load_published(tar, stat) if bucket and (index is None or publish) else None
    index = index or published or _scan(tar, stat)
    save(tar, index, cache, stat=stat)
    if publish and bucket and published is None:
        with contextlib.suppress(RecordError):  # a bucket that is read-only
            _write(_published(tar), index, stat)
    return index


def save(
    tar: Path, index: TarIndex, cache: Path | None = None, *, stat: Stat | None = None
) -> None:
    """Saves the index next to the tar, else in `cache`, else nowhere; of a bucket's in `cache`."""
    stat = stat or files.stat(tar)
    for path in _index_paths(tar, cache, is_bucket(tar)):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, index, stat)
            return


def _write(path: Path, index: TarIndex, stat: Stat) -> None:
    with atomic_write(path) as file:
        np.savez(
            file,
            stamp=np.array([stat.size, stat.version]),
            keys=index.keys_N,
            offsets=index.offsets_Nx3,
            sizes=index.sizes_Nx3,
        )


def _load(path: Path, stat: Stat) -> TarIndex | None:
    """The saved index if it is of this version of the tar; None if not, or missing or damaged."""
    try:
        return _parse(path.read_bytes(), stat)
    except OSError:
        return None


def _load_published(tar: Path, stat: Stat) -> TarIndex | None:
    """The index next to a tar in a bucket.

    One that was uploaded with its tar names the time of the local file. It counts if it is of the
    same size, and younger than the tar.
    """
    path = _published(tar)
    try:
        stat_of_index = files.stat(path)
        content = files.read_bytes(path)
    except DataError:
        return None
    return _parse(content, stat, any_version=stat_of_index.version > stat.version)


def _parse(content: bytes, stat: Stat, *, any_version: bool = False) -> TarIndex | None:
    try:
        with np.load(io.BytesIO(content)) as file:
            size, version = map(int, file["stamp"])
            if size != stat.size or not (version == stat.version or any_version):
                return None
            return TarIndex(
                keys_N=file["keys"], offsets_Nx3=file["offsets"], sizes_Nx3=file["sizes"]
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # damaged


def column_of(name: str) -> int | None:
    """The column of a member, by its last extension; None if it is not used."""
    extension = name.rpartition(".")[2].lower()
    if extension in IMAGE_NAMES:
        return IMAGE
    return {"txt": TEXT, "json": JSON}.get(extension)


def _published(tar: Path) -> Path:
    return tar.with_name(tar.name + INDEX_SUFFIX)


def _index_paths(tar: Path, cache: Path | None, bucket: bool) -> list[Path]:
    """Where the index may be on this machine."""
    paths = [] if bucket else [_published(tar)]
    if cache is not None:
        digest = hashlib.sha256(files.absolute(tar).encode()).hexdigest()[:16]
        paths.append(cache / f"{tar.stem}-{digest}.index.npz")
    return paths


def _scan(tar: Path, stat: Stat) -> TarIndex:
    members: dict[str, dict[int, tuple[int, int]]] = {}
    end = 0
    try:
        with (
            RangeFile(tar, stat.size) if is_bucket(tar) else tar.open("rb") as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            while (member := archive.next()) is not None:
                end = archive.offset
                column = column_of(member.name) if member.isfile() else None
                if column is not None:
                    # webdataset: a key ends at the first dot of the last part of the path
                    folder, slash, base = member.name.rpartition("/")
                    key = folder + slash + base.split(".", 1)[0]
                    members.setdefault(key, {})[column] = (member.offset_data, member.size)
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
            # tarfile takes an unreadable header for the end; a real end is a block of zeros.
            stream.seek(end)
            if stream.read(BLOCK) != bytes(BLOCK):
                raise DataError(f"{tar} is truncated or damaged at byte {end}; {HINT}")
    except DataError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{tar} is truncated or damaged near byte {end} ({error}); {HINT}"
        ) from None
    return TarIndex.of_members(members)
