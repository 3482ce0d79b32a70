"""Counted parameters are those of the model that is built."""

from __future__ import annotations

import jax
import pytest

from study.config import (
    CachedImage,
    Cell,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.model import Vocabulary
from study.models.parameters import count_parameters
from study.training.step import initial_state

CELLS = {
    "map": Model(),
    "tok, head": Model(image=ViT(pool="tok", head="always", variant="Ti/4"), embed_dim=64),
    "sincos2d, gap": Model(image=ViT(pool="gap", posemb="sincos2d", depth=2)),
    "bottleneck": Model(text=TextTransformer(bottleneck=8, depth=3)),
    "cached": Model(image=CachedImage(embeddings="e", dim=16), text=MeanPoolText(), embed_dim=16),
    "narrow average": Model(text=MeanPoolText(width=24, bottleneck=3)),
}


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        *((model, Sigmoid()) for model in CELLS.values()),
        (CELLS["cached"], Sigmoid(b_init=None)),
        (CELLS["cached"], Softmax()),
    ],
)
def test_counted_parameters_are_those_of_the_built_model(model, loss):
    cell = Cell(model=model, loss=loss, batch_size=16)
    image = model.image
    shape = (image.dim,) if isinstance(image, CachedImage) else (image.image_size,) * 2 + (3,)
    params = jax.eval_shape(
        lambda: initial_state(cell, Vocabulary(50, eos=1, pad=1), shape, 0)
    ).params
    assert count_parameters(cell, 50) == sum(a.size for a in jax.tree.leaves(params))
