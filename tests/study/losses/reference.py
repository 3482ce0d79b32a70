"""The losses in float64 NumPy, and helpers that the tests of losses share."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.losses import sigmoid_loss, softmax_loss

KEY = jnp.uint32(7)


def embeddings(batch: int, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of which row i of both agree more than others do."""
    rng = np.random.default_rng(seed)
    zimg_BxD = rng.normal(size=(batch, dim))
    ztxt_BxD = zimg_BxD + rng.normal(size=(batch, dim))
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg_BxD, ztxt_BxD)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32)


def reference_sigmoid(zimg, ztxt, t, b, w=None):
    """Loss and its four gradients in float64, by hand; `w` weighs the negatives."""
    zimg, ztxt = zimg.astype(np.float64), ztxt.astype(np.float64)
    batch = len(zimg)
    x = zimg @ ztxt.T
    label = 2 * np.eye(batch) - 1
    w = np.ones((batch, batch)) if w is None else np.where(np.eye(batch), 1.0, w)
    z = label * (t * x + b)
    loss = np.sum(w * np.logaddexp(0, -z)) / batch
    g = -w * label / (1 + np.exp(z)) / batch
    return loss, (t * g @ ztxt, t * g.T @ zimg, np.sum(g * x), np.sum(g))


def reference_softmax(zimg, ztxt, t):
    zimg, ztxt = zimg.astype(np.float64), ztxt.astype(np.float64)
    batch = len(zimg)
    x = zimg @ ztxt.T

    def lse(a, axis):
        top = a.max(axis, keepdims=True)
        return top + np.log(np.exp(a - top).sum(axis, keepdims=True))

    rows, columns = lse(t * x, 1), lse(t * x, 0)
    loss = np.mean(0.5 * (rows.ravel() + columns.ravel()) - t * np.diag(x))
    g = 0.5 * (np.exp(t * x - rows) + np.exp(t * x - columns)) - np.eye(batch)
    g /= batch
    return loss, (t * g @ ztxt, t * g.T @ zimg, np.sum(g * x))


def close(got, want, tolerance=1e-5, floor=1e-2):
    """Within `tolerance` of the reference's norm; sums that cancel below `floor` of it."""
    got, want = np.asarray(got, np.float64), np.asarray(want)
    if np.isnan(want).all():  # a statistic that this loss does not have
        assert np.isnan(got).all()
        return
    assert np.linalg.norm(got - want) <= tolerance * max(np.linalg.norm(want), floor)


@functools.cache
def _value_and_grad(loss, arguments, **kwargs):
    """One jitted function for all tests with the same options: compiling is what takes time."""
    return jax.jit(jax.value_and_grad(lambda *a: loss(*a, **kwargs), tuple(range(arguments)), True))


def sigmoid_and_grads(zimg, ztxt, t, b, **kwargs):
    value_and_grad = _value_and_grad(_sigmoid_loss, 4, **kwargs)
    (loss, stats), grads = value_and_grad(zimg, ztxt, jnp.float32(t), jnp.float32(b))
    return loss, stats, grads


def _sigmoid_loss(*args, **kwargs):
    return sigmoid_loss(*args, key=KEY, **kwargs)


def softmax_and_grads(zimg, ztxt, t, **kwargs):
    (loss, stats), grads = _value_and_grad(softmax_loss, 3, **kwargs)(zimg, ztxt, jnp.float32(t))
    return loss, stats, grads


def all_close(got, want, **kwargs):
    for one, expected in zip(got, want, strict=True):
        close(one, expected, **kwargs)


def mesh_of(*shape: int) -> Mesh:
    names = ("slice", "data")[-len(shape) :]
    return Mesh(np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape), names)


def on(mesh: Mesh, *arrays):
    return [jax.device_put(a, NamedSharding(mesh, P(mesh.axis_names))) for a in arrays]
