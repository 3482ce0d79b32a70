"""The TPU kernels: equal to float64, and compiled for every TPU that they must fit."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config.loss import AllPairs
from study.losses import pallas_tpu, sigmoid_loss, softmax, softmax_loss
from study.losses.pallas_tpu import fits, sigmoid_negatives, softmax_gradients, softmax_normalisers
from study.losses.tiled import NO_POSITIVES
from study.losses.tpu_panels import Chip, Tiling, vmem_bytes
from tests.study.losses import reference as whole

MIB = 1 << 20


def embeddings(n, m, dim, dtype):
    """Unit rows of which row i of both agree more than others do, rounded to `dtype`."""
    rng = np.random.default_rng(0)
    zimg, ztxt = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    ztxt[: min(n, m)] += zimg[: min(n, m)]
    return [jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype) for z in (zimg, ztxt)]


def negatives(n, m, shift):
    return np.arange(n)[:, None] + shift != np.arange(m)[None, :]


def reference(zimg, ztxt, t, b, shift):
    zimg, ztxt = (np.asarray(z, np.float64) for z in (zimg, ztxt))
    logits = t * zimg @ ztxt.T + b
    negative = negatives(*logits.shape, shift)
    p = np.where(negative, np.exp(-np.logaddexp(0, -logits)), 0.0)
    loss = np.sum(np.logaddexp(0, logits), where=negative)
    sums = (loss, p.sum(), logits[negative].min(), logits[negative].max())
    return sums, p @ ztxt, p.T @ zimg


@functools.cache
def compiled_kernel(kernel, tile, shift=None):
    """With `shift` traced as in the ring, or a plain int."""
    options = {"tile": tile, "interpret": True}
    if shift is not None:
        return jax.jit(lambda *a: kernel(*a, shift=shift, **options))
    return jax.jit(lambda *a: kernel(*a[:-1], shift=a[-1], **options))


def kernel(zimg, ztxt, t, b, shift, tile=128):
    fn = compiled_kernel(sigmoid_negatives, tile)
    return fn(zimg, ztxt, jnp.float32(t), jnp.float32(b), jnp.int32(shift))


def close(got, want, tolerance=1e-5):
    got = np.asarray(got, np.float64)
    assert got.shape == np.shape(want)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


# Blocks of one tile; of several panels and text tiles; ragged either way; fewer rows than a tile.
@pytest.mark.parametrize(("n", "m"), [(128, 256), (1100, 700), (5, 300)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernel_equals_float64(n, m, dtype):
    zimg, ztxt = embeddings(n, m, 24, dtype)
    # bfloat16 rounds sigmoid(l) once, by up to 2 ** -9, before it meets the embeddings.
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-9
    for t, b, shift in ((10.0, -10.0, 0), (120.0, -13.0, 37), (120.0, -13.0, NO_POSITIVES)):
        sums, dzimg, dztxt = kernel(zimg, ztxt, t, b, shift)
        want, want_dzimg, want_dztxt = reference(zimg, ztxt, t, b, shift)
        for got, expected in zip(jax.tree.leaves(sums), want, strict=True):
            close(got, expected)
        assert dzimg.dtype == dztxt.dtype == jnp.float32
        close(dzimg, want_dzimg, tolerance)
        close(dztxt, want_dztxt, tolerance)


@pytest.mark.parametrize(
    ("n", "m", "dtype"),
    [(128, 256, jnp.float32), (1100, 700, jnp.bfloat16), (5, 300, jnp.float32)],
)
def test_softmax_kernels_equal_float64(n, m, dtype):
    """Both passes, each by itself: the second one is given normalisers of float64."""
    zimg, ztxt = embeddings(n, m, 24, dtype)
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-9
    for t, shift in ((10.0, 0), (120.0, 37), (120.0, NO_POSITIVES)):
        images, texts = (np.asarray(z, np.float64) for z in (zimg, ztxt))
        logits = t * images @ texts.T
        negative = negatives(n, m, shift)
        kept = np.where(negative, logits, -np.inf)
        arguments = (zimg, ztxt, jnp.float32(t))
        by_row, by_col, low = compiled_kernel(softmax_normalisers, 256)(*arguments, shift)
        close(by_row[0] + np.log(by_row[1]), np.logaddexp.reduce(kept, 1), 1e-6)
        close(by_col[0] + np.log(by_col[1]), np.logaddexp.reduce(kept, 0), 1e-6)
        close(low, logits[negative].min())

        row, col = (np.logaddexp.reduce(logits, axis) for axis in (1, 0))
        p = np.where(negative, np.exp(logits - row[:, None]) + np.exp(logits - col), 0.0) / 2
        lse = (jnp.asarray(x, jnp.float32) for x in (row, col))
        dzimg, dztxt = compiled_kernel(softmax_gradients, 256)(*arguments, *lse, shift)
        close(dzimg, p @ texts, tolerance)
        close(dztxt, p.T @ images, tolerance)


def test_softmax_normalisers_where_exp_overflows():
    """Rows and columns whose largest logits differ by far more than float32's exponents span."""
    zimg, ztxt = embeddings(130, 260, 8, jnp.float32)
    zimg *= jnp.linspace(-1, 1, 130)[:, None]
    by_row, by_col, _ = compiled_kernel(softmax_normalisers, 128, 0)(zimg, ztxt, jnp.float32(900))
    logits = 900.0 * np.asarray(zimg, np.float64) @ np.asarray(ztxt, np.float64).T
    logits[~negatives(130, 260, 0)] = -np.inf
    for (top, total), axis in ((by_row, 1), (by_col, 0)):
        np.testing.assert_allclose(
            top + np.log(total), np.logaddexp.reduce(logits, axis), rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize("shape", [(1,), (2, 4)])
def test_softmax_loss_by_the_kernels_equals_float64(shape, monkeypatch):
    """Loss and all gradients, on one device and on eight: a ring of blocks, each by kernels."""

    def by_kernel(kernel, _sweep, *arrays, **options):
        return getattr(pallas_tpu, kernel)(*arrays, **options, interpret=True)

    monkeypatch.setattr(softmax, "by_kernel_on_tpu", by_kernel)
    mesh, z = whole.mesh_of(*shape), whole.embeddings(64)
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda *a: softmax_loss(*a, mesh=mesh, tile=128), (0, 1, 2), True)
    )
    (loss, _), grads = value_and_grad(*whole.on(mesh, *z), jnp.float32(30))
    want, want_grads = whole.reference_softmax(*z, 30.0)
    whole.close(loss, want)
    whole.all_close(grads, want_grads)


def test_a_traced_shift_is_a_plain_one():
    zimg, ztxt = embeddings(300, 300, 16, jnp.float32)
    scalars = (jnp.float32(10), jnp.float32(-5))
    plain = compiled_kernel(sigmoid_negatives, 128, 0)(zimg, ztxt, *scalars)
    traced = kernel(zimg, ztxt, *scalars, 0)
    for got, expected in zip(jax.tree.leaves(traced), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("b", [-300.0, 0.0, 300.0])
def test_logits_where_exp_overflows(b):
    """float32 exp is infinite above 88: neither loss nor gradients may follow it."""
    zimg, ztxt = embeddings(130, 130, 8, jnp.float32)
    sums, *grads = kernel(zimg, ztxt, 200.0, b, 0)
    want, *want_grads = reference(zimg, ztxt, 200.0, b, 0)
    for got, expected in zip((sums.loss, sums.db, *grads), (*want[:2], *want_grads), strict=True):
        assert np.all(np.isfinite(got))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-30)


def test_products_of_512_factors_stay_finite():
    """The largest tile multiplies 64 factors 1 + e, each 2 where all logits are 0."""
    z = jnp.zeros((512, 8))
    sums, *_ = kernel(z, z, 1.0, 0.0, NO_POSITIVES, tile=512)
    close(sums.loss, 512 * 512 * np.log(2))


@pytest.mark.parametrize("vmem", [16, 64, 128])
@pytest.mark.parametrize("cores", [1, 2])
def test_tilings_are_legal(cores, vmem):
    chip = Chip(cores=cores, vmem_bytes=vmem * MIB)
    blocks = ((1, 1), (640, 100), (2048, 2048), (2049, 5000))
    for (n, m), tile, dim, size, per_image in itertools.product(
        blocks, (1, 128, 300, 512), (64, 768, 1152), (2, 4), (0, 512)
    ):
        tiling = Tiling.choose(n, m, dim, size, tile, chip, per_image=per_image)
        assert tiling.panel % tiling.rows == 0 == tiling.cols % 128
        assert max(tiling.rows, tiling.cols) <= max(tile, 128)
        # Tiles are halved down to eight rows in the product of a tile's factors.
        assert tiling.rows in (128, 256, 512)
        assert -n % tiling.panel < tiling.rows * -(-n // tiling.panel)
        used = vmem_bytes(tiling.panel, tiling.rows, tiling.cols, dim, size, per_image)
        assert used < tiling.vmem_bytes <= chip.vmem_bytes


def test_embeddings_too_wide_for_the_chip_are_refused():
    assert fits(jnp.zeros((1, 1152), jnp.float32))
    assert not fits(jnp.zeros((1, 8192), jnp.float32))
    assert not fits(jnp.zeros((1, 64), jnp.float16))
    with pytest.raises(ValueError, match="use a smaller embed_dim or bfloat16"):
        kernel(jnp.zeros((8, 8192)), jnp.zeros((8, 8192)), 1.0, 0.0, 0)


@pytest.mark.slow
def test_kernel_compiles_for_every_chip_and_keeps_no_logits(compiled_for_tpu):
    """v4, v5e, v5p, v6e; D from 64 to 1152; ragged; where the kernel cannot tell the chip."""
    kernels = compiled_for_tpu("kernels")["kernels"]
    assert len(kernels) == 15
    for name in ("v4-8", "v5e-16", "v5p-8", "v6e-16", "v4-8 softmax"):
        report = kernels[f"{name} large"]
        between = report["peak_bytes"] - report["argument_bytes"] - report["output_bytes"]
        # All logits would be 256 MiB. What is there is the gradients, at 128 lanes for D = 64, and
        # softmax's normalisers, one per lane.
        assert between <= (36 if "softmax" in name else 32) * MIB


@pytest.mark.slow
def test_a_loss_lowered_for_a_tpu_takes_the_kernel(compiled_for_tpu):
    """Where the mesh names the chip, and where only the compiler knows it."""
    assert compiled_for_tpu("kernels")["by_platform"] == [True, True, True, True]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_program_for_the_cpu_traces_no_kernel(devices, monkeypatch):
    for kernel in ("sigmoid_negatives", "softmax_normalisers", "softmax_gradients"):
        monkeypatch.setattr(pallas_tpu, kernel, lambda *_, **__: pytest.fail("traced a kernel"))
    z = [jax.ShapeDtypeStruct((1024, 8), jnp.float32)] * 2
    t, key, mesh = jnp.float32(1), jnp.uint32(0), whole.mesh_of(devices)
    jax.eval_shape(lambda *z: softmax_loss(*z, t, mesh=mesh), *z)
    jax.eval_shape(lambda *z: sigmoid_loss(*z, t, t, pairs=AllPairs(), key=key, mesh=mesh), *z)
    with pytest.raises(pytest.fail.Exception, match="traced a kernel"):
        jax.eval_shape(lambda *z: softmax_loss(*z, t), *z)
