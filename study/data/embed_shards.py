"""Embeds the images of a data set with a frozen tower, shard by shard (`study data embed`)."""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from study.config.data import Resize
from study.data.embeddings import embeddings_folder, layout
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_shard
from study.data.parallel import ProgressFn, no_progress
from study.data.write_rows import Array, write_rows

LAYOUT = 2  # version of the folder's layout: since 2 each shard has a JSON file
_BATCH = 256


class Tower(Protocol):
    """A frozen image tower: uint8 N x size x size x channels to float32 N x dim."""

    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def metadata(self) -> dict[str, Any]: ...

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray: ...


def embed_dataset(
    dataset: Dataset,
    tower: Tower,
    name: str,
    *,
    resize: Resize = "bicubic",
    workers: int = 2,
    max_bad_share: float = 0.01,
    part: tuple[int, int] = (0, 1),
    progress: ProgressFn = no_progress,
) -> Path:
    """Embeds every split with `tower` and returns the folder of the embeddings.

    A split of pairs has no rows of its own: it uses those of the split with its images.

    Arguments:
      name: a folder under `<data set>/embeddings`, or gs://BUCKET/FOLDER.
      resize: how images are resized to the tower's size (`study.data.images.decode`).
      workers: processes; with more than one the tower must be picklable.
      max_bad_share: largest share of a split's images that may be unusable.
      part: (k, n): see `study.data.write_rows.write_rows`.

    Raises:
      DataError: the folder holds other embeddings; a damaged shard, too many unusable images, or
        a disk that is full or read-only.
    """
    metadata = {"name": name, "dim": tower.dim, "dataset_fingerprint": dataset.fingerprint}
    array = Array(
        folder=embeddings_folder(dataset, name),
        layout=layout(tower.dim),
        metadata=metadata | tower.metadata | {"layout": LAYOUT, "resize": resize},
        make=_Embed(tower, resize),
        action="embedding",
        bad="images",
    )
    return write_rows(
        dataset,
        array,
        splits=[split.name for split in dataset.splits.values() if split.images is None],
        workers=workers,
        max_bad_share=max_bad_share,
        part=part,
        progress=progress,
    )


@dataclasses.dataclass(frozen=True)
class _Embed:
    """Makes the embeddings of a shard."""

    tower: Tower
    resize: Resize

    def __call__(
        self, dataset: Dataset, split: str, number: int
    ) -> tuple[np.ndarray, dict[int, str]]:
        tower = self.tower
        reader = open_shard(dataset, split, number)
        read_batch = functools.partial(
            reader.try_read_images, size=tower.size, channels=tower.channels, resize=self.resize
        )
        rows_NxE = np.empty((len(reader), tower.dim), np.float16)
        bad: dict[int, str] = {}
        starts = range(0, len(reader), _BATCH)
        batches = [range(start, min(start + _BATCH, len(reader))) for start in starts]
        with ThreadPoolExecutor(1) as pool:  # decodes the next batch while the tower runs
            pending = [pool.submit(read_batch, batch) for batch in batches[:1]]
            for k, batch in enumerate(batches, start=1):
                images_NxHxWxC, errors = pending.pop().result()
                pending += [pool.submit(read_batch, following) for following in batches[k : k + 1]]
                rows_NxE[batch.start : batch.stop] = tower(images_NxHxWxC)
                rows_NxE[list(errors)] = np.nan
                bad |= {i: str(error) for i, error in errors.items()}
        return rows_NxE, bad
