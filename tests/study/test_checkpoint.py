"""Which checkpoints stay."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from study.checkpoint import Checkpoints


@pytest.mark.parametrize(
    ("keep_last", "keep_at", "left"),
    [(2, (), [50, 60]), (1, (), [60]), (2, {20, 40}, [20, 40, 50, 60]), (3, {60}, [40, 50, 60])],
)
def test_the_last_few_stay_and_some_for_good(keep_last, keep_at, left, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=keep_last, keep_at=keep_at)
    for step in range(10, 70, 10):
        checkpoints.save(step, {"step": jnp.int32(step)})
    checkpoints.close()
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == left
    again = Checkpoints(tmp_path, keep_last=keep_last, keep_at=keep_at)
    assert int(again.restore({"step": jnp.int32(0)})["step"]) == 60
    again.close()
