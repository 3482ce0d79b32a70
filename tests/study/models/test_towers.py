"""Towers: unit rows, what may and what may not change an embedding, known shapes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config import (
    Budget,
    CachedImage,
    Cell,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Negatives,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.model import Vocabulary, get_variant
from study.evals.encode import cached_encoder
from study.models.sharding import make_mesh
from study.models.text import MeanPoolTower
from study.models.transformer import product
from study.models.two_towers import TwoTowers, initial_bias
from study.models.vit import PatchEmbedding
from study.training.compile import train_program

VOCABULARY, LENGTH = Vocabulary(50, eos=1, pad=1), 8
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


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (ViT(variant="mu/6"), TextTransformer()),
        (ViT(variant="mu/8", pool="gap"), MeanPoolText(width=16)),
        (CachedImage(embeddings="x", dim=32), MeanPoolText(width=16)),
    ],
)
def test_embeddings_are_unit_rows_and_examples_do_not_mix(image, text):
    model, params, pixels = towers(text, image)
    zimg, ztxt = model.apply(params, pixels, TEXT)
    for z in (zimg, ztxt):
        assert z.shape == (3, 32)
        np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-5)
    one, _ = model.apply(params, pixels[1:2], None)
    np.testing.assert_allclose(one[0], zimg[1], atol=1e-6)


def test_the_transformer_reads_word_order_and_the_average_does_not():
    for text, differs in ((TextTransformer(), True), (MeanPoolText(width=16), False)):
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


@pytest.mark.parametrize(
    ("eos", "pad", "more"),
    [(1, 1, [1] * 4), (2, 2, [2] * 4), (1, 0, [1, 0, 0, 0]), (2, 0, [2, 0, 0, 0])],
)
def test_the_average_is_of_words_alone_whatever_ends_and_fills_a_text(eos, pad, more):
    """The ids are the tokenizer's: Llama's EOS is 2, and SigLIP 2 fills texts with PAD."""
    tower = MeanPoolTower(MeanPoolText(width=16), Vocabulary(50, eos=eos, pad=pad), 8)
    words = [7, 9, 3]
    params = tower.init(jax.random.key(0), jnp.array([words]))
    ends = [jnp.array([words + more[:n]]) for n in range(5)]
    want, *rest = (tower.apply(params, text) for text in ends)
    for got in rest:
        np.testing.assert_allclose(got, want, atol=1e-6)
    for other in {0, 1, 2, 4} - {eos, pad}:
        assert float(jnp.abs(tower.apply(params, jnp.array([[*words, other]])) - want).max()) > 1e-3


def test_programs_of_tokenizers_with_other_ids_are_not_shared():
    """As many pieces, but another EOS: the compiled step of one would be wrong for the other."""
    cell = Cell(batch_size=8, model=Model(text=MeanPoolText(width=8)), budget=Budget(steps=2))
    mesh = make_mesh(jax.devices()[:1])
    vocabularies = [Vocabulary(50, eos=1, pad=1), Vocabulary(50, eos=2, pad=2)]
    loops = [train_program(cell, Execution(), v, (24, 24, 1), mesh).loop for v in vocabularies]
    again = train_program(cell, Execution(), Vocabulary(50, eos=1, pad=1), (24, 24, 1), mesh).loop
    assert again is loops[0] is not loops[1]
    encoders = [cached_encoder(cell.model, Data(), v, 8, mesh) for v in vocabularies]
    assert encoders[0] is not encoders[1]


def test_patch_embedding_is_the_convolution():
    ours = PatchEmbedding(8, 6)
    params = ours.init(jax.random.key(2), IMAGE)
    conv = nn.Conv(8, (6, 6), strides=(6, 6), padding="VALID")
    want = conv.apply(params, IMAGE)
    np.testing.assert_allclose(ours.apply(params, IMAGE), want.reshape(3, -1, 8), atol=1e-5)


def test_temperature_and_bias_start_where_the_cell_says():
    _, params, _ = towers(MeanPoolText(), loss=Sigmoid(t_init=5, b_init=-3))
    np.testing.assert_allclose(jnp.exp(params["params"]["t"]), [5], rtol=1e-6)
    np.testing.assert_allclose(params["params"]["b"], [-3])
    for loss in (Softmax(), Sigmoid(b_init=None)):
        _, params, _ = towers(MeanPoolText(), loss=loss)
        assert "b" not in params["params"]


@pytest.mark.parametrize(("batch_size", "bias"), [(16384, -9.704), (32768, -10.397), (22027, -10)])
def test_prior_bias_is_the_log_odds_of_the_chosen_pairs(batch_size, bias):
    cell = Cell(batch_size=batch_size, loss=Sigmoid(b_init="prior"))
    assert abs(initial_bias(cell) - bias) < 1e-3
    hard = Sigmoid(b_init="prior", pairs=Negatives(keep="hard", per_positive=1.6))
    assert abs(initial_bias(Cell(batch_size=1000, loss=hard)) + np.log(1.6)) < 1e-6


def test_an_unknown_variant_names_those_that_exist():
    with pytest.raises(ValueError, match="unknown tower variant 'XL'; known: mu, nu, Ti"):
        get_variant("XL")


def test_a_product_has_the_gradients_of_a_matrix_product():
    """Of any number of leading axes; its kernel's gradient is written in another order."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, dy = (
        jax.random.normal(k, s) for k, s in zip(keys, ((2, 3, 5), (5, 7), (2, 3, 7)), strict=True)
    )
    got, want = (jax.vjp(f, x, kernel) for f in (product, jnp.matmul))
    for one, expected in zip((got[0], *got[1](dy)), (want[0], *want[1](dy)), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)
