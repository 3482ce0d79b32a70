"""Optimizer conventions of the paper's code base, each with a step computed by hand."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from study.cell import Adam, Cell, Lion
from study.durations import Budget
from study.optimizer import clip_by_global_norm, global_norm, optimizer, schedule

PARAMS = {"dense": {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([3.0])}, "t": jnp.ones(1)}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


def cell(**optimizer):
    kind = optimizer.pop("kind", Adam)
    return Cell(batch_size=10, budget=Budget(steps=100), optimizer=kind(**optimizer))


def first_update(c):
    tx = optimizer(c)
    return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]


def test_weight_decay_is_on_kernels_only_and_not_times_the_learning_rate():
    plain = cell(learning_rate=0.1, weight_decay=0, schedule="constant", clip_norm=None)
    decayed = dataclasses.replace(
        plain, optimizer=dataclasses.replace(plain.optimizer, weight_decay=0.01)
    )
    a, b = first_update(plain), first_update(decayed)
    np.testing.assert_allclose(
        b["dense"]["kernel"] - a["dense"]["kernel"], -0.01 * PARAMS["dense"]["kernel"], rtol=1e-5
    )
    np.testing.assert_array_equal(a["dense"]["bias"], b["dense"]["bias"])
    np.testing.assert_array_equal(a["t"], b["t"])


def test_the_first_adam_step_is_the_learning_rate():
    update = first_update(cell(learning_rate=0.1, weight_decay=0, schedule="constant"))
    np.testing.assert_allclose(update["t"], [-0.1], rtol=1e-4)


def test_the_first_lion_step_is_the_sign():
    update = first_update(cell(kind=Lion, learning_rate=0.1, weight_decay=0, schedule="constant"))
    np.testing.assert_allclose(update["t"], [-0.1], rtol=1e-6)


def test_the_schedule_scales_the_decay_too():
    c = cell(learning_rate=0.1, weight_decay=0.01, warmup_steps=10)
    assert float(jnp.abs(first_update(c)["dense"]["kernel"]).max()) == 0


def test_cosine_runs_over_the_steps_after_warm_up():
    factor = schedule(cell(warmup_steps=20))
    assert float(factor(0)) == 0
    assert abs(float(factor(10)) - 0.5) < 1e-6
    assert abs(float(factor(20)) - 1) < 1e-6
    assert abs(float(factor(60)) - 0.5 * (1 + math.cos(math.pi / 2))) < 1e-6
    assert float(factor(100)) < 1e-6


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_equals_optaxs(limit):
    tx = optax.clip_by_global_norm(limit)
    want, _ = tx.update(GRADS, tx.init(PARAMS))
    ours = clip_by_global_norm(limit)
    got, _ = ours.update(GRADS, ours.init(PARAMS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
    np.testing.assert_allclose(global_norm(GRADS), optax.tree.norm(GRADS), rtol=1e-6)
