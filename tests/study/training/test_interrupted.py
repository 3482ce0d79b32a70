"""Runs that are interrupted, fail, or cannot read or write checkpoints."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import orbax.checkpoint as ocp
import pytest

from study.records import metrics_log, record
from study.records.interruptions import read_interruptions
from study.records.metrics_log import read_progress
from study.records.record import METRICS, RecordError
from study.training import checkpoint
from study.training import loop as train_module
from study.training.checkpoint import Checkpoints
from study.training.compile import TrainProgram
from study.training.loop import Stopped, train
from tests.study.training.test_train import CELL, execution, stop_after, without_clock


def write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def events(folder: Path) -> list[tuple[str, int, int]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [(e["event"], e["attempt"], e["step"]) for e in lines if "event" in e]


def damage(saved: Path) -> None:
    for path in saved.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])


def test_an_unreadable_checkpoint_is_set_aside(
    tmp_path, small_glyphs, one_device, caplog, monkeypatch
):
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", (0.0,))
    every_piece = execution(small_glyphs, checkpoint_every_minutes=1e-9)

    def go(name, **more):
        return train(CELL, every_piece, folder=tmp_path / name, group="s", **more)

    whole = go("a")
    with pytest.raises(Stopped):
        go("b", should_stop=stop_after(6))
    folder = tmp_path / "b" / "checkpoints"
    older, newer = sorted(folder.iterdir(), key=lambda path: int(path.name))
    damage(newer)
    kept = {path.name: path.read_bytes() for path in newer.rglob("*") if path.is_file()}
    parts = go("b")
    assert f"going on from {older.name}" in caplog.text
    assert without_clock(parts) == without_clock(whole)
    aside = folder / f"unreadable-{newer.name}"
    assert {path.name: path.read_bytes() for path in aside.rglob("*") if path.is_file()} == kept


def test_when_no_checkpoint_can_be_read_one_line_says_so(
    tmp_path, small_glyphs, one_device, monkeypatch
):
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", (0.0,))
    every_piece = execution(small_glyphs, checkpoint_every_minutes=1e-9)

    def go(**more):
        return train(CELL, every_piece, folder=tmp_path, group="s", **more)

    with pytest.raises(Stopped):
        go(should_stop=stop_after(6))
    before = sorted((tmp_path / "checkpoints").iterdir())
    for saved in before:
        damage(saved)
    with pytest.raises(
        RecordError, match=r"checkpoint \d+ cannot be read .* move this folder away"
    ) as why:
        go()
    assert len(str(why.value).splitlines()) == 1
    assert sorted((tmp_path / "checkpoints").iterdir()) == before  # to be looked at
    monkeypatch.setattr(checkpoint, "code_version", lambda: "9.9+new")
    with pytest.raises(RecordError, match=r"began the cell and this is 9\.9\+new, .* earlier code"):
        go()


def test_a_resumed_run_makes_no_second_state_and_reads_no_start(
    tmp_path, small_glyphs, one_device, monkeypatch
):
    """Or resuming would take more memory than the training that a plan allowed for."""
    with pytest.raises(Stopped):
        train(
            CELL,
            execution(small_glyphs),
            folder=tmp_path,
            group="s",
            should_stop=stop_after(1),
        )
    monkeypatch.setattr(TrainProgram, "init_state", lambda *_: pytest.fail("made an initial state"))
    monkeypatch.setattr(
        "study.training.loop.init_from_checkpoint", lambda *_: pytest.fail("read a checkpoint")
    )
    done = train(CELL, execution(small_glyphs), folder=tmp_path, group="s")
    assert done["attempt"] == 2


def test_checkpoints_are_saved_by_the_clock(tmp_path, small_glyphs, one_device, monkeypatch):
    """By a clock that advances four minutes at each look."""
    looks = itertools.count(0, 4 * 60)
    clock = SimpleNamespace(monotonic=lambda: next(looks), perf_counter=time.perf_counter)
    monkeypatch.setattr(train_module, "time", clock)
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, *rest: saved.append(step) or save(self, step, *rest)
    )
    cell = dataclasses.replace(CELL, evals=())
    one_step = execution(small_glyphs, chunk_examples=16)
    train(cell, one_step, folder=tmp_path, group="s")
    assert saved == [*range(4, 40, 4), 40]


def test_closing_a_failed_run_hides_nothing_and_leaves_nothing_open(
    tmp_path, small_glyphs, one_device, monkeypatch
):
    """What ended the run is raised, though saving fails as well; every part is closed."""
    closed = []
    for part in ("Checkpoints", "Meter", "Record"):
        cls = getattr(train_module, part)
        close = cls.close
        monkeypatch.setattr(
            cls, "close", lambda self, part=part, close=close: closed.append(part) or close(self)
        )

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def go(should_stop):
        every_piece = execution(small_glyphs, checkpoint_every_minutes=1e-9)
        train(CELL, every_piece, folder=tmp_path, group="s", should_stop=should_stop)

    monkeypatch.setattr(ocp.CheckpointManager, "save", no_room)
    with pytest.raises(RecordError, match=r"cannot save a checkpoint .*No space left") as full:
        go(lambda: False)
    assert "\n" not in str(full.value)
    assert sorted(set(closed)) == ["Checkpoints", "Meter", "Record"]
    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", no_room)
    closed.clear()
    with pytest.raises(ZeroDivisionError) as first:
        go(lambda: 1 / 0)
    assert "cannot save a checkpoint" in first.value.__notes__[0]
    assert sorted(set(closed)) == ["Checkpoints", "Meter", "Record"]
    closed.clear()
    monkeypatch.setattr("study.training.loop.Record.begin", no_room)
    with pytest.raises(OSError, match="No space left"):
        go(lambda: False)
    assert {"Checkpoints", "Meter"} <= set(closed)


@pytest.mark.parametrize("late_rows", [False, True])
def test_a_should_stop_that_raises_ends_the_attempt_without_another_write(
    late_rows, tmp_path, small_glyphs, one_device, monkeypatch
):
    """It raises when the lease is lost, and then the record may belong to another worker."""
    if late_rows:  # as in a bucket
        monkeypatch.setattr(metrics_log, "PAUSE", 1e6)
        monkeypatch.setattr(record, "open_log", metrics_log.BucketLog)
        monkeypatch.setattr(metrics_log, "write", write_local)
    how = execution(small_glyphs, keep_every_percent=25)  # a checkpoint at step 10, rows at 4k
    calls = itertools.count()
    before = {}
    save = Checkpoints.save
    # A checkpoint that was begun while the lease was held is completed, so begin none.
    monkeypatch.setattr(Checkpoints, "save", lambda self, *rest: (save(self, *rest), self.wait()))

    def files():
        return {
            path.relative_to(tmp_path): path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    def lose_the_lease():
        if next(calls) == 7:  # after step 15
            before.update(files())
            raise KeyError("lease lost")
        return False

    with pytest.raises(KeyError, match="lease lost"):
        train(CELL, how, folder=tmp_path, group="s", should_stop=lose_the_lease)
    assert len(before) > 4
    assert files() == before
    whole = train(CELL, how, folder=tmp_path, group="s")
    assert whole["attempt"] == 2


def test_each_attempt_says_once_when_its_first_chunk_has_finished(
    tmp_path, small_glyphs, one_device
):
    cell = dataclasses.replace(CELL, evals=())
    one_step = execution(small_glyphs, chunk_examples=16)
    with pytest.raises(Stopped):
        train(cell, one_step, folder=tmp_path, group="s", should_stop=stop_after(9))
    done = train(cell, one_step, folder=tmp_path, group="s")
    assert events(tmp_path) == [
        *(("start", 1, 0), ("training", 1, 1)),
        *(("start", 2, 10), ("training", 2, 11)),
    ]
    assert read_progress(tmp_path).step == done["step"] == cell.steps
    (interruption,) = read_interruptions(tmp_path)
    assert (interruption.attempt, interruption.steps) == (2, 0)
    assert interruption.seconds > 0
