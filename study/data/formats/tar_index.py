"""Where each member of a webdataset tar lies, found once and kept beside the tar.

Where the tars' folder is read-only it is kept in the data set's own cache.
"""

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
BLOCK = 512


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TarIndex:
    """Byte ranges of the examples of one tar, in the order of the tar.

    keys_N: UTF-8. offsets_Nx3, sizes_Nx3: of image, text and JSON; size -1 where there is none.
    """

    keys_N: np.ndarray
    offsets_Nx3: np.ndarray
    sizes_Nx3: np.ndarray

    def __len__(self) -> int:
        return len(self.keys_N)


def index_of(tar: Path, cache: Path | None = None) -> TarIndex:
    """The index of a tar: from the file kept of it if that still fits, else by reading the tar.

    An example without image or text is in the index all the same: what stands in for it is
    decided where it is used.

    Arguments:
      cache: a folder for the index if it cannot be written beside the tar.

    Raises:
      DataError: the tar is missing, truncated or damaged.
    """
    try:
        stat = tar.stat()
    except OSError as error:
        raise DataError(f"{tar}: {error.strerror or error}; {HINT}") from None
    for path in _places(tar, cache):
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                if tuple(file["stamp"]) == (stat.st_size, stat.st_mtime_ns):
                    return TarIndex(
                        keys_N=file["keys"], offsets_Nx3=file["offsets"], sizes_Nx3=file["sizes"]
                    )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # none yet, or a torn one: it is made again
    index = _scan(tar)
    save(tar, index, cache)
    return index


def save(tar: Path, index: TarIndex, cache: Path | None = None) -> None:
    """Keeps the index, whole or not at all; where nothing can be written it is only slower."""
    stat = tar.stat()
    for path in _places(tar, cache):
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


def _places(tar: Path, cache: Path | None) -> list[Path]:
    """Where an index may lie: beside the tar, or in the cache under the hash of its path."""
    places = [tar.with_name(tar.name + ".index.npz")]
    if cache is not None:
        digest = hashlib.sha256(str(tar.absolute()).encode()).hexdigest()[:16]
        places.append(cache / f"{tar.stem}-{digest}.index.npz")
    return places


def _scan(tar: Path) -> TarIndex:
    members: dict[str, dict[int, tuple[int, int]]] = {}
    end = 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                end = archive.offset
                column = _column(member.name) if member.isfile() else None
                if column is not None:
                    # webdataset: the key goes up to the first dot of the last part of the path
                    folder, slash, base = member.name.rpartition("/")
                    key = folder + slash + base.split(".", 1)[0]
                    members.setdefault(key, {})[column] = (member.offset_data, member.size)
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{tar} is truncated or damaged near byte {end} ({error}); {HINT}"
        ) from None
    # tarfile takes a header that it cannot read for the end; a real end is a block of zeros.
    with tar.open("rb") as stream:
        stream.seek(end)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise DataError(f"{tar} is truncated or damaged at byte {end}; {HINT}")
    where = np.array(
        [[found.get(c, (0, -1)) for c in (IMAGE, TEXT, JSON)] for found in members.values()],
        np.int64,
    ).reshape(-1, 3, 2)
    return TarIndex(
        keys_N=np.array([key.encode() for key in members], np.bytes_),
        offsets_Nx3=where[..., 0],
        sizes_Nx3=where[..., 1],
    )


def _column(name: str) -> int | None:
    kind = name.rpartition(".")[2].lower()
    if kind in IMAGE_NAMES:
        return IMAGE
    return {"txt": TEXT, "json": JSON}.get(kind)
