"""A cell whose record is in a bucket of a real server: killed, cancelled, resumed and read."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from analysis.records.frame import items, rows
from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Execution,
    MeanPoolText,
    Model,
    ZeroShot,
)
from study.records.record import DONE, RecordError
from study.records.storage import resolve
from study.training.throughput import TIMING_METRICS
from sweeps.runner import cell_status
from sweeps.runner.signals import StopFlag
from sweeps.runner.worker import train_once
from sweeps.runner.worker_spec import CellTask, WorkerSpec
from sweeps.study import Study

CELL = Cell(
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16),
        text=MeanPoolText(width=16),
        embed_dim=16,
    ),
    optimizer=Adam(learning_rate=3e-3, warmup_percent=5),
    budget=Budget(examples=320),
    batch_size=16,
    evals=(ZeroShot(split="val_font"),),
)
STUDY = Study(name="s", question="?", cells=(CELL,))
GRID = """
from sweeps.study import Study
from tests.sweeps.runner.test_cell_in_a_bucket import STUDY
def study():
    return STUDY
"""
# A worker that waits in the middle of the cell to be killed or stopped.
WORKER = """
import itertools, pickle, sys, time
from study.training import loop as real
from sweeps.runner.store import BucketStore
from sweeps.runner.worker import work
BucketStore.renew_s = BucketStore.poll_s = 0.5
def train(*args, should_stop, **more):
    calls = itertools.count()
    def wait():
        while next(calls) >= 6 and not should_stop():
            time.sleep(0.1)
        return should_stop()
    return real.train(*args, should_stop=wait, **more)
print(work(pickle.loads(bytes.fromhex(sys.argv[1]))).outcomes)
"""
MEASURED = ["time", "content", "attempt", "memory.peak_bytes", *TIMING_METRICS]


def measured_apart(frame):
    """Without what differs from run to run, and from attempt to attempt."""
    return frame.drop(columns=[c for c in frame if c in MEASURED or c.startswith("seconds")])


def committed(folder) -> list[str]:
    """The checkpoints of a cell that are whole."""
    names = folder.fs.find((folder / "checkpoints").path)
    return [name for name in names if name.count("/") == folder.path.count("/") + 3
            and name.endswith("commit_success.txt")]  # fmt: skip


def spec_of(execution, folder, **fields) -> WorkerSpec:
    task = CellTask(cell=CELL, execution=execution)
    return WorkerSpec(tasks=(task,), folder=str(folder), group="s", **fields)


@pytest.mark.slow
def test_a_cell_in_a_bucket_is_killed_cancelled_resumed_and_read_as_one_in_a_folder(
    gcs, small_glyphs, tmp_path, start, wait_for, study, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    # An earlier test may have set it: a worker that is killed has a service of its own.
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    Path("own.py").write_text(GRID)
    bucket = resolve(f"gs://{gcs.bucket()}/runs")
    root, folder = str(bucket), bucket / "s" / CELL.id
    execution = Execution(
        data_root=str(small_glyphs.parent),
        chunk_examples=16,
        log_every_percent=10,
        keep_every_percent=20,
    )
    spec = spec_of(execution, bucket / "s", entry="__main__:train")
    worker = pickle.dumps(spec).hex()

    def state() -> str:
        code, out, err = study("status", "own.py", "--root", root, "--json")
        now = json.loads(out)["cells"][0]["state"]
        assert (code, err) == (0 if now in ("done", "cancelled") else 3, "")
        return now

    assert state() == "pending"
    killed = start("-c", WORKER, worker)
    wait_for(lambda: committed(folder))
    assert state() == "running"
    with pytest.raises(RecordError, match="is being trained by process"):
        train_once(spec_of(execution, bucket / "s"), stop=StopFlag())
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert state() == "interrupted"
    kept = committed(folder)

    stopped = start("-c", WORKER, worker)
    wait_for(lambda: committed(folder)[-1] != kept[-1])
    code, out, _ = study("cancel", "own.py", CELL.id, "--root", root)
    assert (code, "it saves its state and stops" in out) == (0, True)
    assert f"'{CELL.id}': 'cancelled'" in stopped.communicate(timeout=90)[0]
    assert state() == "cancelled"
    assert study("retry", "own.py", CELL.id, "--root", root)[0] == 0
    assert state() == "interrupted"

    assert train_once(spec_of(execution, bucket / "s"), stop=StopFlag()) == ("done", None)
    last = json.loads((folder / DONE).read_text())
    assert last["attempt"] == 3
    assert state() == "done"
    names = bucket.fs.find(bucket.path)
    assert not any("CANCELLED" in name for name in names)
    assert bucket.fs.cat(f"{folder.path}/lease.json") == b""
    (status,) = cell_status.read(STUDY, bucket)
    assert [a.outcome for a in status.attempts.all] == ["lost", "cancelled", "done"]
    assert sum(name.endswith(".wandb") for name in names) == 2  # of the attempts that ended

    undisturbed = tmp_path / "undisturbed"
    how = dataclasses.replace(execution, wandb=False)
    assert train_once(spec_of(how, undisturbed / "s"), stop=StopFlag()) == ("done", None)
    whole = json.loads((undisturbed / "s" / CELL.id / DONE).read_text())
    assert whole["step"] == last["step"]
    one, another = (measured_apart(rows(at, "s")) for at in (root, undisturbed))
    pd.testing.assert_frame_equal(one, another)
    (one, another) = (items(at, "s", CELL.id) for at in (root, undisturbed))
    assert one.keys() == another.keys() == {"eval/zero_shot/val_font/top1"}
    assert all((one[key] == another[key]).all() for key in one)

    copy = tmp_path / "copy"
    bucket.fs.get(bucket.path, str(copy), recursive=True)
    assert {status.state for status in cell_status.read(STUDY, copy)} == {"done"}
    for verb in (
        ("status", "own.py"),
        ("logs", "own.py", CELL.id),
        ("claims", "own.py"),
        ("figures", "own.py", "--out", "figures"),
        ("pull", "s", "--out", "snapshot"),
    ):
        outputs = []
        for at in (root, str(copy)):
            option = "--from" if verb[0] == "pull" else "--root"
            code, out, err = study(*verb, option, at)
            assert (code, err) == (0, "")
            outputs.append(out.replace(at, "ROOT"))
            for made in ("figures", "snapshot"):
                shutil.rmtree(made, ignore_errors=True)
        assert outputs[0] == outputs[1] != ""


def test_a_wrong_name_is_one_line(gcs, study):
    Path("own.py").write_text(GRID)
    for verb in (
        ("run", "own.py", "--root"),
        ("train", "own.py", CELL.id, "--root"),
        ("status", "own.py", "--root"),
        ("logs", "own.py", CELL.id, "--root"),
        ("cancel", "own.py", "--root"),
        ("retry", "own.py", "--failed", "--root"),
        ("figures", "--root"),
        ("claims", "own.py", "--root"),
        ("pull", "--from"),
    ):
        code, out, err = study(*verb, "gs://no-such-bucket/runs")
        assert (code, out, err.count("\n")) == (2, "", 1), verb
        assert "gs://no-such-bucket/runs" in err
