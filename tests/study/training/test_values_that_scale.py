"""Settings that follow the batch size, and Muon."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config import Adafactor, Adam, Budget, Cell, Lion, Model, Muon, TextTransformer, ViT
from study.config.model import Vocabulary
from study.training.step import initial_state
from tests.study.training.optimizer_steps import GRADS, cell, updates


@pytest.mark.parametrize("kind", [Adam, Adafactor, Lion, Muon])
def test_a_half_life_in_examples_is_the_decay_rate_of_that_many_steps(kind):
    """At B = 10, after 40 examples, which are 4 steps, half of a gradient is left."""
    by_examples = cell(kind, b1_half_life_examples=40, b2_half_life_examples=20)
    assert (by_examples.b1**4, by_examples.b2**2) == pytest.approx((0.5, 0.5))
    grads = [jax.tree.map(lambda g, k=k: k * g, GRADS) for k in (1, -3, 2)]
    expected = updates(cell(kind, b1=by_examples.b1, b2=by_examples.b2), *grads)
    jax.tree.map(np.testing.assert_array_equal, updates(by_examples, *grads), expected)
    assert dataclasses.replace(by_examples, batch_size=40).b1 == 0.5


@pytest.mark.parametrize(
    "time", [{"weight_decay_time_steps": 50}, {"weight_decay_time_examples": 500},
             {"weight_decay_time_percent": 50}]
)  # fmt: skip
def test_the_decay_shrinks_a_kernel_by_e_in_its_time(time):
    """B = 10 and 100 steps: each of these times is 50 steps."""
    values = {"schedule": "constant", "clip_norm": None}
    c = Cell(batch_size=10, budget=Budget(steps=100), optimizer=Adam(**time | values))
    assert c.weight_decay == pytest.approx(1 / 50)
    expected = cell(learning_rate=1e-3, weight_decay=1 / 50)
    jax.tree.map(np.testing.assert_array_equal, updates(c, GRADS), updates(expected, GRADS))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"b1": 0.8, "b1_half_life_examples": 5}, "b1_half_life_examples replaces it"),
        ({"b2": 0.8, "b2_half_life_examples": 5}, "b2_half_life_examples replaces it"),
        ({"weight_decay": 1e-3, "weight_decay_time_percent": 5}, "weight_decay_time replaces it"),
        ({"weight_decay_time_steps": 3, "weight_decay_time_percent": 5}, "not all"),
    ],
)
def test_a_value_that_another_one_replaces_is_refused(values, named):
    with pytest.raises(ValueError, match=named):
        Adam(**values)


# --- Muon ----------------------------------------------------------------------------------------


def test_muon_orthogonalizes_kernels_and_leaves_the_rest_to_adam():
    """A first Muon step is the orthogonal factor of the gradient, with the RMS of 0.2."""
    key = jax.random.key(0)
    g_6x4 = jax.random.normal(key, (6, 4))
    params = {"txt": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)}, "t": jnp.ones(1)}
    grads = {"txt": {"kernel": g_6x4, "bias": g_6x4[0]}, "t": jnp.ones(1)}
    update = updates(cell(Muon), grads, params=params)
    adam = updates(cell(Adam), grads, params=params)
    np.testing.assert_array_equal(update["txt"]["bias"], adam["txt"]["bias"])
    np.testing.assert_array_equal(update["t"], adam["t"])
    direction = update["txt"]["kernel"] / (-0.1 * 0.2 * math.sqrt(6))
    left, _, right = np.linalg.svd(np.asarray(g_6x4), full_matrices=False)
    # Five iterations leave singular values between about 0.7 and 1.2, on the same vectors.
    inside = left.T @ np.asarray(direction) @ right.T
    values = np.diag(inside)
    np.testing.assert_allclose(inside, np.diag(values), atol=1e-3)
    assert (values > 0.65).all() and (values < 1.25).all()


def test_muon_takes_each_layer_and_each_attention_kernel_as_one_matrix():
    """Of a stack of layers as of each layer alone; heads belong to the outputs or the inputs."""
    c = Cell(
        batch_size=8,
        budget=Budget(steps=4),
        model=Model(
            image=ViT(variant="mu/8", image_size=16),
            text=TextTransformer(variant="mu"),
        ),
        optimizer=Muon(clip_norm=None),
    )
    params = initial_state(c, Vocabulary(50, eos=1, pad=0), (16, 16, 1), 0).params
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    update = updates(c, grads, params=params)
    leaves = jax.tree_util.tree_leaves_with_path(update)
    checked = set()
    for path, leaf in leaves:
        names = [k.key for k in path]
        if names[-1] != "kernel":
            continue
        layers = leaf if "encoderblock" in names else leaf[None]
        split = 1 if layers.ndim == 4 and names[-2] != "out" else layers.ndim - 2
        rows = math.prod(layers.shape[1 : 1 + split])
        checked.add((layers.ndim, names[-2]))
        for layer in np.asarray(layers).reshape(len(layers), rows, -1):
            scale = 0.2 * c.optimizer.learning_rate * math.sqrt(max(layer.shape))
            values = np.linalg.svd(layer / scale, compute_uv=False)
            assert values.min() > 0.4 and values.max() < 1.3, (names, values)
    assert {4} <= {ndim for ndim, _ in checked} and "out" in {name for _, name in checked}
