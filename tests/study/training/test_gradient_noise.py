"""The noise of gradients across batches, by its definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from study.training.gradient_noise import gradient_noise

KEY = jnp.uint32(3)


def of_its_rows(params, batch, key):
    """A gradient that is the mean of the batch's rows, in two leaves."""
    g = batch["text"].mean(0)
    return {"a": g[:2], "b": g[2:]}


def measured(batches_KxBxD):
    return gradient_noise(of_its_rows, {}, {"text": jnp.asarray(batches_KxBxD)}, KEY)


def test_both_are_those_of_the_definition():
    x_KxBxD = np.random.default_rng(0).normal(size=(5, 4, 6)).astype(np.float32)
    g_KxD = x_KxBxD.mean(1)
    pairs = [g_KxD[k] @ g_KxD[i] for k in range(5) for i in range(5) if i != k]
    found = measured(x_KxBxD)
    np.testing.assert_allclose(found.signal, np.mean(pairs), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.noise, g_KxD.var(0, ddof=1).sum(), rtol=1e-4)


def test_equal_batches_have_no_noise_and_the_signal_of_one():
    x_BxD = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    found = measured(np.stack([x_BxD] * 3))
    np.testing.assert_allclose(found.signal, np.sum(x_BxD.mean(0) ** 2), rtol=1e-5)
    assert abs(float(found.noise)) < 1e-6


def test_estimates_are_unbiased():
    """Rows of mean m and variance 1 in each of 6 places: signal |m|^2, noise 6 / B."""
    rng = np.random.default_rng(2)
    x_RxKxBxD = rng.normal(size=(4000, 2, 4, 6)).astype(np.float32) + np.float32(0.3)
    found = jax.jit(jax.vmap(measured))(x_RxKxBxD)
    np.testing.assert_allclose(found.signal.mean(), 6 * 0.3**2, rtol=0.05)
    np.testing.assert_allclose(found.noise.mean(), 6 / 4, rtol=0.05)


def test_each_batch_has_random_choices_of_its_own():
    def of_its_key(params, batch, key):
        return {"a": (key >> jnp.uint32(8)).astype(jnp.float32)[None]}

    found = gradient_noise(of_its_key, {}, {"text": jnp.ones((3, 2))}, KEY)
    assert float(found.noise) > 0
