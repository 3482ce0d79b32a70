"""The relative bias: t * (s - r) in place of t * s + b, the same loss in other parameters."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config import Cell, Sigmoid
from study.models.two_towers import bias, initial_scalars
from study.training.step import Embeddings, batch_loss

ABSOLUTE = Cell(batch_size=8, loss=Sigmoid(t_init=7.0, b_init=-5.0))
RELATIVE = Cell(batch_size=8, loss=Sigmoid(t_init=7.0, b_init=-5.0, bias="relative"))


def unit_rows(seed):
    z_BxE = jax.random.normal(jax.random.key(seed), (8, 4))
    return z_BxE / jnp.linalg.norm(z_BxE, axis=1, keepdims=True)


def test_it_starts_at_the_same_bias():
    params = initial_scalars(RELATIVE)
    assert set(params) == {"t", "r"}
    np.testing.assert_allclose(params["r"], [5 / 7], rtol=1e-6)
    np.testing.assert_allclose(bias(params), -5.0, rtol=1e-6)
    assert bias(initial_scalars(ABSOLUTE)) == -5.0


def test_loss_is_equal_and_gradients_follow_by_the_chain_rule():
    """b = -t * r, so d/dr = -t * d/db, and t' = log t moves b as well: + b * d/db."""

    def loss(cell, params, z):
        return batch_loss(cell, Embeddings(*z, None), params, jnp.uint32(0), None, None, None)[0]

    z = (unit_rows(1), unit_rows(2))
    value, grads = {}, {}
    for cell in (ABSOLUTE, RELATIVE):
        params = {k: jnp.asarray(v) for k, v in initial_scalars(cell).items()}
        kind = cell.loss.bias
        value[kind], grads[kind] = jax.value_and_grad(
            lambda p, z, cell=cell: loss(cell, p, z), argnums=(0, 1)
        )(params, z)
    (absolute, z_absolute), (relative, z_relative) = grads["absolute"], grads["relative"]
    np.testing.assert_allclose(value["relative"], value["absolute"], rtol=1e-6)
    np.testing.assert_allclose(relative["r"], -7 * absolute["b"], rtol=1e-5)
    np.testing.assert_allclose(relative["t"], absolute["t"] - 5 * absolute["b"], rtol=1e-5)
    for one, other in zip(z_absolute, z_relative, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)


def test_without_a_bias_there_is_nothing_to_make_relative():
    with pytest.raises(ValueError, match="no effect with b_init=None"):
        Sigmoid(b_init=None, bias="relative")


def test_the_prior_is_relative_to_t():
    cell = Cell(batch_size=8, loss=Sigmoid(t_init=2.0, b_init="prior", bias="relative"))
    np.testing.assert_allclose(initial_scalars(cell)["r"], [math.log(7) / 2], rtol=1e-6)
