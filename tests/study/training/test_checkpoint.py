"""Which checkpoints stay, and what a failed read or write leaves behind."""

from __future__ import annotations

import logging
import threading
import time

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from study.records.record import RecordError
from study.training import checkpoint
from study.training.checkpoint import Checkpoints

LIKE = {"step": jnp.int32(0)}


@pytest.mark.parametrize(
    ("keep_last", "keep_at", "left"),
    [(2, (), [50, 60]), (1, (), [60]), (2, {20, 40}, [20, 40, 50, 60]), (3, {60}, [40, 50, 60])],
)
def test_the_last_few_stay_and_some_for_good(keep_last, keep_at, left, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=keep_last, keep_at=keep_at)
    save(checkpoints, *range(10, 70, 10))
    assert steps_in(tmp_path) == left
    again = Checkpoints(tmp_path, keep_last=keep_last, keep_at=keep_at)
    assert int(again.restore(LIKE).state["step"]) == 60
    again.close()


def test_what_the_host_saves_beside_the_state_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, LIKE, {"data/replaced_examples": 3})
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.restore(LIKE).metadata == {"data/replaced_examples": 3}
    again.close()


@pytest.mark.parametrize("failures", [1, 100], ids=["once", "always"])
def test_a_failed_read_deletes_nothing(failures, tmp_path, monkeypatch, caplog):
    """One time-out is tried again; with more, the newest is set aside, whole, for an older one."""
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", (0.0, 0.0))
    save(Checkpoints(tmp_path), 1, 2)
    files = {path.name for path in (tmp_path / "2").rglob("*")}
    left = iter([True] * failures)
    restore = ocp.CheckpointManager.restore

    def flaky(self, step, **more):
        if step == 2 and next(left, False):
            raise TimeoutError("the bucket does not answer")
        return restore(self, step, **more)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", flaky)
    checkpoints = Checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING):
        restored = checkpoints.restore(LIKE)
    assert "TimeoutError: the bucket does not answer" in caplog.text
    assert int(restored.state["step"]) == (2 if failures == 1 else 1)
    kept = tmp_path / ("2" if failures == 1 else "unreadable-2")
    assert {path.name for path in kept.rglob("*")} == files
    # Training saves the step that was set aside again.
    save(checkpoints, 2 if failures > 1 else 3)
    assert steps_in(tmp_path)[-1] == (2 if failures > 1 else 3)


def test_another_tree_is_refused_in_one_line_and_kept(tmp_path, monkeypatch):
    """Such as one from a version of the code whose state has other parts."""
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", ())
    save(Checkpoints(tmp_path), 1, 2)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(
        RecordError, match=r"checkpoint 2 cannot be read .* move this folder"
    ) as why:
        checkpoints.restore({"step": jnp.int32(0), "interval": jnp.float32(0)})
    assert "\n" not in str(why.value)
    assert steps_in(tmp_path) == [1, 2]
    checkpoints.close()


@pytest.mark.parametrize("when", ["save", "wait_until_finished"])
def test_a_write_that_fails_is_one_line_and_leaves_no_thread(when, tmp_path, monkeypatch):
    """Orbax raises what the disk or TensorStore says, at once or when it is waited for."""
    before = set(threading.enumerate())
    checkpoints = Checkpoints(tmp_path)
    save_now = getattr(ocp.CheckpointManager, when)
    fails = iter([True])

    def full(self, *rest, **more):
        if next(fails, False):
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device")
        return save_now(self, *rest, **more)

    monkeypatch.setattr(ocp.CheckpointManager, when, full)
    with pytest.raises(RecordError, match=r"cannot save a checkpoint \(ValueError: RESOURCE"):
        save(checkpoints, 1)
    checkpoints.close()
    ends = time.monotonic() + 10
    while not set(threading.enumerate()) <= before and time.monotonic() < ends:
        time.sleep(0.05)
    assert set(threading.enumerate()) <= before


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"step": jnp.int32(step)})
    checkpoints.close()


def steps_in(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
