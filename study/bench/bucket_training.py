"""`study bench bucket`: train one cell on glyphs from a local folder and from a bucket.

The bucket is a Google Cloud Storage server on loopback. Each run is a process of its own. Runs from
folder and bucket take turns. In blocks order one more run from the bucket is killed after its first
checkpoint and started again. All must record the same metrics, bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.bench.data import NO_COPIES, count_traffic
from study.bench.gcs_server import environment, server
from study.config import (
    Adam,
    Blocks,
    Budget,
    Cell,
    Data,
    Execution,
    Global,
    MeanPoolText,
    Model,
    Sigmoid,
    ViT,
    to_dict,
)
from study.config.cell import from_dict
from study.config.host import cores
from study.data.glyphs.write import write_glyphs
from study.records.metrics_log import parse, read_rows
from study.training.throughput import TIMING_METRICS

DATASET, VIEWS = "glyphs", 2  # 76,660 examples to train on
MODEL = Model(
    image=ViT(variant="mu/8", image_size=24, pool="gap"), text=MeanPoolText(width=64), embed_dim=64
)
# Order, and whether the shards may be copied to this machine, as small sets are by default.
CASES = ((Global(), True), (Global(), False), (Blocks(), False))
_KEPT_PERCENT = 50.0  # of the run, between checkpoints
_VARYING = {*TIMING_METRICS, "time", "attempt"}  # what differs between equal runs

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Training in one order; medians over the rounds.

    Attributes:
      order: "global" or "blocks".
      copies: whether shards were copied to this machine; else they were read by ranges.
      disk_per_s, bucket_per_s: examples per second of training.
      ratios: bucket over disk, in each round.
      disk_wait, bucket_wait: the largest share of the time that the devices waited for data.
      sent: bytes that the bucket sends per example, and `requests`, how many an example takes.
      equal: whether all runs recorded the same metrics, bit for bit.
      resumed_equal: whether a run did that was killed and started again; None in global order,
        where none is.
    """

    order: str
    copies: bool
    examples: int
    disk_per_s: float
    bucket_per_s: float
    ratios: tuple[float, ...]
    disk_wait: float
    bucket_wait: float
    sent: float
    requests: float
    equal: bool
    resumed_equal: bool | None


def bench(
    folder: Path,
    *,
    examples: int = 60_000,
    batch_size: int = 256,
    rounds: int = 2,
    limit_characters: int | None = None,
    log: Log = lambda _: None,
) -> list[Result]:
    """Trains in both orders, from disk and bucket.

    Arguments:
      folder: for the data set, which is kept and used again, and the records.
      examples: to train on in each run, rounded down to whole batches.
      limit_characters: only these many characters of glyphs, for a test.
    """
    log("writing glyphs")
    root = folder / "data"
    write_glyphs(root / DATASET, views=VIEWS, workers=cores(), limit_characters=limit_characters)
    results = []
    with server(folder) as running, environment(running.environment):
        bucket = running.bucket()
        log("uploading glyphs")
        running.upload(bucket, root / DATASET, DATASET)
        traffic = functools.partial(count_traffic, running, bucket)
        for kind, copies in CASES:
            cell = Cell(
                model=MODEL,
                data=Data(dataset=DATASET, order=kind),
                loss=Sigmoid(),
                optimizer=Adam(learning_rate=4e-3, b2=0.95, warmup_percent=5, clip_norm=1.0),
                budget=Budget(examples=examples // batch_size * batch_size),
                batch_size=batch_size,
                evals=(),
            )
            name = f"{kind.kind} order{', copied' * copies}"
            runs: dict[str, list[_Run]] = {"disk": [], "bucket": []}
            for number, place in itertools.product(range(rounds), runs):
                log(f"{name}: from {place}, round {number + 1} of {rounds}")
                data_root = str(root) if place == "disk" else f"gs://{bucket}"
                with tempfile.TemporaryDirectory(dir=folder) as run:
                    runs[place].append(_train(cell, data_root, Path(run), copies, traffic))
            killed = None
            if isinstance(kind, Blocks):
                log(f"{name}: from the bucket, killed and started again")
                with tempfile.TemporaryDirectory(dir=folder) as run:
                    killed = _train(cell, data_root, Path(run), copies, traffic, kill=True)
            results.append(
                _summarize(kind.kind, copies, cell, runs["disk"], runs["bucket"], killed)
            )
    return results


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """A finished run: its rows without times, and what it used."""

    rows: list[dict[str, Any]]
    per_s: float
    wait: float
    sent: int
    requests: int


def _train(
    cell: Cell,
    data_root: str,
    folder: Path,
    copies: bool,
    traffic: Callable[[], tuple[int, int]],
    *,
    kill: bool = False,
) -> _Run:
    """Trains in a process of its own; `kill`: kills it at its first checkpoint, then again."""
    record = folder / "record"
    start = functools.partial(_start, cell, data_root, record, _cache(folder, copies))
    sent, requests = traffic()
    if kill:
        process = start()
        while not any((record / "checkpoints").glob("[0-9]*")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    process = start()
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or ["no error message"])[-1])
    rows = parse(read_rows(record)).rows
    done = json.loads((record / "DONE.json").read_text())
    sent_after, requests_after = traffic()
    return _Run(
        rows=[{k: v for k, v in row.items() if k not in _VARYING} for row in rows],
        per_s=cell.examples / done["seconds"]["train"],
        wait=max(row.get("train/data_wait_share", 0.0) for row in rows),
        sent=sent_after - sent,
        requests=requests_after - requests,
    )


def _cache(folder: Path, copies: bool) -> dict[str, str]:
    return {"STUDY_DATA_CACHE": str(folder / "cache")} | ({} if copies else NO_COPIES)


def _start(
    cell: Cell, data_root: str, record: Path, cache: dict[str, str]
) -> subprocess.Popen[str]:
    code = "from study.bench.bucket_training import main; main()"
    arguments = [json.dumps(to_dict(cell)), data_root, str(record)]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | cache,
    )


def main() -> None:
    """Trains the cell that the arguments describe."""
    from study.training.loop import train

    text, data_root, record = sys.argv[1:]
    cell = from_dict(json.loads(text))
    train(cell, execution(data_root), folder=Path(record), group="bench")


def execution(data_root: str) -> Execution:
    """How each run is executed."""
    return Execution(data_root=data_root, wandb=False, keep_every_percent=_KEPT_PERCENT)


def _summarize(
    order: str,
    copies: bool,
    cell: Cell,
    disk: list[_Run],
    bucket: list[_Run],
    killed: _Run | None,
) -> Result:
    examples = len(bucket) * cell.examples
    return Result(
        order=order,
        copies=copies,
        examples=cell.examples,
        disk_per_s=statistics.median(run.per_s for run in disk),
        bucket_per_s=statistics.median(run.per_s for run in bucket),
        ratios=tuple(b.per_s / d.per_s for d, b in zip(disk, bucket, strict=True)),
        disk_wait=max(run.wait for run in disk),
        bucket_wait=max(run.wait for run in bucket),
        sent=sum(run.sent for run in bucket) / examples,
        requests=sum(run.requests for run in bucket) / examples,
        equal=all(run.rows == disk[0].rows for run in (*disk, *bucket)),
        resumed_equal=None if killed is None else killed.rows == disk[0].rows,
    )
