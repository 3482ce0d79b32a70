"""Defects of public implementations of these losses, by name, which ours do not have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config.loss import AllPairs
from study.losses import sigmoid_loss, softmax_loss
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


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_loss_is_not_scaled_by_the_number_of_devices(devices):
    """clip-jax averages over the devices once too often: loss and gradients are 1/devices."""
    mesh, z = mesh_of(devices), embeddings(48)
    loss, _, grads = sigmoid_and_grads(*on(mesh, *z), 10.0, -10.0, pairs=AllPairs(), mesh=mesh)
    want, want_grads = reference_sigmoid(*z, 10.0, -10.0)
    close(loss, want)
    all_close(grads, want_grads)


@pytest.mark.parametrize("t", [99.0, 120.0, 500.0])
def test_temperature_is_not_clamped(t):
    """open_clip stops t at 100, and a released model has 112.3: loss and gradient must go on."""
    z = embeddings(48)
    loss, _, grads = sigmoid_and_grads(*z, t, -13.0, pairs=AllPairs())
    want, want_grads = reference_sigmoid(*z, t, -13.0)
    close(loss, want)
    close(grads[2], want_grads[2], floor=1e-4)
    assert abs(float(grads[2])) > 0


@pytest.mark.parametrize("t", [100.0, 1000.0])
def test_no_overflow_above_logit_88(t):
    """exp(89) is infinite in float32; a negative with that logit costs 89 and not more."""
    zimg = np.zeros((8, 4), np.float32)
    zimg[:, 0] = 1
    loss, stats, grads = sigmoid_and_grads(zimg, zimg, t, 0.0, pairs=AllPairs())
    close(loss, 7 * t)
    assert float(stats.neg_logit_max) == t
    assert all(np.isfinite(g).all() for g in grads)
    loss, _, grads = softmax_and_grads(zimg, zimg, t)
    close(loss, np.log(8))
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("t", [10.0, 117.0])
def test_bfloat16_embeddings_have_float32_logits(t):
    """With bfloat16 logits the loss of a trained model is wrong by percents."""
    z = [jnp.asarray(a, jnp.bfloat16) for a in embeddings(256, 64)]
    exact = [np.asarray(a, np.float32) for a in z]
    loss, _, grads = sigmoid_and_grads(*z, t, -12.9, pairs=AllPairs())
    want, want_grads = reference_sigmoid(*exact, t, -12.9)
    close(loss, want)
    close(grads[3], want_grads[3])
    assert grads[0].dtype == jnp.bfloat16
    close(np.asarray(grads[0], np.float32), want_grads[0], 8e-3)
    close(softmax_and_grads(*z, t)[0], reference_softmax(*exact, t)[0])


def test_bias_and_temperature_gradients_count_the_batch_once():
    """open_clip with k accumulation steps has k times the gradient of both: see also
    `test_microbatches.py`, where the towers are split."""
    z = embeddings(48)
    _, _, want = sigmoid_and_grads(*z, 10.0, -10.0, pairs=AllPairs())
    for shape, tile in (((4,), 3), ((2, 4), 48)):
        mesh = mesh_of(*shape)
        _, _, got = sigmoid_and_grads(
            *on(mesh, *z), 10.0, -10.0, pairs=AllPairs(), mesh=mesh, tile=tile
        )
        all_close(got[2:], want[2:])


def test_backward_keeps_no_logits():
    """Public chunked losses keep every chunk's logits for the backward pass: O(B * B) again."""
    batch, dim = 4096, 8
    z = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)

    def temporary(loss):
        grad = jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True)
        compiled = jax.jit(grad).lower(z, z, scalar, scalar).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    sigmoid = temporary(lambda *a: sigmoid_loss(*a, pairs=AllPairs(), key=KEY))
    softmax = temporary(lambda zi, zt, t, b: softmax_loss(zi, zt, t + 0 * b))
    assert max(sigmoid, softmax) < batch * batch * 4 / 10
