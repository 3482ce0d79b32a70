"""Cached image embeddings: made once with any frozen tower, read as memory-mapped rows.

    <data set>/embeddings/<tower>/tower.json        written last; what the tower is, its width
                                  train-00000.npy   float16 N x E, one file for each shard

Row i of a split is example i of it, in the order of its shards. Embeddings made elsewhere may
also lie in one `<split>.npy`.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from study.data import memo
from study.data.dataset import DataError, Dataset
from study.data.parallel import Progress, each, quiet
from study.data.shards import ShardReader
from study.records import read_json, write_json

FILE, BEGUN = "tower.json", "begun.json"
_BATCH = 1024


class Tower(Protocol):
    """A frozen image tower: uint8 N x size x size x channels to float32 N x dim."""

    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def about(self) -> dict[str, Any]: ...

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray: ...


def embed(
    dataset: Dataset, tower: Tower, name: str, *, workers: int = 2, progress: Progress = quiet
) -> Path:
    """Embeds every split with `tower` into `embeddings/<name>`; whole shards are kept.

    With workers > 1 the tower must be picklable.

    Raises:
      DataError: a damaged shard, or a disk that is full or read-only.
    """
    folder = dataset.folder / "embeddings" / name
    about = {"name": name, "dim": tower.dim, "dataset_fingerprint": dataset.fingerprint}
    about |= tower.about
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if read_json(folder / BEGUN) != about:  # parts of another tower or other data
            (folder / FILE).unlink(missing_ok=True)
            for path in folder.glob("*.npy"):
                path.unlink()
            write_json(folder / BEGUN, about)
        tasks = [
            (shard, folder / f"{shard.stem}.npy", tower)
            for split in dataset.splits.values()
            for shard in split.shards
        ]
        missing = [task for task in tasks if not _readable(task[1], tower.dim)]
        for done, _ in enumerate(each(_embed_shard, missing, workers=workers), start=1):
            progress("embedding", len(tasks) - len(missing) + done, len(tasks))
        write_json(folder / FILE, about)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room and run again "
            "(finished shards are kept)"
        ) from None
    return folder


def _embed_shard(task: tuple[Path, Path, Tower]) -> None:
    shard, out, tower = task
    reader = ShardReader([shard])
    rows_NxE = np.empty((len(reader), tower.dim), np.float16)
    for start in range(0, len(reader), _BATCH):
        part = range(start, min(start + _BATCH, len(reader)))
        rows_NxE[part.start : part.stop] = tower(
            reader.pixels(part, size=tower.size, channels=tower.channels)
        )
    memo.save(out, rows_NxE)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedEmbeddings:
    """The embeddings of one split: memory-mapped parts, in order."""

    name: str
    dim: int
    parts: tuple[np.ndarray, ...]
    about: dict[str, Any]

    @classmethod
    def open(cls, dataset: Dataset, name: str, split: str) -> CachedEmbeddings:
        """The rows of `split` under `embeddings/<name>`.

        Raises:
          DataError: none or unfinished, made of another data set, or rows missing.
        """
        examples = dataset.split(split).examples
        folder = dataset.folder / "embeddings" / name
        about = read_json(folder / FILE)
        if about is None:
            made = sorted(path.parent.name for path in folder.parent.glob(f"*/{FILE}"))
            raise DataError(
                f"{folder} has no finished embeddings (there are: {', '.join(made) or 'none'}); "
                "make them with `study data embed`"
            )
        if about.get("dataset_fingerprint") != dataset.fingerprint:
            raise DataError(
                f"{folder} was made of another version of the data set "
                f"({str(about.get('dataset_fingerprint'))[:12]}, now {dataset.fingerprint[:12]}); "
                "make it again with `study data embed`"
            )
        dim = int(about["dim"])
        parts = tuple(_mapped(path, dim) for path in _files(folder, split))
        rows = sum(len(part) for part in parts)
        if rows != examples:
            raise DataError(
                f"{folder} holds {rows} rows for {split}, which has {examples} examples; "
                "remove the folder and make it again with `study data embed`"
            )
        return cls(name=name, dim=dim, parts=parts, about=about)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """The rows at `index_N`, float32 N x E."""
        index_N = np.asarray(index_N)
        out_NxE = np.empty((len(index_N), self.dim), np.float32)
        ends_P = np.cumsum([len(part) for part in self.parts])
        part_N = np.searchsorted(ends_P, index_N, side="right")
        for p in np.unique(part_N):
            here_N = part_N == p
            out_NxE[here_N] = self.parts[p][index_N[here_N] - (ends_P[p - 1] if p else 0)]
        return out_NxE

    def rows(self) -> np.ndarray:
        """All rows in memory, float32 N x E."""
        out_NxE = np.empty((len(self), self.dim), np.float32)
        return np.concatenate(self.parts, out=out_NxE) if self.parts else out_NxE


def _files(folder: Path, split: str) -> list[Path]:
    whole = folder / f"{split}.npy"
    if whole.exists():
        return [whole]
    name = re.compile(re.escape(split) + r"-\d+\.npy")
    return sorted(path for path in folder.glob("*.npy") if name.fullmatch(path.name))


def _readable(path: Path, dim: int) -> bool:
    try:
        _mapped(path, dim)
    except DataError:
        return False
    return True


def _mapped(path: Path, dim: int) -> np.ndarray:
    try:
        rows_NxE = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); make it again (`study data embed` if that made it)"
        ) from None
    if rows_NxE.dtype.kind != "f":
        raise DataError(f"{path} holds {rows_NxE.dtype}, not floats; make it again")
    if rows_NxE.ndim != 2 or rows_NxE.shape[1] != dim:
        raise DataError(f"{path} has the shape {rows_NxE.shape}, tower.json says N x {dim}")
    return rows_NxE
