"""Cached image embeddings of a data set, read as memory-mapped rows.

    <data set>/embeddings/<tower>/tower.json        written last: the tower, its width, and for
                                                    each file its rows, SHA-256 and bad images
                                  train-00000.npy   float16 N x E, one file per shard
                                  train-00000.json  the entry of this file in tower.json

Row i of a split is the embedding of example i, in shard order (a split of pairs uses the rows of
the split that has its images); a row of NaN marks an example
whose image cannot be used. `study.data.embed_shards` writes this layout. Embeddings made by other
programs may be a single `<split>.npy`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from study.data.formats.dataset import DataError, Dataset, sha256_files
from study.data.formats.open_split import read_image_rows
from study.records.record import read_json

TOWER_FILE = "tower.json"
_REDO = "remove it and run the command that made it again (`study data embed`)"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedEmbeddings:
    """The embeddings of one split: memory-mapped parts, in order.

    Attributes:
      metadata: the content of tower.json.
      bad: for each stored row that is NaN because its image cannot be used, the reason.
      row_N: for a split of pairs, the stored row of each example; None: row i is example i.
    """

    name: str
    dim: int
    parts: tuple[np.ndarray, ...]
    metadata: dict[str, Any]
    bad: dict[int, str] = dataclasses.field(default_factory=dict)
    row_N: np.ndarray | None = None

    @classmethod
    def open(cls, dataset: Dataset, name: str, split: str) -> CachedEmbeddings:
        """Opens the rows of `split` under `embeddings/<name>`.

        Raises:
          DataError: missing, unfinished or stale embeddings, or missing rows.
        """
        if (images := dataset.split(split).images) is not None:
            stored = cls.open(dataset, name, images)
            return dataclasses.replace(stored, row_N=read_image_rows(dataset, split))
        examples = dataset.split(split).examples
        folder = dataset.folder / "embeddings" / name
        metadata = read_json(folder / TOWER_FILE)
        if metadata is None:
            names = sorted(path.parent.name for path in folder.parent.glob(f"*/{TOWER_FILE}"))
            raise DataError(
                f"{folder} has no finished embeddings (finished: {', '.join(names) or 'none'}); "
                "make them with `study data embed`"
            )
        if metadata.get("dataset_fingerprint") != dataset.fingerprint:
            raise DataError(
                f"{folder} was made from another version of the data set "
                f"({str(metadata.get('dataset_fingerprint'))[:12]}, now "
                f"{dataset.fingerprint[:12]}); remove it and make it again with `study data embed`"
            )
        dim = int(metadata["dim"])
        single = folder / f"{split}.npy"
        pattern = re.compile(re.escape(split) + r"-\d+\.npy")
        paths = [p for p in sorted(folder.glob("*.npy")) if pattern.fullmatch(p.name)]
        paths = [single] if single.exists() else paths
        parts = tuple(map_rows(path, dim) for path in paths)
        rows = sum(len(part) for part in parts)
        if rows != examples:
            raise DataError(
                f"{folder} holds {rows} rows for {split}, which has {examples} examples; "
                "remove the folder and make it again with `study data embed`"
            )
        bad: dict[int, str] = {}
        start = 0
        for path, part in zip(paths, parts, strict=True):
            reasons = metadata.get("shards", {}).get(path.stem, {}).get("bad", {})
            bad |= {start + int(i): reason for i, reason in reasons.items()}
            start += len(part)
        return cls(name=name, dim=dim, parts=parts, metadata=metadata, bad=bad)

    @staticmethod
    def verify(folder: Path) -> None:
        """Compares the files of a finished folder with their recorded SHA-256.

        Raises:
          DataError: the first file that differs or is missing.
        """
        shards = (read_json(folder / TOWER_FILE) or {}).get("shards", {})
        names = [f"{stem}.npy" for stem in shards]
        for name in names:
            if not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing; {_REDO}")
        for name, digest in sha256_files(folder, names).items():
            if digest != shards[name.removesuffix(".npy")]["sha256"]:
                raise DataError(f"{folder / name} has changed since it was written; {_REDO}")

    def __len__(self) -> int:
        """Examples, which in a split of pairs are more than the stored rows."""
        return self.stored if self.row_N is None else len(self.row_N)

    @property
    def stored(self) -> int:
        """Stored rows."""
        return sum(len(part) for part in self.parts)

    def to_rows(self, index_N: np.ndarray) -> np.ndarray:
        """The stored rows of examples."""
        return index_N if self.row_N is None else self.row_N[index_N]

    @property
    def bad_examples(self) -> dict[int, str]:
        """For each example whose image cannot be used, the reason."""
        if self.row_N is None or not self.bad:
            return self.bad
        bad_M = np.flatnonzero(np.isin(self.row_N, list(self.bad)))
        return {i: self.bad[int(self.row_N[i])] for i in bad_M.tolist()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows that are read: float16 if all are stored in it, else float32."""
        half = all(part.dtype == np.float16 for part in self.parts)
        return np.dtype(np.float16 if half else np.float32)

    @property
    def identity(self) -> Hashable:
        """Of the stored rows; it changes when a file is written again."""
        files = [str(part.filename) for part in self.parts if isinstance(part, np.memmap)]
        return self.name, tuple((file, Path(file).stat().st_mtime_ns) for file in files)

    @property
    def nbytes(self) -> int:
        """Of all stored rows in memory."""
        return self.stored * self.dim * self.dtype.itemsize

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """The rows of the examples `index_N`, N x E."""
        index_N = self.to_rows(np.asarray(index_N))
        out_NxE = np.empty((len(index_N), self.dim), self.dtype)
        ends_P = np.cumsum([len(part) for part in self.parts])
        part_N = np.searchsorted(ends_P, index_N, side="right")
        for p in np.unique(part_N):
            here_N = part_N == p
            out_NxE[here_N] = self.parts[p][index_N[here_N] - (ends_P[p - 1] if p else 0)]
        return out_NxE

    def rows(self) -> np.ndarray:
        """All stored rows in memory, N x E."""
        out_NxE = np.empty((self.stored, self.dim), self.dtype)
        return np.concatenate(self.parts, out=out_NxE) if self.parts else out_NxE


def is_complete(dataset: Dataset, name: str) -> bool:
    """Whether the embeddings `name` of every split exist and can be read."""
    try:
        for split in dataset.splits:
            CachedEmbeddings.open(dataset, name, split)
    except DataError:
        return False
    return True


def map_rows(path: Path, dim: int) -> np.ndarray:
    """Memory-maps a `.npy` of floats N x dim.

    Raises:
      DataError: a file that cannot be read, or an array of another type or shape.
    """
    try:
        rows_NxE = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); make it again (`study data embed` if that made it)"
        ) from None
    if rows_NxE.dtype.kind != "f":
        raise DataError(f"{path} holds {rows_NxE.dtype}, not floats; make it again")
    if rows_NxE.ndim != 2 or rows_NxE.shape[1] != dim:
        raise DataError(
            f"{path} has shape {rows_NxE.shape}, but {TOWER_FILE} records N x {dim}; make it again"
        )
    return rows_NxE
