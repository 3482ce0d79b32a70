"""Chosen negatives: the right ones and the right number, on any number of devices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config.loss import Groups, Negatives
from study.losses import count_kept, hard_negatives, sigmoid_loss
from study.losses.hard_negatives import kth_score
from study.losses.random_negatives import random_mask
from tests.study.losses.reference import (
    KEY,
    all_close,
    close,
    embeddings,
    mesh_of,
    on,
    reference_sigmoid,
    sigmoid_and_grads,
)


def weights(x_BxB: np.ndarray, pairs: Negatives, key=KEY, **kwargs) -> np.ndarray:
    """The weight of each pair in the public loss, for any matrix of products.

    With the identity as texts the products are the images, and the images' gradient is the
    derivative in each logit.
    """
    x = jnp.asarray(x_BxB, jnp.float32)
    z = (x, jnp.eye(len(x)))
    mesh = kwargs.get("mesh")
    gradient = compiled_gradient(pairs, **kwargs)
    w = np.array(gradient(*(z if mesh is None else on(mesh, *z)), jnp.uint32(key)))
    np.fill_diagonal(w, 0)
    return w * len(x) / T / np.asarray(jax.nn.sigmoid(T * x + 0.25))


T = 0.5


@functools.cache
def compiled_gradient(pairs: Negatives, **kwargs):
    def loss(zimg, ztxt, key):
        t, b = jnp.float32(T), jnp.float32(0.25)
        return sigmoid_loss(zimg, ztxt, t, b, pairs=pairs, key=key, **kwargs)[0]

    return jax.jit(jax.grad(loss))


def weights_by_sorting(x_BxB: np.ndarray, pairs: Negatives) -> np.ndarray:
    """The same weights by sorting."""
    batch = len(x_BxB)
    score = np.where(np.eye(batch, dtype=bool), -np.inf, x_BxB)
    if pairs.keep == "easy":
        score = np.where(np.eye(batch, dtype=bool), -np.inf, -x_BxB)
    rows = score if pairs.scope == "row" else score.reshape(1, -1)
    keep = int(pairs.per_positive) if pairs.scope == "row" else pairs.negatives(batch)
    cut = np.sort(rows, axis=1)[:, ::-1][:, keep - 1 : keep]
    above, ties = rows > cut, rows == cut
    share = (keep - above.sum(1, keepdims=True)) / ties.sum(1, keepdims=True)
    return np.where(above, 1, np.where(ties, share, 0)).reshape(batch, batch)


def scores(kind: str, batch: int = 48) -> np.ndarray:
    rng = np.random.default_rng(3)
    x = {
        "normal": rng.normal(size=(batch, batch)),
        "ties": rng.integers(-3, 3, size=(batch, batch)) / 4,
        "constant": np.zeros((batch, batch)),
        "outliers": np.clip(rng.standard_cauchy((batch, batch)) ** 9 / 1e9, -9, 9),
        "tiny": 1 + 1e-7 * rng.integers(0, 4, size=(batch, batch)),
    }[kind]
    return x.astype(np.float32)


@pytest.mark.parametrize(
    ("keep", "scope", "per_positive"),
    [
        *(("hard", "batch", k) for k in (1, 1.6, 47)),
        *(("hard", "row", k) for k in (1, 20, 47)),
        *(("easy", "batch", k) for k in (20, 46)),
        ("easy", "row", 20),
    ],
)
def test_kept_negatives_are_those_that_sorting_finds(keep, scope, per_positive):
    check_by_sorting(Negatives(keep=keep, per_positive=per_positive, scope=scope))


def check_by_sorting(pairs, **kwargs):
    for kind in ("normal", "ties", "constant", "outliers", "tiny"):
        x = scores(kind)
        got, want = weights(x, pairs, tile=13, **kwargs), weights_by_sorting(x, pairs)
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-6, err_msg=kind)


@pytest.mark.parametrize(("keep", "scope"), [("hard", "batch"), ("easy", "row")])
def test_products_that_are_not_stored_give_the_same_negatives(keep, scope, monkeypatch):
    monkeypatch.setattr(hard_negatives, "STORED_BYTES", 0)
    compiled_gradient.cache_clear()
    check_by_sorting(Negatives(keep=keep, per_positive=4, scope=scope))
    compiled_gradient.cache_clear()


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_a_search_holds_no_more_products_than_it_may_store(scope):
    """Beyond the limit the search holds tiles; below it, the products and their tiles."""
    batch = 2048
    z = jax.ShapeDtypeStruct((batch, 8), jnp.float32)
    pairs = Negatives(keep="hard", per_positive=2, scope=scope)
    temporary = {}
    for stored_bytes in (0, 4 * batch**2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hard_negatives, "STORED_BYTES", stored_bytes)
            search = jax.jit(lambda *a: kth_score(*a, pairs, axes=(), tile=256))
            keep_2 = count_kept(pairs, batch)
            memory = search.lower(z, z, keep_2).compile().memory_analysis()
            temporary[stored_bytes] = memory.temp_size_in_bytes
    assert temporary[0] < 4 * batch**2 / 4
    assert temporary[4 * batch**2] < 1.5 * 4 * batch**2


@pytest.mark.parametrize(
    ("keep", "scope"), [("random", "batch"), ("hard", "batch"), ("easy", "row")]
)
def test_one_program_takes_any_number_of_negatives(keep, scope):
    """With the loss, statistics and gradients, to the bit, of a program that has the number."""
    arguments = *embeddings(48), jnp.float32(10), jnp.float32(-8)
    one = Negatives(keep=keep, per_positive=1, scope=scope)
    take_any = jax.jit(
        jax.value_and_grad(
            lambda *a: sigmoid_loss(*a[:4], pairs=one, key=KEY, keep_2=a[4]), (0, 1, 2, 3), True
        )
    )
    for per_positive in (3, 47):
        pairs = Negatives(keep=keep, per_positive=per_positive, scope=scope)
        loss, stats, grads = sigmoid_and_grads(*arguments, pairs=pairs)
        got = take_any(*arguments, count_kept(pairs, 48))
        jax.tree.map(np.testing.assert_array_equal, got, ((loss, stats), grads))


@pytest.mark.parametrize("scope", ["batch", "row"])
@pytest.mark.parametrize("keep", ["random", "hard", "easy"])
def test_the_ring_keeps_the_negatives_that_one_device_keeps(keep, scope):
    x = scores("ties")
    pairs = Negatives(keep=keep, per_positive=5, scope=scope)
    one, many = weights(x, pairs), weights(x, pairs, mesh=mesh_of(2, 4), tile=4)
    np.testing.assert_allclose(many, one, rtol=1e-3, atol=1e-6)


def test_one_example_per_device_is_enough_to_choose():
    x = scores("normal", 8)
    pairs = Negatives(keep="hard", per_positive=2)
    np.testing.assert_allclose(
        weights(x, pairs, mesh=mesh_of(8)), weights_by_sorting(x, pairs), atol=1e-3
    )


@pytest.mark.parametrize("scope", ["batch", "row"])
@pytest.mark.parametrize("batch", [48, 53, 64])
def test_random_negatives_are_as_many_as_configured(batch, scope):
    i, j = np.arange(batch)[:, None], np.arange(batch)[None, :]
    for per_positive in (1, 1.6, 20, batch - 1):
        if scope == "row" and per_positive % 1:
            continue
        pairs = Negatives(keep="random", per_positive=per_positive, scope=scope)
        keep_2 = count_kept(pairs, batch)
        kept = np.asarray(random_mask(keep_2, batch, KEY, i, j, scope=scope)) & (i != j)
        assert kept.sum() == round(per_positive * batch)
        if scope == "row":
            np.testing.assert_array_equal(kept.sum(1), per_positive)


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_random_negatives_depend_on_seed_and_pair_alone(scope):
    pairs = Negatives(keep="random", per_positive=5, scope=scope)
    a, b = scores("normal"), scores("ties")
    same = [weights(x, pairs, key=1, tile=tile) > 0.5 for x, tile in ((a, 7), (b, 48))]
    np.testing.assert_array_equal(*same)
    assert (same[0] != (weights(a, pairs, key=2) > 0.5)).any()


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_random_negatives_are_uniform_and_independent(scope):
    """Over many seeds: each pair is kept equally often, and two pairs agree by chance only."""
    batch, seeds = 16, 4000
    i, j = jnp.arange(batch)[:, None], jnp.arange(batch)[None, :]
    keep_2 = count_kept(Negatives(keep="random", per_positive=3, scope=scope), batch)
    pick = jax.jit(jax.vmap(lambda s: random_mask(keep_2, batch, s, i, j, scope=scope)))
    off = ~np.eye(batch, dtype=bool)
    kept = np.asarray(pick(jnp.arange(seeds, dtype=jnp.uint32)))[:, off].astype(float)
    p = 3 / 15
    assert kept.mean(0).std() < 1.15 * np.sqrt(p * (1 - p) / seeds)
    # Correlations of all couples of pairs: their spread is that of independent draws.
    correlation = np.corrcoef(kept.T)[np.triu_indices(kept.shape[1], 1)]
    if scope == "batch":
        assert correlation.std() < 1.15 / np.sqrt(seeds)
    between_rows = np.corrcoef(kept.T).reshape(batch, 15, batch, 15)[0, :, 1:].ravel()
    assert between_rows.std() < 1.15 / np.sqrt(seeds)


def test_random_negatives_of_successive_steps_are_unlike():
    pairs = Negatives(keep="random", per_positive=7)
    a, b = (weights(np.zeros((48, 48)), pairs, key=k) > 0.5 for k in (100, 101))
    share = (a & b).sum() / a.sum()
    assert abs(share - 7 / 47) < 0.08


@pytest.mark.parametrize(
    ("keep", "scope", "way"),
    [
        *((keep, scope, "stored") for keep in ("hard", "easy") for scope in ("batch", "row")),
        ("hard", "batch", "tiles"),
        ("easy", "row", "tiles"),
    ],
)
def test_loss_of_kept_negatives_equals_float64(keep, scope, way, monkeypatch):
    """With products stored on one device, and tile by tile on eight; with ties and without."""
    pairs, mesh = Negatives(keep=keep, per_positive=5, scope=scope), None
    if way == "tiles":
        mesh = mesh_of(2, 4)
        monkeypatch.setattr(hard_negatives, "STORED_BYTES", 0)
    for tied in (False, True):
        zimg, ztxt = embeddings(48)
        if tied:
            zimg[:24], ztxt[8:40] = zimg[0], ztxt[8]
        check_against_float64(zimg, ztxt, pairs, mesh)


def check_against_float64(zimg, ztxt, pairs, mesh):
    w = weights_by_sorting(np.asarray(jnp.asarray(zimg) @ ztxt.T), pairs)
    z = (zimg, ztxt) if mesh is None else on(mesh, zimg, ztxt)
    loss, stats, grads = sigmoid_and_grads(*z, 10.0, -8.0, pairs=pairs, mesh=mesh)
    want, want_grads = reference_sigmoid(zimg, ztxt, 10.0, -8.0, w)
    close(loss, want)
    all_close(grads, want_grads)
    logits = 10 * zimg @ ztxt.T - 8
    kept = logits[w > 0]
    close(stats.kept_logit_mean, np.average(logits, weights=w), 1e-4)
    close(stats.kept_logit_min, kept.min(), 1e-4)
    close(stats.kept_logit_max, kept.max(), 1e-4)


@pytest.mark.parametrize(("size", "devices"), [(8, 1), (24, 1), (2, 8), (6, 4), (24, 8), (48, 8)])
def test_groups_equal_separate_batches(size, devices):
    """Within a device, as its whole share, across devices, and the whole batch."""
    zimg, ztxt = embeddings(48)
    mesh = mesh_of(devices)
    loss, stats, grads = sigmoid_and_grads(
        *on(mesh, zimg, ztxt), 10.0, -5.0, pairs=Groups(size=size), mesh=mesh, tile=5
    )
    parts = [slice(i, i + size) for i in range(0, 48, size)]
    found = [reference_sigmoid(zimg[p], ztxt[p], 10.0, -5.0) for p in parts]
    close(loss, np.mean([f[0] for f in found]))
    for k in (0, 1):
        close(grads[k], np.concatenate([f[1][k] for f in found]) / len(parts))
    for k in (2, 3):
        close(grads[k], np.mean([f[1][k] for f in found]))
    logits = np.stack([10 * zimg[p] @ ztxt[p].T - 5 for p in parts])[:, ~np.eye(size, dtype=bool)]
    np.testing.assert_allclose(
        stats[3:6], (logits.mean(), logits.min(), logits.max()), rtol=1e-4, atol=1e-4
    )


def test_groups_that_cut_across_devices_are_refused():
    mesh = mesh_of(8)
    with pytest.raises(ValueError, match=r"groups of 8 cut across the 6 examples"):
        sigmoid_and_grads(*on(mesh, *embeddings(48)), 10.0, -5.0, pairs=Groups(size=8), mesh=mesh)
