"""Embeds the images of a data set with a frozen tower, shard by shard (`study data embed`).

The files are described in `study.data.embeddings`. A shard's file appears when it is complete and
is not made again, so a killed run continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from study.config.data import Resize
from study.data.embeddings import TOWER_FILE, map_rows
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_shard
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.records.record import atomic_write, read_json, write_json

BEGUN_FILE = "begun.json"
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
    """Embeds every split with `tower` into `embeddings/<name>` and returns that folder.

    A split of pairs has no rows of its own: it uses those of the split with its images.

    Arguments:
      resize: how images are resized to the tower's size (`study.data.images.decode`).
      workers: processes; with more than one the tower must be picklable.
      max_bad_share: largest share of a split's images that may be unusable.
      part: (k, n): only every n-th shard from the k-th on, for n machines that write into one
        folder. Whichever finds all shards written finishes the folder.

    Raises:
      DataError: the folder holds other embeddings; a damaged shard, too many unusable images, or
        a disk that is full or read-only.
    """
    folder = dataset.folder / "embeddings" / name
    metadata = {"name": name, "dim": tower.dim, "dataset_fingerprint": dataset.fingerprint}
    metadata |= tower.metadata | {"layout": LAYOUT, "resize": resize}
    metadata = json.loads(json.dumps(metadata))  # tuples become lists, as when it is read back
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _claim_folder(folder, metadata)
        splits = [split for split in dataset.splits.values() if split.images is None]
        tasks = [
            _Task(
                dataset=dataset,
                split=split.name,
                number=k,
                path=folder / f"{split.name}-{k:05d}.npy",
                tower=tower,
                resize=resize,
            )
            for split in splits
            for k in range(len(split.shards))
        ]
        mine = tasks[part[0] :: part[1]]
        missing = [task for task in mine if not task.is_done()]
        for done, _ in enumerate(map_unordered(_embed_shard, missing, workers=workers), start=1):
            progress("embedding", len(mine) - len(missing) + done, len(mine))
        if not (folder / TOWER_FILE).exists() and all(task.is_done() for task in tasks):
            shards = {t.path.stem: read_json(t.path.with_suffix(".json")) or {} for t in tasks}
            for split in splits:
                names = [task.path.stem for task in tasks if task.split == split.name]
                reasons = [reason for name in names for reason in shards[name]["bad"].values()]
                if len(reasons) > max_bad_share * split.examples:
                    raise DataError(
                        f"{len(reasons)} of the {split.examples:,} images of {split.name} cannot "
                        f"be used, more than {max_bad_share:.2%}; the first: {reasons[0]}; or "
                        "allow more (--max-bad-share)"
                    )
            write_json(folder / TOWER_FILE, metadata | {"shards": shards})
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room and run again "
            "(finished shards are kept)"
        ) from None
    return folder


# --- one shard ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """One shard to embed, and the file for its rows."""

    dataset: Dataset
    split: str
    number: int
    path: Path
    tower: Tower
    resize: Resize

    def is_done(self) -> bool:
        # The JSON is written before the rows, so its absence means an interrupted write.
        if not self.path.with_suffix(".json").exists():
            return False
        try:
            map_rows(self.path, self.tower.dim)
        except DataError:
            return False
        return True


def _embed_shard(task: _Task) -> None:
    tower = task.tower
    reader = open_shard(task.dataset, task.split, task.number)
    read_batch = functools.partial(
        reader.try_read_images, size=tower.size, channels=tower.channels, resize=task.resize
    )
    rows_NxE = np.empty((len(reader), tower.dim), np.float16)
    bad: dict[str, str] = {}
    batches = [
        range(start, min(start + _BATCH, len(reader))) for start in range(0, len(reader), _BATCH)
    ]
    with ThreadPoolExecutor(1) as pool:  # decodes the next batch while the tower runs
        pending = [pool.submit(read_batch, batch) for batch in batches[:1]]
        for k, batch in enumerate(batches, start=1):
            images_NxHxWxC, errors = pending.pop().result()
            pending += [pool.submit(read_batch, following) for following in batches[k : k + 1]]
            rows_NxE[batch.start : batch.stop] = tower(images_NxHxWxC)
            rows_NxE[list(errors)] = np.nan
            bad |= {str(i): str(error) for i, error in errors.items()}
    buffer = io.BytesIO()
    np.save(buffer, rows_NxE)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    write_json(
        task.path.with_suffix(".json"), {"rows": len(rows_NxE), "sha256": digest, "bad": bad}
    )
    with atomic_write(task.path) as file:
        file.write(buffer.getbuffer())


def _claim_folder(folder: Path, metadata: dict[str, Any]) -> None:
    """Marks the folder as that of these embeddings.

    Raises:
      DataError: it holds other embeddings, which may be days of work and are never removed here.
    """
    begun = read_json(folder / BEGUN_FILE)
    if begun == metadata:
        return
    if begun is not None:
        changes = "; ".join(
            f"{key} was {str(begun.get(key))[:24]}, is {str(metadata.get(key))[:24]}"
            for key in {**metadata, **begun}
            if begun.get(key) != metadata.get(key)
        )
    elif (folder / TOWER_FILE).exists() or any(folder.glob("*.npy")):
        changes = "made by another program"
    else:
        write_json(folder / BEGUN_FILE, metadata)
        return
    raise DataError(
        f"{folder} holds other embeddings ({changes}); remove it or choose another folder name"
    )
