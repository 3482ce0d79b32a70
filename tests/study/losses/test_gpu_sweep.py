"""What programs for a GPU compute, run on CPU, equals the formulas and the order of other chips."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config.loss import AllPairs, Groups, Negatives
from study.losses import (
    naive,
    pallas_gpu,
    sigmoid_loss,
    softmax_loss,
    softmax_sweeps,
    tiled,
    tiles,
)
from tests.study.losses.reference import KEY, all_close, close, embeddings, mesh_of, on


@pytest.fixture
def on_gpu(monkeypatch):
    """Every choice by platform takes the GPU's way, with small tiles."""

    def gpu_way(*args, default, gpu=None, tpu=None):
        del tpu
        return (gpu or default)(*args)

    for module in (tiled, softmax_sweeps):
        monkeypatch.setattr(module, "by_platform", gpu_way)
    monkeypatch.setattr(tiles, "LARGE_TILE", 16)
    monkeypatch.setattr(tiles, "ALIGN", 4)


def value_and_grads(loss, *args):
    (value, stats), grads = jax.jit(jax.value_and_grad(loss, range(len(args)), True))(*args)
    return value, stats, grads


def sigmoid_of(pairs, **kwargs):
    return lambda *args: sigmoid_loss(*args, pairs=pairs, key=KEY, **kwargs)


# One tile that is not a multiple of `ALIGN`; four rows of whole tiles; tiles with padding.
@pytest.mark.parametrize("batch", [10, 64, 50])
def test_both_losses_equal_the_formulas(batch, on_gpu):
    z = embeddings(batch)
    scalars = (jnp.float32(10.0), jnp.float32(-5.0))
    value, stats, grads = value_and_grads(sigmoid_of(AllPairs()), *z, *scalars)
    want, want_grads = jax.value_and_grad(naive.sigmoid, range(4))(*z, *scalars)
    close(value, want)
    all_close(grads, want_grads)
    logits = 10.0 * z[0] @ z[1].T - 5.0
    negative = logits[~np.eye(batch, dtype=bool)]
    np.testing.assert_allclose(stats.neg_logit_min, negative.min(), rtol=1e-5)
    np.testing.assert_allclose(stats.neg_logit_max, negative.max(), rtol=1e-5)

    value, _, grads = value_and_grads(softmax_loss, *z, scalars[0])
    want, want_grads = jax.value_and_grad(naive.softmax, range(3))(*z, scalars[0])
    close(value, want)
    all_close(grads, want_grads)


@pytest.mark.parametrize("pairs", [Groups(size=32), Negatives(keep="hard", per_positive=3)])
def test_some_pairs_on_a_ring_are_as_elsewhere(pairs, request):
    z = embeddings(64)
    mesh = mesh_of(4)
    args = (*on(mesh, *z), jnp.float32(10.0), jnp.float32(-5.0))
    want = value_and_grads(sigmoid_of(pairs, mesh=mesh), *args)
    request.getfixturevalue("on_gpu")
    got = value_and_grads(sigmoid_of(pairs, mesh=mesh), *args)
    all_close(jax.tree.leaves(got), jax.tree.leaves(want))


def test_float16_products_of_p_are_eight_times_as_exact(on_gpu):
    """p rounds by up to 2**-12 for bfloat16 embeddings, where bfloat16 would round by 2**-9."""
    zimg, ztxt = (jnp.asarray(z, jnp.bfloat16) for z in embeddings(64))
    t, b = jnp.float32(117.0), jnp.float32(-13.0)
    negatives = functools.partial(tiled.sigmoid_negatives, shift=0, tile=16)
    sums, *got = jax.jit(negatives)(zimg, ztxt, t, b)
    z = [np.asarray(a, np.float64) for a in (zimg, ztxt)]
    logits = 117.0 * z[0] @ z[1].T - 13.0
    p = np.where(np.eye(64, dtype=bool), 0.0, np.exp(-np.logaddexp(0, -logits)))
    close(sums.db, p.sum(), floor=0)
    for grad, want in zip(got, (p @ z[1], p.T @ z[0]), strict=True):
        close(grad, want, 2**-12, floor=0)


@pytest.mark.parametrize("shift", [0, tiled.NO_POSITIVES])
def test_the_kernel_equals_the_sweep(shift, monkeypatch):
    """Two rows of two tiles, two blocks of D: with and without positives."""
    monkeypatch.setattr(tiles, "LARGE_TILE", 128)
    zimg, ztxt = (jnp.asarray(z, jnp.bfloat16) for z in embeddings(384, 128))
    args = (zimg, ztxt, jnp.float32(117.0), jnp.float32(-13.0))
    kernel = functools.partial(pallas_gpu.sigmoid_negatives, shift=shift, interpret=True)
    got = jax.jit(kernel)(*args)
    want = jax.jit(functools.partial(tiled.sigmoid_negatives, shift=shift, tile=128))(
        *(a.astype(jnp.float32) for a in args)
    )
    for one, expected in zip(got[0][:4], want[0][:4], strict=True):
        close(one, expected, floor=0)
    all_close(got[1:], want[1:], tolerance=2**-12, floor=0)


def test_embeddings_that_do_not_fit_the_kernel_are_refused():
    z = jnp.zeros((100, 128), jnp.bfloat16)
    assert not pallas_gpu.fits(z, z)
    with pytest.raises(ValueError, match=r"whole blocks of 128 rows and 64 columns, not bfloat16"):
        pallas_gpu.sigmoid_negatives(z, z, 1.0, 0.0, shift=0)
