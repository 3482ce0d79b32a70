"""Where each member of a webdataset tar lies, found once and kept beside the tar."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from study.data.dataset import HOW_TO_MEND, DataError

IMAGE_NAMES = ("jpg", "jpeg", "png", "webp")
IMAGE, TEXT, JSON = 0, 1, 2  # columns of offsets and sizes
BLOCK = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarIndex:
    """Byte ranges of the examples of one tar, in the order of the tar.

    keys_N: UTF-8. offsets_Nx3, sizes_Nx3: of image, text and JSON; size -1 where there is none.
    """

    keys_N: np.ndarray
    offsets_Nx3: np.ndarray
    sizes_Nx3: np.ndarray

    def __len__(self) -> int:
        return len(self.keys_N)


def index_of(tar: Path) -> TarIndex:
    """The index of a tar: from the file beside it if that still fits, else by reading the tar.

    Raises:
      DataError: the tar is missing, truncated or damaged, or an example lacks image or text.
    """
    try:
        stat = tar.stat()
    except OSError as error:
        raise DataError(f"{tar}: {error.strerror or error}; {HOW_TO_MEND}") from None
    try:
        with _path(tar).open("rb") as stream, np.load(stream) as file:
            if tuple(file["stamp"]) == (stat.st_size, stat.st_mtime_ns):
                return TarIndex(
                    keys_N=file["keys"], offsets_Nx3=file["offsets"], sizes_Nx3=file["sizes"]
                )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or a torn one: it is made again
    index = _scan(tar)
    save(tar, index)
    return index


def save(tar: Path, index: TarIndex) -> None:
    """Writes the index beside the tar, whole or not at all; a read-only folder is no error."""
    path = _path(tar)
    part = path.with_name(f".{path.name}.{os.getpid()}.npz")
    stat = tar.stat()
    with contextlib.suppress(OSError):
        np.savez(
            part,
            stamp=np.array([stat.st_size, stat.st_mtime_ns]),
            keys=index.keys_N,
            offsets=index.offsets_Nx3,
            sizes=index.sizes_Nx3,
        )
        part.replace(path)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def _path(tar: Path) -> Path:
    return tar.with_name(tar.name + ".index.npz")


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
            f"{tar} is truncated or damaged near byte {end} ({error}); {HOW_TO_MEND}"
        ) from None
    # tarfile takes a header that it cannot read for the end; a real end is a block of zeros.
    with tar.open("rb") as stream:
        stream.seek(end)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise DataError(f"{tar} is truncated or damaged at byte {end}; {HOW_TO_MEND}")
    for key, found in members.items():
        for column, what in ((IMAGE, f"image ({', '.join(IMAGE_NAMES)})"), (TEXT, "text (txt)")):
            if column not in found:
                raise DataError(f"{tar}: {key} has no {what}; {HOW_TO_MEND}")
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
