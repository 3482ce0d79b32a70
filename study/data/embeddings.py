"""Cached image embeddings of a data set.

    <data set>/embeddings/<tower>/tower.json        the index: the tower, its width, and the files
                                  train-00000.npy   float16 N x E, one file per shard

Row i of a split is the embedding of example i, in shard order (a split of pairs uses the rows of
the split that has its images); a row of NaN marks an example whose image cannot be used.
`study.data.embed_shards` writes this layout, which `study.data.row_files` describes. Embeddings
made by other programs may be a single `<split>.npy`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from study.data.errors import DataError
from study.data.files import to_path
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import read_image_rows
from study.data.row_files import Layout, read_index
from study.data.row_shards import RowShards

TOWER_FILE = "tower.json"
_MADE_BY = "`study data embed`"


def embeddings_folder(dataset: Dataset, name: str) -> Path:
    """The folder `name` under the data set's embeddings, or in the bucket that `name` names."""
    return to_path(name) if "://" in name else dataset.folder / "embeddings" / name


def layout(dim: int) -> Layout:
    redo = f"make it again ({_MADE_BY} if that made it)"
    return Layout(width=dim, dtype=np.dtype(np.float16), recorded=TOWER_FILE, redo=redo)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedEmbeddings:
    """The embeddings of one split.

    Attributes:
      stored: the rows.
      metadata: the content of tower.json, but for the list of files.
      bad: for each stored row that is NaN because its image cannot be used, the reason; None if
        there are too many to be listed.
      bad_rows: the number of these rows.
      row_N: for a split of pairs, the stored row of each example; None: row i is example i.
    """

    name: str
    dim: int
    stored: RowShards
    metadata: dict[str, Any]
    bad: dict[int, str] | None
    bad_rows: int
    row_N: np.ndarray | None = None

    @classmethod
    def open(cls, dataset: Dataset, name: str, split: str) -> CachedEmbeddings:
        """Opens the rows of `split` in the folder `name` (`embeddings_folder`).

        Raises:
          DataError: missing, unfinished or stale embeddings, or missing rows.
        """
        if (images := dataset.split(split).images) is not None:
            opened = cls.open(dataset, name, images)
            return dataclasses.replace(opened, row_N=read_image_rows(dataset, split))
        examples = dataset.split(split).examples
        folder = embeddings_folder(dataset, name)
        index = read_index(folder, TOWER_FILE, split)
        if index is None:
            names = sorted(path.parent.name for path in folder.parent.glob(f"*/{TOWER_FILE}"))
            raise DataError(
                f"{folder} has no finished embeddings (finished: {', '.join(names) or 'none'}); "
                f"make them with {_MADE_BY}"
            )
        fingerprint = index.metadata.get("dataset_fingerprint")
        if fingerprint != dataset.fingerprint:
            raise DataError(
                f"{folder} was made from another version of the data set "
                f"({str(fingerprint)[:12]}, now {dataset.fingerprint[:12]}); remove it and make it "
                f"again with {_MADE_BY}"
            )
        dim = int(index.metadata["dim"])
        stored = RowShards(folder, index.shards, layout(dim))
        if len(stored) != examples:
            raise DataError(
                f"{folder} holds {len(stored)} rows for {split}, which has {examples} examples; "
                f"remove the folder and make it again with {_MADE_BY}"
            )
        starts = stored.starts() if index.bad else {}
        bad = None if index.bad is None else {
            starts[file] + int(i): reason
            for file, reasons in index.bad.items()
            for i, reason in reasons.items()
        }  # fmt: skip
        return cls(
            name=name,
            dim=dim,
            stored=stored,
            metadata=index.metadata,
            bad=bad,
            bad_rows=index.bad_rows,
        )

    def __len__(self) -> int:
        """Examples, which in a split of pairs are more than the stored rows."""
        return len(self.stored) if self.row_N is None else len(self.row_N)

    def to_rows(self, index_N: np.ndarray) -> np.ndarray:
        """The stored rows of examples."""
        return index_N if self.row_N is None else self.row_N[index_N]

    @property
    def bad_examples(self) -> dict[int, str]:
        """For each example whose image cannot be used, the reason, if they are listed."""
        if self.row_N is None or not self.bad:
            return self.bad or {}
        bad_M = np.flatnonzero(np.isin(self.row_N, list(self.bad)))
        return {i: self.bad[int(self.row_N[i])] for i in bad_M.tolist()}

    @property
    def identity(self) -> Hashable:
        """Of the stored rows; it changes when they are written again."""
        about = hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()
        return str(self.stored.folder), about, len(self.stored), self.stored.modified

    def take(self, index_N: np.ndarray) -> np.ndarray:
        """The rows of the examples `index_N`, N x E, float16 if all are stored in it."""
        return self.stored.take(self.to_rows(np.asarray(index_N)))

    def rows(self) -> np.ndarray:
        """All stored rows in memory, N x E."""
        return self.stored.rows()


def is_complete(dataset: Dataset, name: str) -> bool:
    """Whether the embeddings `name` of every split exist and can be read."""
    try:
        for split in dataset.splits:
            CachedEmbeddings.open(dataset, name, split)
    except DataError:
        return False
    return True
