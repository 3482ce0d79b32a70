"""A worker of fake cells: fake_worker.py ROOT SEED... Ends with the code of `study work`.

Heartbeats and looks follow each other fast. STALE is when a lease is stale, in seconds.
"""

from __future__ import annotations

import os
import sys

from study.config import Budget, Cell
from study.records.storage import resolve
from sweeps.cli.work import EXIT_CODES
from sweeps.runner import attempts, worker
from sweeps.runner.attempts import Attempts
from sweeps.runner.lease import Owner, parse_owner
from sweeps.runner.signals import Stop
from sweeps.runner.store import ATTEMPTS, LEASE, BucketStore, FolderStore, open_store
from sweeps.runner.worker_spec import WorkerSpec, worker_spec
from sweeps.study import Study

STEPS = 20


def study(seeds: list[int]) -> Study:
    cells = tuple(Cell(batch_size=16, seed=seed, budget=Budget(steps=STEPS)) for seed in seeds)
    return Study(name="fake", question="Does it survive?", cells=cells)


def spec(root, seeds: list[int], **fields) -> WorkerSpec:
    of = study(seeds)
    fields = {"entry": "fake_cell:train", **fields}
    return worker_spec(of, of.folder(root), "local", **fields)


def attempts_of(folder) -> list[str | None]:
    """The outcomes of the attempts at the cell whose record is `folder`."""
    content = open_store(folder.parent).read(folder.name, ATTEMPTS)
    return [attempt.outcome for attempt in Attempts.parse(content).all]


def lease_of(folder) -> Owner | None:
    return parse_owner(open_store(folder.parent).read(folder.name, LEASE))


def hurry() -> None:
    worker._PASS_S, attempts.BACKOFF_S = 0.05, 0.05
    for store in (FolderStore, BucketStore):
        store.renew_s, store.poll_s = 0.1, 0.1
        store.stale_s = float(os.environ.get("STALE", "30"))


if __name__ == "__main__":
    hurry()
    with Stop() as stop:
        result = worker.work(
            spec(resolve(sys.argv[1]), [*map(int, sys.argv[2:])]),
            stop=stop.flag,
            report=lambda line: print(line, flush=True),
        )
    print(f"end: {result.end}", flush=True)
    sys.exit(EXIT_CODES[result.end])
