"""Towers: unit rows, what may and what may not change an embedding, known shapes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.cell import (
    CachedImage,
    Cell,
    Model,
    Negatives,
    Sigmoid,
    Softmax,
    TextAverage,
    TextTransformer,
    ViT,
)
from study.model import variant
from study.towers.image import PatchEmbedding
from study.towers.two_towers import TwoTowers, initial_bias

VOCABULARY, LENGTH = 50, 8
TEXT = jnp.array([[5, 6, 7, 1, 1, 1, 1, 1], [7, 6, 5, 1, 1, 1, 1, 1], [9, 1, 1, 1, 1, 1, 1, 1]])
IMAGE = jax.random.normal(jax.random.key(0), (3, 24, 24, 1))


def towers(text, image=None, loss=None):
    image = image or ViT(variant="mu/6")
    cell = Cell(
        model=Model(image=image, text=text, embed_dim=32),
        loss=loss or Sigmoid(),
        batch_size=16,
    )
    model = TwoTowers(cell, VOCABULARY)
    pixels = IMAGE if isinstance(image, ViT) else jnp.ones((3, 32))
    return model, jax.jit(model.init)(jax.random.key(1), pixels, TEXT), pixels


@pytest.mark.parametrize("text", [TextTransformer(), TextAverage(width=16)])
@pytest.mark.parametrize(
    "image",
    [ViT(variant="mu/6"), ViT(variant="mu/8", pool="gap"), CachedImage(embeddings="x", dim=32)],
)
def test_embeddings_are_unit_rows_and_examples_do_not_mix(text, image):
    model, params, pixels = towers(text, image)
    zimg, ztxt = model.apply(params, pixels, TEXT)
    for z in (zimg, ztxt):
        assert z.shape == (3, 32)
        np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-5)
    one, _ = model.apply(params, pixels[1:2], None)
    np.testing.assert_allclose(one[0], zimg[1], atol=1e-6)


def test_the_transformer_reads_word_order_and_the_average_does_not():
    for text, differs in ((TextTransformer(), True), (TextAverage(width=16), False)):
        model, params, _ = towers(text)
        _, ztxt = model.apply(params, None, TEXT)
        assert (float(jnp.abs(ztxt[0] - ztxt[1]).max()) > 1e-4) == differs


def test_the_text_transformer_is_bidirectional():
    """The last position's embedding depends on every position, first and last alike."""
    model, params, _ = towers(TextTransformer())
    full = jnp.arange(2, 2 + LENGTH)[None]
    _, base = model.apply(params, None, full)
    for place in range(LENGTH):
        _, other = model.apply(params, None, full.at[0, place].set(40))
        assert float(jnp.abs(base - other).max()) > 1e-5, place


def test_the_average_ignores_padding():
    model, params, _ = towers(TextAverage(width=16))
    _, short = model.apply(params, None, TEXT[:1, :4])
    _, long = model.apply(params, None, TEXT[:1])
    np.testing.assert_allclose(short, long, atol=1e-6)


def test_patch_embedding_is_the_convolution():
    ours = PatchEmbedding(8, 6)
    params = ours.init(jax.random.key(2), IMAGE)
    conv = nn.Conv(8, (6, 6), strides=(6, 6), padding="VALID")
    want = conv.apply(params, IMAGE)
    np.testing.assert_allclose(ours.apply(params, IMAGE), want.reshape(3, -1, 8), atol=1e-5)


def test_temperature_and_bias_start_where_the_cell_says():
    _, params, _ = towers(TextAverage(), loss=Sigmoid(t_init=5, b_init=-3))
    np.testing.assert_allclose(jnp.exp(params["params"]["t"]), [5], rtol=1e-6)
    np.testing.assert_allclose(params["params"]["b"], [-3])
    for loss in (Softmax(), Sigmoid(b_init=None)):
        _, params, _ = towers(TextAverage(), loss=loss)
        assert "b" not in params["params"]


@pytest.mark.parametrize(("batch_size", "bias"), [(16384, -9.704), (32768, -10.397), (22027, -10)])
def test_prior_bias_is_the_log_odds_of_the_chosen_pairs(batch_size, bias):
    cell = Cell(batch_size=batch_size, loss=Sigmoid(b_init="prior"))
    assert abs(initial_bias(cell) - bias) < 1e-3
    hard = Sigmoid(b_init="prior", pairs=Negatives(keep="hard", per_positive=1.6))
    assert abs(initial_bias(Cell(batch_size=1000, loss=hard)) + np.log(1.6)) < 1e-6


def test_an_unknown_variant_names_those_that_exist():
    with pytest.raises(ValueError, match="'XL' does not exist; there are mu, Ti"):
        variant("XL")
