"""`study bench rows`: what it takes a host to read cached embeddings and tokens.

Measures CPU seconds of this process: of the whole loader from a disk and from a bucket, and of a
request. Counts the requests and bytes of one host of a run by planning its reads
of a set of any size, without reading.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from study.config import CachedImage, Data
from study.config.data import Blocks, Global
from study.data import cache, ranges
from study.data.embeddings import TOWER_FILE, embeddings_folder, layout
from study.data.files import to_path
from study.data.formats.dataset import Dataset, Split
from study.data.order import Order
from study.data.row_files import HEADER_BYTES, Layout, Shard
from study.data.row_shards import RowShards
from study.data.sources import EmbeddingSource
from study.data.stream import Lookahead, batches
from study.data.token_shards import TOKENS_FILE, token_layout, tokens_folder
from study.data.tokenizer import Tokenizer, train_tokenizer
from study.records.record import atomic_write, write_json
from study.records.storage import mkdir

DIM = 1408  # of a ViT-g/14
_ROWS, _SHARD, _BATCH = 32_768, 4096, 2048
_REQUESTS = 512
_ROUNDS = 3
_NAME = "z"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """CPU seconds of one process, the least of some rounds.

    Attributes:
      disk: of the loader per example, from files in the page cache.
      request: per request of one row.
      bucket: of the loader per example, from a bucket in blocks order.
      bucket_requests, bucket_bytes: of it per example.
    """

    disk: float
    request: float
    bucket: float
    bucket_requests: float
    bucket_bytes: float

    @property
    def byte(self) -> float:
        """Per byte of a bucket: what reading costs there beside a disk and the requests."""
        rest = self.bucket - self.disk - self.bucket_requests * self.request
        return max(0.0, rest) / self.bucket_bytes

    def predict(self, requests: float, size: float) -> float:
        """CPU seconds per example that takes this many requests and bytes of a bucket."""
        return self.disk + requests * self.request + size * self.byte


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests and bytes of a bucket per example that a host needs."""

    requests: float
    bytes: float


def measure(folder: Path, bucket: str) -> Rates:
    """Measures with a small set that is written to a local folder and to a folder in a bucket.

    Arguments:
      bucket: gs://BUCKET/FOLDER.
    """
    local, remote = write_set(folder, folder), write_set(to_path(bucket), folder)
    with cache.nothing_in_memory():
        disk = _least(lambda: _load(local, Global()))
        requests, sent = ranges.counts["requests"], ranges.counts["bytes"]
        on_bucket = _least(lambda: _load(remote, Blocks()))
        read = (1 + _ROUNDS) * _ROWS
        requests, sent = ranges.counts["requests"] - requests, ranges.counts["bytes"] - sent
    path = embeddings_folder(remote, _NAME) / "train-00000.npy"
    row = 2 * DIM
    starts = [HEADER_BYTES + k * row for k in range(_REQUESTS)]
    runs = [ranges.Run(start, start + row, []) for start in starts]
    return Rates(
        disk=disk / _ROWS,
        request=_least(lambda: _fetch(path, runs)) / _REQUESTS,
        bucket=on_bucket / _ROWS,
        bucket_requests=requests / read,
        bucket_bytes=sent / read,
    )


def plan_traffic(
    kind: Global | Blocks, *, examples: int, shard: int, batch_size: int, hosts: int, dim: int
) -> Traffic:
    """The traffic of one host in the middle of a run, as its loader plans it.

    Arguments:
      examples: of the data set; shard: of each of its files.
    """
    source: Any = _Plan(examples, shard, dim)  # of a source it has what is called
    own = np.array_split(np.arange(batch_size), hosts)[hosts // 2]
    # Long enough that the two windows at its ends, which are read in part, do not matter.
    window = kind.size * kind.open if isinstance(kind, Blocks) else 0
    steps = max(4, 40 * window // batch_size)
    ahead = Lookahead(
        source,
        Order.of([examples], seed=0, kind=kind),
        rows=own,
        batch_size=batch_size,
        origin=0,
        begin=0,
        stop=steps,
    )
    for step in range(steps):
        ahead.prefetch(step + 1, min(step + 2, steps))
    needed = steps * len(own)
    return Traffic(requests=source.requests / needed, bytes=source.bytes / needed)


class _Plan:
    """A source whose rows are planned and never read: of a bucket that does not exist."""

    def __init__(self, examples: int, shard: int, dim: int):
        self.size = examples
        files = -(-examples // shard)
        shards = [
            Shard(f"train-{k:05d}.npy", min(shard, examples - k * shard)) for k in range(files)
        ]
        folder = to_path("gs://none/none")
        tokens = Layout(width=Data().text_length, dtype=np.dtype(np.uint16), recorded="", redo="")
        self._arrays = [RowShards(folder, shards, of) for of in (layout(dim), tokens)]
        self.requests = self.bytes = 0

    def prefetch(self, index_N: np.ndarray) -> None:
        for rows in self._arrays:
            requests, size = rows.count_requests(index_N)
            self.requests += requests
            self.bytes += size


# --- measurements ---------------------------------------------------------------------------------


def write_set(folder: Path, scratch: Path) -> Dataset:
    """Writes random embeddings and tokens, in shards, of a set without images and texts.

    Arguments:
      scratch: a local folder for the tokenizer.
    """
    model = scratch / "sentencepiece.model"
    if not model.exists():
        model.write_bytes(train_tokenizer(["a photo of a small red house by the river"] * 8))
    shards = _ROWS // _SHARD
    dataset = Dataset(
        folder=folder,
        name="rows",
        fingerprint="rows",
        splits={"train": Split(name="train", shards=(folder,) * shards, examples=_ROWS)},
        class_names=(),
        templates=(),
        tokenizer=model,
        recipe={},
        hashes={},
    )
    tokenizer = Tokenizer.open(dataset, Data())
    rng = np.random.default_rng(0)
    _write_array(
        embeddings_folder(dataset, _NAME),
        TOWER_FILE,
        lambda: rng.normal(size=(_SHARD, DIM)).astype(layout(DIM).dtype),
    )
    _write_array(
        tokens_folder(dataset, tokenizer),
        TOKENS_FILE,
        lambda: np.ones((_SHARD, tokenizer.length), token_layout(tokenizer).dtype),
    )
    return dataset


def _write_array(folder: Path, index: str, make: Callable[[], np.ndarray]) -> None:
    mkdir(folder)
    names = [f"train-{k:05d}" for k in range(_ROWS // _SHARD)]
    for name in names:
        buffer = io.BytesIO()
        np.save(buffer, make())
        with atomic_write(folder / f"{name}.npy") as file:
            file.write(buffer.getbuffer())
    entries = {name: {"rows": _SHARD, "sha256": "", "bad": {}} for name in names}
    metadata = {"dim": DIM, "dataset_fingerprint": "rows", "shards": entries}
    write_json(folder / index, metadata)


def _load(dataset: Dataset, kind: Global | Blocks) -> None:
    source = EmbeddingSource(dataset, "train", CachedImage(embeddings=_NAME, dim=DIM), Data())
    steps = _ROWS // _BATCH
    order = Order.of([source.size], seed=0, kind=kind)
    for _ in batches(
        source, seed=0, batch_size=_BATCH, first_step=0, chunks=[1] * steps, order=order
    ):
        pass


def _fetch(path: Path, runs: list[ranges.Run]) -> None:
    for future in [ranges.submit(path, run) for run in runs]:
        future.result()


def _least(call: Callable[[], None]) -> float:
    """CPU seconds of this process, all threads; a round more opens files and connections."""
    call()
    seconds = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)
