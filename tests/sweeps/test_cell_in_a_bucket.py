"""A cell whose record is in a bucket: stopped, resumed, and read, as one in a folder."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.frame import cells, items, rows
from study import checkpoint
from study.cell import Adam, CachedImage, Cell, Execution, Model, TextAverage, ZeroShot
from study.durations import Budget
from study.places import is_bucket, place
from study.throughput import CLOCKED
from sweeps import ledger
from sweeps.grid import Study
from sweeps.lease import LEASE, Lease
from sweeps.worker import run_here
from tests.bucket import Strict

CELL = Cell(
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16), text=TextAverage(width=16), embed_dim=16
    ),
    optimizer=Adam(learning_rate=3e-3, warmup_percent=5),
    budget=Budget(examples=320),
    batch_size=16,
    evals=(ZeroShot(split="val_font"),),
)
STUDY = Study(name="s", question="?", cells=(CELL,))
MEASURED = ["time", "content", "memory.peak_bytes", *CLOCKED]


@pytest.fixture
def checkpoints_in_a_folder(monkeypatch, tmp_path):
    """Orbax itself writes to gs:// and s3://, which nothing here can stand in for."""
    real = checkpoint._for_orbax
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(
        checkpoint, "_for_orbax", lambda path: real(folder if is_bucket(path) else path)
    )


def without_measured(frame):
    return frame.drop(columns=[c for c in frame if c in MEASURED or c.startswith("seconds")])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # wandb's threads and stubs warn
def test_a_cell_in_a_bucket_ends_as_one_in_a_folder(
    tmp_path, small_glyphs, monkeypatch, checkpoints_in_a_folder
):
    Strict.clear()
    monkeypatch.setenv("WANDB_MODE", "offline")
    roots = (place("bucket://lab/runs"), tmp_path / "runs")
    more = {"chunk_examples": 64, "log_every_percent": 10, "keep_every_percent": 20}
    for root in roots:
        folder = root / "s" / CELL.id
        execution = Execution(data_root=str(small_glyphs.parent), wandb=is_bucket(root), **more)
        calls = iter(range(10**9))

        def stop(calls=calls):
            return next(calls) >= 5

        assert ledger.read(STUDY, root)[0].state == "waiting"
        for asked, end in ((stop, "stopped"), (lambda: False, "done")):
            with Lease.acquire(folder / LEASE):
                assert ledger.read(STUDY, root)[0].state == "running"
                assert run_here(
                    CELL, execution, folder=folder, study="s", should_stop=asked
                ).end == ("held")
            outcome = run_here(CELL, execution, folder=folder, study="s", should_stop=asked)
            assert outcome.end == end, outcome.error
            assert ledger.read(STUDY, root)[0].state == ("done" if end == "done" else "interrupted")
    for read in (cells, rows):
        pd.testing.assert_frame_equal(*(without_measured(read(root, "s")) for root in roots))
    (one, other) = (items(root, "s", CELL.id) for root in roots)
    assert one.keys() == other.keys() == {"eval/zero_shot/val_font/top1"}
    assert all((one[key] == other[key]).all() for key in one)
    names = [name.partition(CELL.id)[2] for name in Strict.objects]
    assert sum(name.endswith(".wandb") for name in names) == 2  # one for each attempt
    assert not any("lease" in name for name in names)


def test_where_checkpoints_cannot_be_kept_nothing_is_trained(small_glyphs):
    Strict.clear()
    folder = place("bucket://lab/runs") / "s" / CELL.id
    execution = Execution(data_root=str(small_glyphs.parent), wandb=False)
    outcome = run_here(CELL, execution, folder=folder, study="s", should_stop=lambda: False)
    assert outcome.end == "bad input"
    assert outcome.error == "checkpoints go to a folder, gs:// or s3://, not to bucket://"
