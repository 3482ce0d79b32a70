"""Cached image embeddings: made once with any frozen tower, read as memory-mapped rows.

    <data set>/embeddings/<tower>/tower.json        written last; what the tower is, its width,
                                                    and of each file rows and SHA-256
                                  train-00000.npy   float16 N x E, one file for each shard
                                  train-00000.json  what tower.json will say of it

Row i of a split is example i of it, in the order of its shards; a row of NaN is an example
without a usable image. Embeddings made elsewhere may also lie in one `<split>.npy`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from study.config.cell import Resize
from study.data import cache as memo
from study.data.formats.dataset import DataError, Dataset, hashes_of
from study.data.formats.examples import examples_of_shard
from study.data.parallel import ProgressFn, each, quiet
from study.records.record import read_json, write_json

FILE, BEGUN = "tower.json", "begun.json"
LAYOUT = 2  # each shard has a JSON file beside it until all are written
_BATCH = 256
_AGAIN = "remove it and run the command that made it again (`study data embed`)"


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
    dataset: Dataset,
    tower: Tower,
    name: str,
    *,
    resize: Resize = "bicubic",
    workers: int = 2,
    max_bad_share: float = 0.01,
    part: tuple[int, int] = (0, 1),
    force: bool = False,
    progress: ProgressFn = quiet,
) -> Path:
    """Embeds every split with `tower` into `embeddings/<name>`, shard by shard.

    A shard appears when it is whole and is not made again, so a killed run goes on where it was.
    With workers > 1 the tower must be picklable.

    Arguments:
      resize: how images get the tower's size (`study.data.images.decode`); tower.json records it.
      max_bad_share: of a split's images that may be unusable.
      part: (k, n): only every n-th shard from the k-th on, for one machine of n that write into
        one folder. The one that finds all shards written finishes the folder.

    Raises:
      DataError: the folder holds other embeddings and `force` is not set; a damaged shard, too
        many unusable images, or a disk that is full or read-only.
    """
    folder = dataset.folder / "embeddings" / name
    about = {"name": name, "dim": tower.dim, "dataset_fingerprint": dataset.fingerprint}
    about |= tower.about | {"layout": LAYOUT, "resize": resize}
    about = json.loads(json.dumps(about))  # as it is read back: a tuple becomes a list
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, about, dataset, force)
        tasks = [
            _Task(
                dataset=dataset,
                split=split.name,
                number=k,
                folder=folder,
                tower=tower,
                resize=resize,
            )
            for split in dataset.splits.values()
            for k in range(len(split.shards))
        ]
        mine = tasks[part[0] :: part[1]]
        missing = [task for task in mine if not task.done]
        for done, _ in enumerate(each(_embed_shard, missing, workers=workers), start=1):
            progress("embedding", len(mine) - len(missing) + done, len(mine))
        if all(task.done for task in tasks):
            _finish(dataset, folder, about, tasks, max_bad_share)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room and run again "
            "(finished shards are kept)"
        ) from None
    return folder


def _claim(folder: Path, about: dict[str, Any], dataset: Dataset, force: bool) -> None:
    """Marks the folder as that of embeddings `about`, unless it holds others."""
    begun = read_json(folder / BEGUN)
    if begun is not None:
        begun = {"resize": "bicubic"} | begun  # older folders do not name the only one there was
    if begun == about:
        return
    ours = _written(folder)
    others = sorted({*folder.glob("*.npy"), *folder.glob("*.json")} - set(ours))
    for path in others:
        split = re.sub(r"-\d+$", "", path.stem)
        if path.name == FILE or split in dataset.splits:  # would be read, or written over
            raise DataError(
                f"{path} was not written by this command; move it away or choose another folder "
                "name"
            )
    if not force and (begun or ours or others):
        raise DataError(
            f"{folder} holds other embeddings ({_differences(begun or {}, about)}); choose another "
            "folder name, or replace them with --force"
        )
    for path in ours:
        path.unlink(missing_ok=True)
    write_json(folder / BEGUN, about)


def _written(folder: Path) -> list[Path]:
    """The files that `embed` wrote into the folder, by its own notes; tower.json first."""
    stems = set((read_json(folder / FILE) or {}).get("shards", {}))
    for path in folder.glob("*.json"):
        if set(read_json(path) or {}) == {"rows", "sha256", "bad"}:
            stems.add(path.stem)
    names = [FILE] if (folder / BEGUN).exists() else []
    names += [f"{stem}.{kind}" for stem in sorted(stems) for kind in ("npy", "json")]
    return [folder / name for name in [*names, BEGUN] if (folder / name).exists()]


def _differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    if not there:
        return "made elsewhere"
    keys = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    return "; ".join(
        f"{key} {str(there.get(key))[:24]} there, {str(now.get(key))[:24]} now" for key in keys[:3]
    )


def made(dataset: Dataset, name: str) -> bool:
    """Whether the embeddings `name` of every split are there and can be read."""
    try:
        for split in dataset.splits:
            CachedEmbeddings.open(dataset, name, split)
    except DataError:
        return False
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """One shard to embed, and where to."""

    dataset: Dataset
    split: str
    number: int
    folder: Path
    tower: Tower
    resize: Resize

    @property
    def out(self) -> Path:
        return self.folder / f"{self.split}-{self.number:05d}.npy"

    @property
    def done(self) -> bool:
        """Whether the rows are there; what is said of them is written before."""
        said = self.out.with_suffix(".json")
        return said.exists() and _readable(self.out, self.tower.dim)


def _embed_shard(task: _Task) -> None:
    tower = task.tower
    reader = examples_of_shard(task.dataset, task.split, task.number)
    rows_NxE = np.empty((len(reader), tower.dim), np.float16)
    bad: dict[str, str] = {}
    # The next images are decoded while the tower is at work on these.
    with ThreadPoolExecutor(1) as ahead:
        parts = [
            range(start, min(start + _BATCH, len(reader)))
            for start in range(0, len(reader), _BATCH)
        ]
        read = functools.partial(
            reader.usable, size=tower.size, channels=tower.channels, resize=task.resize
        )
        coming = [ahead.submit(read, part) for part in parts[:1]]
        for k, part in enumerate(parts):
            images_NxHxWxC, errors = coming.pop().result()
            if k + 1 < len(parts):
                coming.append(ahead.submit(read, parts[k + 1]))
            rows_NxE[part.start : part.stop] = tower(images_NxHxWxC)
            rows_NxE[list(errors)] = np.nan
            bad |= {str(i): str(error) for i, error in errors.items()}
    out = io.BytesIO()
    np.save(out, rows_NxE)
    digest = hashlib.sha256(out.getbuffer()).hexdigest()
    said = {"rows": len(rows_NxE), "sha256": digest, "bad": bad}
    write_json(task.out.with_suffix(".json"), said)
    memo.save(task.out, rows_NxE)


def _finish(
    dataset: Dataset, folder: Path, about: dict[str, Any], tasks: list[_Task], max_bad_share: float
) -> None:
    """Writes tower.json, which says of the shards what their own JSON files said."""
    if (folder / FILE).exists():
        return
    said = {task.out.stem: read_json(task.out.with_suffix(".json")) or {} for task in tasks}
    for split in dataset.splits.values():
        bad = [
            why
            for task in tasks
            if task.split == split.name
            for why in said[task.out.stem]["bad"].values()
        ]
        if len(bad) > max_bad_share * split.examples:
            raise DataError(
                f"{len(bad)} of the {split.examples:,} images of {split.name} cannot be used, "
                f"more than {max_bad_share:.2%}; the first: {bad[0]}; or allow more "
                "(--max-bad-share)"
            )
    write_json(folder / FILE, about | {"shards": said})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedEmbeddings:
    """The embeddings of one split: memory-mapped parts, in order.

    bad: why, for each example whose image could not be used and whose row is NaN.
    """

    name: str
    dim: int
    parts: tuple[np.ndarray, ...]
    about: dict[str, Any]
    bad: dict[int, str] = dataclasses.field(default_factory=dict)

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
                "make it again with `study data embed --force`"
            )
        dim = int(about["dim"])
        files = _files(folder, split)
        parts = tuple(_mapped(path, dim) for path in files)
        rows = sum(len(part) for part in parts)
        if rows != examples:
            raise DataError(
                f"{folder} holds {rows} rows for {split}, which has {examples} examples; "
                "remove the folder and make it again with `study data embed`"
            )
        said, start = about.get("shards", {}), 0
        bad: dict[int, str] = {}
        for path, part in zip(files, parts, strict=True):
            found = said.get(path.stem, {}).get("bad", {})
            bad |= {start + int(i): why for i, why in found.items()}
            start += len(part)
        return cls(name=name, dim=dim, parts=parts, about=about, bad=bad)

    @staticmethod
    def verify(folder: Path) -> None:
        """Compares the files of a finished folder with the hashes noted when they were written.

        Raises:
          DataError: the first file that differs or is missing.
        """
        said = (read_json(folder / FILE) or {}).get("shards", {})
        names = [f"{stem}.npy" for stem in said]
        for name in names:
            if not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing; {_AGAIN}")
        for name, digest in hashes_of(folder, names).items():
            if digest != said[name.removesuffix(".npy")]["sha256"]:
                raise DataError(f"{folder / name} is not what was written; {_AGAIN}")

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
