"""Byte ranges of the members of a webdataset tar, found by one scan and kept next to the tar."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from study.data.formats.dataset import HINT, DataError
from study.records.record import atomic_write

IMAGE_NAMES = ("jpg", "jpeg", "png", "webp")
IMAGE, TEXT, JSON = 0, 1, 2  # columns of offsets and sizes
BLOCK = tarfile.BLOCKSIZE


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


def load_or_scan(tar: Path, cache: Path | None = None) -> TarIndex:
    """The index of a tar: the saved one if it is of this very file, else from a scan of the tar.

    An example without image or text is part of the index.

    Arguments:
      cache: a folder for the index if the tar's own folder is read-only.

    Raises:
      DataError: the tar is missing, truncated or damaged.
    """
    try:
        stat = tar.stat()
    except OSError as error:
        raise DataError(f"{tar}: {error.strerror or error}; {HINT}") from None
    for path in _index_paths(tar, cache):
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                if tuple(file["stamp"]) == (stat.st_size, stat.st_mtime_ns):
                    return TarIndex(
                        keys_N=file["keys"], offsets_Nx3=file["offsets"], sizes_Nx3=file["sizes"]
                    )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # missing or damaged: scan again
    index = _scan(tar)
    save(tar, index, cache)
    return index


def save(tar: Path, index: TarIndex, cache: Path | None = None) -> None:
    """Saves the index next to the tar, else in `cache`, else nowhere."""
    stat = tar.stat()
    for path in _index_paths(tar, cache):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                np.savez(
                    file,
                    stamp=np.array([stat.st_size, stat.st_mtime_ns]),
                    keys=index.keys_N,
                    offsets=index.offsets_Nx3,
                    sizes=index.sizes_Nx3,
                )
            return


def column_of(name: str) -> int | None:
    """The column of a member, by its last extension; None if it is not used."""
    extension = name.rpartition(".")[2].lower()
    if extension in IMAGE_NAMES:
        return IMAGE
    return {"txt": TEXT, "json": JSON}.get(extension)


def _index_paths(tar: Path, cache: Path | None) -> list[Path]:
    paths = [tar.with_name(tar.name + ".index.npz")]
    if cache is not None:
        digest = hashlib.sha256(str(tar.absolute()).encode()).hexdigest()[:16]
        paths.append(cache / f"{tar.stem}-{digest}.index.npz")
    return paths


def _scan(tar: Path) -> TarIndex:
    members: dict[str, dict[int, tuple[int, int]]] = {}
    end = 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                end = archive.offset
                column = column_of(member.name) if member.isfile() else None
                if column is not None:
                    # webdataset: a key ends at the first dot of the last part of the path
                    folder, slash, base = member.name.rpartition("/")
                    key = folder + slash + base.split(".", 1)[0]
                    members.setdefault(key, {})[column] = (member.offset_data, member.size)
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{tar} is truncated or damaged near byte {end} ({error}); {HINT}"
        ) from None
    # tarfile takes an unreadable header for the end of the tar; a real end is a block of zeros.
    with tar.open("rb") as stream:
        stream.seek(end)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise DataError(f"{tar} is truncated or damaged at byte {end}; {HINT}")
    return TarIndex.of_members(members)
