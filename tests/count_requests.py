"""Counts the requests that cells, their leases and their readers send to a bucket.

    python -m tests.count_requests > results/bench/requests.md

The requests are those of gcsfs, TensorStore and Orbax, as a server on loopback
(`study.bench.gcs_server`) logs them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.bench.gcs_server import Server, environment, server
from study.config import Adam, Budget, CachedImage, Cell, Execution, MeanPoolText, Model, to_dict
from study.records.record import Progress, Record
from study.records.storage import resolve
from sweeps.runner import logs
from sweeps.runner.cell_status import StudyState
from sweeps.runner.claims import Claimer
from sweeps.runner.lease import Owner, acquire
from sweeps.runner.signals import StopFlag
from sweeps.runner.store import CANCELLED, LEASE, BucketStore, open_store
from sweeps.runner.worker import train_once
from sweeps.runner.worker_spec import CellTask, WorkerSpec

KINDS = ("read", "stat", "list", "write", "delete", "bucket")
Costs = dict[str, Counter[str]]
CELLS = 20  # of the study that is looked at


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
    """What one look or heartbeat costs."""
    bucket = Bucket(running)
    cells = [Cell(batch_size=16, seed=s, budget=Budget(examples=160)) for s in range(CELLS)]
    costs = {}
    for name in ("wait", "run", "are done"):
        folder = bucket.root / name.replace(" ", "-")
        _write(folder, cells, name)
        for reader in ("`status`", "a worker"):
            state = StudyState(cells, folder, for_claims=reader == "a worker")
            for again in ("", ", again"):
                costs[f"{reader} looks at {CELLS} cells that {name}{again}"] = bucket(state.refresh)
    store = open_store(bucket.root / "s")
    claimer = Claimer(StudyState(cells, bucket.root / "s", for_claims=True), {}, worker="w")
    claims: list[Any] = []
    costs["a worker looks and claims a cell"] = bucket(lambda: claims.append(claimer.next().claim))
    (claim,) = claims
    cell_id = claim.status.cell.id
    content = store.read(cell_id, LEASE)
    assert content is not None
    versions = [claim.lease.version]

    def renew() -> None:
        version = store.touch(cell_id, LEASE, content, versions[-1])
        assert version is not None
        versions.append(version)

    costs["a lease is renewed"] = bucket(renew)
    costs["a worker looks for a mark"] = bucket(lambda: store.read(cell_id, CANCELLED))
    costs["a lease is released"] = bucket(
        lambda: (renew(), store.swap(cell_id, LEASE, b"", versions[-1]))
    )
    return costs


def _write(folder: Path, cells: list[Cell], name: str) -> None:
    store = open_store(folder)
    for cell in cells if name != "wait" else ():
        record = Record(folder / cell.id)
        record.begin({"hash": cell.hash, "cell": to_dict(cell)}, seen=Progress(0, 0, 0))
        if name == "are done":
            record.finish(Progress(10, 160, 2560), status="done")
        else:
            acquire(store, cell.id, Owner.here(), None)
        record.close()


def training(running: Server, data: Path) -> Costs:
    """What a whole cell costs, from its claim to its release, by how much it writes."""
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
        folder = bucket.root / "s"

        def run(how: Execution = how, folder: Path = folder) -> None:
            spec = WorkerSpec(
                tasks=(CellTask(cell=cell, execution=how),), folder=str(folder), group="s"
            )
            assert train_once(spec, stop=StopFlag()) == ("done", None)

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
    mark, renewed = looked["a worker looks for a mark"], looked["a lease is renewed"]
    released = looked["a lease is released"]
    few, saves, rows = (cost.total() for cost in trained.values())
    every, renew = BucketStore.poll_s, BucketStore.renew_s
    per_minute = renewed.total() * 60 / renew + mark.total() * 60 / every
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
- A worker that trains sends {per_minute:.0f} requests a minute beside those of its cell: it renews
  its lease every {renew:.0f} s and looks every {every:.0f} s for the mark that cancels the cell.
  One of `study run` looks for the stop mark of the run too: {per_minute + 60 / every:.0f}.
- A worker that waits looks at the study every {every:.0f} s: one list for 1,000 objects, of which a
  cell has about four, and a read for the attempts of each cell that changed.
- A claim reads nothing of finished cells and no rows of cells that others train; releasing one
  costs {released.total()} requests.
- A log is written at most every {logs.COPY_S:.0f} s: {60 / logs.COPY_S:.0f} requests a minute, none
  while nothing is printed."""
    )


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
