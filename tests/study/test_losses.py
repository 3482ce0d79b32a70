"""Losses: equal to the paper's formulas in float64, on one device and on many."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.losses import sigmoid_loss, softmax_loss
from study.losses.select import weights
from study.pairs import AllPairs, Groups, Negatives

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
    assert np.linalg.norm(got - want) <= tolerance * max(np.linalg.norm(want), floor)


def sigmoid_and_grads(zimg, ztxt, t, b, **kwargs):
    fn = jax.jit(
        jax.value_and_grad(lambda *a: sigmoid_loss(*a, key=KEY, **kwargs), (0, 1, 2, 3), True)
    )
    (loss, stats), grads = fn(zimg, ztxt, jnp.float32(t), jnp.float32(b))
    return loss, stats, grads


def mesh_of(*shape: int) -> Mesh:
    names = ("slice", "data")[-len(shape) :]
    return Mesh(np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape), names)


def on(mesh: Mesh, *arrays):
    return [jax.device_put(a, NamedSharding(mesh, P(mesh.axis_names))) for a in arrays]


@pytest.mark.parametrize("tile", [16, 512])
@pytest.mark.parametrize("batch", [48, 53])
@pytest.mark.parametrize(("t", "b"), [(10.0, -10.0), (120.0, -13.0), (1.0, 0.0)])
def test_sigmoid_equals_float64(batch, tile, t, b):
    zimg, ztxt = embeddings(batch)
    loss, _, grads = sigmoid_and_grads(zimg, ztxt, t, b, pairs=AllPairs(), tile=tile)
    want, want_grads = reference_sigmoid(zimg, ztxt, t, b)
    close(loss, want)
    for got, expected in zip(grads, want_grads, strict=True):
        close(got, expected)


@pytest.mark.parametrize("tile", [16, 512])
@pytest.mark.parametrize("batch", [48, 53])
@pytest.mark.parametrize("t", [10.0, 120.0])
def test_softmax_equals_float64(batch, tile, t):
    zimg, ztxt = embeddings(batch)
    fn = jax.value_and_grad(lambda *a: softmax_loss(*a, tile=tile), (0, 1, 2), True)
    (loss, _), grads = jax.jit(fn)(zimg, ztxt, jnp.float32(t))
    want, want_grads = reference_softmax(zimg, ztxt, t)
    close(loss, want)
    for got, expected in zip(grads, want_grads, strict=True):
        close(got, expected)


@pytest.mark.parametrize("shape", [(1,), (2,), (8,), (2, 4)])
@pytest.mark.parametrize(
    "pairs",
    [AllPairs(), Negatives(keep="hard", per_positive=3), Groups(size=4)],
    ids=lambda p: p.kind,
)
def test_any_number_of_devices_gives_the_loss_of_one(shape, pairs):
    """Fails by the device count where a loss is averaged once too often, as in clip-jax."""
    mesh = mesh_of(*shape)
    zimg, ztxt = embeddings(64)
    one, stats1, grads1 = sigmoid_and_grads(zimg, ztxt, 10.0, -5.0, pairs=pairs)
    many, stats, grads = sigmoid_and_grads(
        *on(mesh, zimg, ztxt), 10.0, -5.0, pairs=pairs, mesh=mesh, tile=3
    )
    close(many, one)
    for got, expected in zip((*grads, *stats), (*grads1, *stats1), strict=True):
        close(got, expected)


@pytest.mark.parametrize("shape", [(2,), (8,), (2, 4)])
def test_softmax_on_devices_equals_float64(shape):
    mesh = mesh_of(*shape)
    zimg, ztxt = embeddings(64)
    fn = jax.value_and_grad(lambda *a: softmax_loss(*a, mesh=mesh, tile=5), (0, 1, 2), True)
    (loss, stats), grads = jax.jit(fn)(*on(mesh, zimg, ztxt), jnp.float32(30.0))
    want, want_grads = reference_softmax(zimg, ztxt, 30.0)
    close(loss, want)
    for got, expected in zip(grads, want_grads, strict=True):
        close(got, expected)
    logits = 30.0 * zimg @ ztxt.T
    off = ~np.eye(64, dtype=bool)
    close(stats.neg_logit_mean, logits[off].mean(), 1e-4)
    close(stats.neg_logit_max, logits[off].max())


@pytest.mark.parametrize("scope", ["batch", "row"])
@pytest.mark.parametrize("keep", ["random", "hard", "easy"])
@pytest.mark.parametrize("per_positive", [1, 2.5, 20, 47])
def test_negatives_keeps_exactly_as_many_as_asked(keep, per_positive, scope):
    if scope == "row" and per_positive % 1:
        return
    pairs = Negatives(keep=keep, per_positive=per_positive, scope=scope)
    zimg, ztxt = embeddings(48)
    zimg[:24] = zimg[0]  # half of all rows tie
    logits = 10 * jnp.asarray(zimg @ ztxt.T) - 10
    w = np.asarray(
        weights(logits, jnp.eye(48, dtype=bool), pairs, seed=KEY, first_row=0, axis=None)
    )
    np.testing.assert_allclose(w.sum(), round(per_positive * 48), rtol=1e-6)
    if scope == "row":
        np.testing.assert_allclose(w.sum(1), per_positive, rtol=1e-6)
    assert (np.diag(w) == 0).all()
    off = ~np.eye(48, dtype=bool)
    if keep != "random" and scope == "batch":
        sign = 1 if keep == "hard" else -1
        kept, dropped = sign * logits[off & (w > 0)], sign * logits[off & (w == 0)]
        assert dropped.size == 0 or kept.min() >= dropped.max()


@pytest.mark.parametrize("keep", ["random", "hard", "easy"])
def test_loss_of_kept_negatives_equals_float64(keep):
    pairs = Negatives(keep=keep, per_positive=5)
    zimg, ztxt = embeddings(48)
    logits = jnp.float32(10) * zimg @ ztxt.T - 8
    w = weights(logits, jnp.eye(48, dtype=bool), pairs, seed=KEY, first_row=0, axis=None)
    loss, stats, grads = sigmoid_and_grads(zimg, ztxt, 10.0, -8.0, pairs=pairs)
    want, want_grads = reference_sigmoid(zimg, ztxt, 10.0, -8.0, np.asarray(w, np.float64))
    close(loss, want)
    for got, expected in zip(grads, want_grads, strict=True):
        close(got, expected)
    kept = np.asarray(logits)[np.asarray(w) > 0]
    close(stats.kept_logit_min, kept.min(), 1e-4)
    close(stats.kept_logit_max, kept.max(), 1e-4)


def test_random_negatives_depend_on_the_key_alone():
    zimg, ztxt = embeddings(48)
    eye = jnp.eye(48, dtype=bool)
    pairs = Negatives(keep="random", per_positive=5)

    def chosen(logits, seed):
        return weights(
            jnp.asarray(logits), eye, pairs, seed=jnp.uint32(seed), first_row=0, axis=None
        )

    a, b = chosen(zimg @ ztxt.T, 1), chosen(-zimg @ ztxt.T, 1)
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(chosen(zimg @ ztxt.T, 2)) != np.asarray(a)).any()


def test_random_negatives_are_uniform():
    """Over many keys every pair is kept about equally often."""
    eye = jnp.eye(16, dtype=bool)
    pairs = Negatives(keep="random", per_positive=3)
    pick = jax.vmap(
        lambda s: weights(jnp.zeros((16, 16)), eye, pairs, seed=s, first_row=0, axis=None)
    )
    share = np.asarray(pick(jnp.arange(2000, dtype=jnp.uint32))).mean(0)[~np.eye(16, dtype=bool)]
    assert abs(share.mean() - 3 / 15) < 1e-6
    assert share.std() < 2 * np.sqrt(0.2 * 0.8 / 2000)


def test_groups_equal_separate_batches():
    zimg, ztxt = embeddings(24)
    loss, _, grads = sigmoid_and_grads(zimg, ztxt, 10.0, -5.0, pairs=Groups(size=8))
    parts = [reference_sigmoid(zimg[i : i + 8], ztxt[i : i + 8], 10.0, -5.0) for i in (0, 8, 16)]
    close(loss, np.mean([p[0] for p in parts]))
    close(grads[0], np.concatenate([p[1][0] for p in parts]) / 3)
    close(grads[3], np.mean([p[1][3] for p in parts]))


def test_statistics_equal_those_of_the_full_matrix():
    zimg, ztxt = embeddings(53)
    _, stats, _ = sigmoid_and_grads(zimg, ztxt, 20.0, -3.0, pairs=AllPairs(), tile=16)
    logits = 20.0 * zimg @ ztxt.T - 3.0
    positive, negative = np.diag(logits), logits[~np.eye(53, dtype=bool)]
    want = [f(x) for x in (positive, negative, negative) for f in (np.mean, np.min, np.max)]
    np.testing.assert_allclose(np.asarray(stats), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "loss"), [(512, 10.023), (4096, 10.186), (8192, 10.372)])
def test_initial_loss_is_the_papers(batch, loss):
    """x.y = 0 everywhere, t = 10, b = -10: softplus(10) + (B-1) softplus(-10)."""
    zimg = jnp.zeros((batch, 8)).at[:, 0].set(1)
    ztxt = jnp.zeros((batch, 8)).at[:, 1].set(1)
    got, _ = sigmoid_loss(zimg, ztxt, jnp.float32(10), jnp.float32(-10), pairs=AllPairs(), key=KEY)
    assert abs(float(got) - loss) < 2e-3


def test_bfloat16_embeddings_keep_float32_logits():
    """With bfloat16 logits the loss of a trained model is wrong by percents."""
    zimg, ztxt = (jnp.asarray(z, jnp.bfloat16) for z in embeddings(256, 64))
    loss, _, grads = sigmoid_and_grads(zimg, ztxt, 117.0, -12.9, pairs=AllPairs())
    rounded = [np.asarray(z, np.float32) for z in (zimg, ztxt)]
    # t * zimg is rounded to bfloat16 once more before the product
    want, _ = reference_sigmoid(*rounded, 117.0, -12.9)
    close(loss, want, 3e-3)
    assert grads[0].dtype == jnp.bfloat16
