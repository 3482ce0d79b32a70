"""Counts the requests that cells, their leases and their readers send to a bucket.

    python -m tests.count_requests > results/bench/requests.md

The requests are those of gcsfs, TensorStore and Orbax, as a server on loopback (`tests.gcs`) logs
them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.config import Adam, Budget, CachedImage, Cell, Execution, MeanPoolText, Model, to_dict
from study.records.record import Progress, Record
from study.records.storage import resolve, write
from sweeps.runner import cell_status as ledger
from sweeps.runner import lease_bucket as bucket_lease
from sweeps.runner import logs
from sweeps.runner import stop_watch as watch
from sweeps.runner.cancellation import is_cancelled
from sweeps.runner.lease_file import LEASE, Lease, holder_of
from sweeps.runner.logs import logged
from sweeps.runner.worker import run_here
from tests.gcs import Server, environment, server

KINDS = ("read", "stat", "list", "write", "delete", "bucket")
Costs = dict[str, Counter[str]]


class Bucket:
    """A new bucket; called with a function, it gives the requests that the function sends."""

    def __init__(self, running: Server):
        self._server, self._name = running, running.bucket()
        self.root = resolve(f"gs://{self._name}/runs")

    def __call__(self, call: Callable[[], Any]) -> Counter[str]:
        before = self._settled()
        call()
        return self._settled() - before

    def _settled(self) -> Counter[str]:
        """The counts once no answer is outstanding.

        gcsfs asks for an object and for a folder of its name at once, and returns when one of the
        two answers; the server logs the other later.
        """
        counts = self._server.counts(self._name)
        while True:
            time.sleep(0.2)
            if (now := self._server.counts(self._name)) == counts:
                return counts
            counts = now


def looks(running: Server) -> Costs:
    """What one look costs, by who looks at what."""
    bucket = Bucket(running)
    cells = [Cell(batch_size=16, seed=seed, budget=Budget(examples=160)) for seed in range(3)]
    waiting, begun, done = (bucket.root / "s" / cell.id for cell in cells)
    for cell, folder in zip(cells[1:], (begun, done), strict=True):
        record = Record(folder)
        record.begin({"hash": cell.hash, "cell": to_dict(cell)}, seen=Progress(0, 0, 0))
        if folder == done:
            record.finish(Progress(10, 160, 2560), status="done")
        record.close()
    held: list[Any] = []
    costs = {"a lease is taken": bucket(lambda: held.append(Lease.acquire(begun / LEASE)))}
    (lease,) = held

    def renew() -> None:  # as the lease's own thread does
        assert lease._is_mine()
        write(lease._own, json.dumps(dataclasses.asdict(lease.holder)).encode())

    costs |= {
        "a lease is renewed": bucket(renew),
        "a process looks whether its cell is cancelled": bucket(lambda: is_cancelled(begun)),
        "a process looks whether a lease is live": bucket(lambda: holder_of(begun / LEASE)),
        "`status` of a cell that waits": bucket(lambda: ledger.entry(cells[0], waiting)),
        "`status` of a cell that runs": bucket(lambda: ledger.entry(cells[1], begun)),
        "`status` of a cell that is done": bucket(lambda: ledger.entry(cells[2], done)),
        "a lease is released": bucket(lease.release),
    }
    return costs


def training(running: Server, data: Path) -> Costs:
    """What a whole cell costs, from its lease to DONE.json, by how much it writes."""
    cell = Cell(
        model=Model(
            image=CachedImage(embeddings="hog-lda-16", dim=16),
            text=MeanPoolText(width=16),
            embed_dim=16,
        ),
        optimizer=Adam(learning_rate=3e-3, warmup_percent=5),
        budget=Budget(examples=1600),
        batch_size=16,
    )
    costs = {}
    for rows, saves in ((10, 1), (10, 10), (50, 1)):
        how = Execution(
            data_root=str(data),
            wandb=False,
            log_every_percent=100 / rows,
            # Saves after each piece of the run, which ends at a row; by default at its end alone.
            **({"checkpoint_every_minutes": 1e-9} if saves > 1 else {}),
        )
        bucket = Bucket(running)
        folder = bucket.root / "s" / cell.id

        def run(how: Execution = how, folder: Path = folder) -> None:
            with logged(folder):
                ended = run_here(cell, how, folder=folder, group="s", should_stop=lambda: False)
            assert ended.end == "done", ended.error

        costs[f"a cell of {rows} rows and {saves} checkpoint{'s' * (saves > 1)}"] = bucket(run)
    return costs


def table(costs: Mapping[str, Counter[str]], first: str) -> str:
    """The counts as a table of Markdown."""
    lines = [f"| {first} | {' | '.join(KINDS)} | all |", "|---" * (len(KINDS) + 2) + "|"]
    for name, cost in costs.items():
        other = set(cost) - set(KINDS)
        assert not other, other
        numbers = [*(cost[kind] for kind in KINDS), cost.total()]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def main() -> None:
    from study.data.glyphs import hog_lda
    from study.data.glyphs.write import write_glyphs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_glyphs(folder / "glyphs", workers=1, views=1, limit_characters=120)
        hog_lda.embed(dataset, dim=16, workers=1)
        with server(folder) as running, environment(running.environment):
            looked, trained = looks(running), training(running, folder)
    cancelled = looked["a process looks whether its cell is cancelled"].total()
    live = looked["a process looks whether a lease is live"].total()
    renewed = looked["a lease is renewed"].total()
    every, renew = watch.EVERY_IN_A_BUCKET, bucket_lease.RENEW
    few, saves, rows = (cost.total() for cost in trained.values())
    waits, runs, done = (
        looked[f"`status` of a cell that {what}"].total() for what in ("waits", "runs", "is done")
    )
    print(
        f"""# Requests to a bucket

    {__doc__.split(chr(10))[2].strip()}

sends what cells and commands send, by gcsfs, TensorStore and Orbax, to a Google Cloud Storage
server on loopback that logs each request. Google bills "list" and "write" as class A, "read",
"stat" and "bucket" as class B, and no "delete". gcsfs asks for an object and for a prefix of its
name at once and drops the slower question, so counts with a "stat" differ by a few from run to run.

{table(looked, "each time")}

{table(trained, "in all")}

- One more checkpoint costs {(saves - few) / 9:.0f} requests, which Orbax sends; the removal of an
  older one is among them.
- Rows cost at most one request a second, as they are written together: 40 rows more changed the
  count by {rows - few:+d}.
- A process that trains looks every {every:.0f} s for its cell's mark and its driver's lease:
  {(cancelled + live) * 60 / every:.0f} requests a minute; on a host of a slice, which looks for the
  cell's lease too, {(cancelled + 2 * live) * 60 / every:.0f}.
- A lease is renewed every {renew:.0f} s: {renewed * 60 / renew:.0f} requests a minute.
- A log is written at most every {logs.COPY_S:.0f} s: {60 / logs.COPY_S:.0f} requests a minute, none
  while nothing is printed.
- `study status` of n cells: {waits} n before they begin, {runs} n while they run, {done} n when
  they are done."""
    )


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
