"""Losses: equal to the paper's formulas in float64, on one device and on many."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config.loss import AllPairs, Groups, Negatives
from study.losses import ring, sigmoid_loss, softmax_loss
from tests.study.losses.reference import (
    KEY,
    all_close,
    close,
    embeddings,
    mesh_of,
    on,
    reference_sigmoid,
    reference_softmax,
    sigmoid_and_grads,
    softmax_and_grads,
)


@pytest.mark.parametrize("tile", [16, 512])
@pytest.mark.parametrize("batch", [48, 53])
def test_sigmoid_equals_float64(batch, tile):
    z = embeddings(batch)
    for t, b in ((10.0, -10.0), (120.0, -13.0), (1.0, 0.0)):
        loss, _, grads = sigmoid_and_grads(*z, t, b, pairs=AllPairs(), tile=tile)
        want, want_grads = reference_sigmoid(*z, t, b)
        close(loss, want)
        all_close(grads, want_grads)


@pytest.mark.parametrize("tile", [16, 512])
@pytest.mark.parametrize("batch", [48, 53])
def test_softmax_equals_float64(batch, tile):
    z = embeddings(batch)
    for t in (10.0, 120.0):
        loss, _, grads = softmax_and_grads(*z, t, tile=tile)
        want, want_grads = reference_softmax(*z, t)
        close(loss, want)
        all_close(grads, want_grads)


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
@pytest.mark.parametrize(
    "pairs",
    [Negatives(keep="hard", per_positive=3), Groups(size=4)],
    ids=lambda p: p.kind,
)
def test_any_number_of_devices_gives_the_loss_of_one(shape, pairs):
    mesh, z = mesh_of(*shape), embeddings(64)
    one, stats1, grads1 = sigmoid_and_grads(*z, 10.0, -5.0, pairs=pairs)
    many, stats, grads = sigmoid_and_grads(
        *on(mesh, *z), 10.0, -5.0, pairs=pairs, mesh=mesh, tile=3
    )
    close(many, one)
    all_close(grads, grads1)
    all_close(stats, stats1, floor=5.0)  # a logit is a difference of terms as large as b


@pytest.mark.parametrize(
    ("shape", "gathered"),
    [((8,), 1), ((8,), 2), ((8,), 4), ((8,), 8), ((2, 4), 2), ((2, 4), 4)],
)
def test_devices_that_gather_first_change_no_loss_and_no_gradient(shape, gathered, monkeypatch):
    monkeypatch.setattr(ring, "devices_to_gather", lambda *_: gathered)
    mesh, z = mesh_of(*shape), embeddings(64)
    options = {"mesh": mesh, "tile": 5}

    def check(loss_fn, scalars, want, want_grads):
        scalars = [jnp.float32(x) for x in scalars]
        arguments = range(2 + len(scalars))
        # Not the cached functions of `reference`: they would not trace again.
        value_and_grad = jax.jit(jax.value_and_grad(loss_fn, tuple(arguments), has_aux=True))
        (loss, stats), grads = value_and_grad(*on(mesh, *z), *scalars)
        close(loss, want)
        all_close(grads, want_grads)
        logits = scalars[0] * z[0] @ z[1].T + sum(scalars[1:])
        negative = logits[~np.eye(64, dtype=bool)]
        close(stats.neg_logit_mean, negative.mean(), 1e-4)
        close([stats.neg_logit_min, stats.neg_logit_max], [negative.min(), negative.max()])

    check(
        lambda *a: sigmoid_loss(*a, pairs=AllPairs(), key=KEY, **options),
        (10.0, -5.0),
        *reference_sigmoid(*z, 10.0, -5.0),
    )
    check(lambda *a: softmax_loss(*a, **options), (30.0,), *reference_softmax(*z, 30.0))


@pytest.mark.parametrize(
    ("rows", "devices", "slices", "gathered"),
    [
        (64, 512, 1, 512),  # 150 MiB: no ring
        (256, 512, 1, 2),  # 600 MiB: a ring of half as many hops
        (8192, 4, 1, 1),
        (16, 8, 1, 8),
        (1024, 64, 2, 2),  # across slices whenever the memory allows
        (96, 4096, 4, 8),
        (1 << 17, 8, 2, 1),
    ],
)
def test_rule_of_gathered_devices(rows, devices, slices, gathered):
    """Hops of 512 rows at least, at most 256 MiB, equal parts of every slice."""
    assert ring.devices_to_gather(rows, 768, 2, devices, slices) == gathered


def test_statistics_equal_those_of_the_full_matrix():
    zimg, ztxt = embeddings(53)
    _, stats, _ = sigmoid_and_grads(zimg, ztxt, 20.0, -3.0, pairs=AllPairs(), tile=16)
    logits = 20.0 * zimg @ ztxt.T - 3.0
    positive, negative = np.diag(logits), logits[~np.eye(53, dtype=bool)]
    want = [f(x) for x in (positive, negative, negative) for f in (np.mean, np.min, np.max)]
    np.testing.assert_allclose(np.asarray(stats[:9]), want, rtol=1e-4, atol=1e-4)
    assert np.isnan(stats.same_captions)


@pytest.mark.parametrize(("batch", "loss"), [(512, 10.023), (4096, 10.186), (8192, 10.372)])
def test_initial_loss_is_the_papers(batch, loss):
    """x.y = 0 everywhere, t = 10, b = -10: softplus(10) + (B-1) softplus(-10)."""
    zimg = jnp.zeros((batch, 8)).at[:, 0].set(1)
    ztxt = jnp.zeros((batch, 8)).at[:, 1].set(1)
    got, _ = sigmoid_loss(zimg, ztxt, jnp.float32(10), jnp.float32(-10), pairs=AllPairs(), key=KEY)
    assert abs(float(got) - loss) < 2e-3
