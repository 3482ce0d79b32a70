"""Counted operations are those of the compiled step, where a compiler can count them too."""

from __future__ import annotations

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Groups,
    MeanPoolText,
    Model,
    Negatives,
    ParamGroup,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.execution import Remat
from study.config.model import Vocabulary
from study.models import transformer
from study.models.flops import step_flops
from study.training.optimizer import drop_frozen
from study.training.step import initial_state, make_gradients

VOCABULARY = Vocabulary(64, eos=1, pad=1)
VIT = ViT(variant="S/16", image_size=64, depth=2)
SIGLIP = Model(
    image=VIT,
    text=TextTransformer(variant="S", depth=2),
    embed_dim=256,
)


def cell(model=SIGLIP, loss=None, batch_size=16, **more) -> Cell:
    budget = Budget(steps=10)
    return Cell(model=model, loss=loss or Sigmoid(), batch_size=batch_size, budget=budget, **more)


def compiled_flops(cell: Cell, *, microbatch=None, remat=None) -> float:
    """What the compiler counts of the gradients of all that is trained; loops once."""
    image = cell.model.image
    shape = (image.dim,) if isinstance(image, CachedImage) else (image.image_size,) * 2 + (3,)
    state = jax.eval_shape(lambda: initial_state(cell, VOCABULARY, shape, 0))
    batch = {
        "image": jax.ShapeDtypeStruct((cell.batch_size, *shape), jnp.float32),
        "text": jax.ShapeDtypeStruct((cell.batch_size, cell.data.text_length), jnp.int32),
    }
    gradients = make_gradients(cell, VOCABULARY, microbatch=microbatch, remat=remat)

    def trained(*args):
        value, grads = gradients(*args)
        return value, drop_frozen(cell, grads)

    key = jax.ShapeDtypeStruct((), jnp.uint32)
    # No code has to be good here, or the compiler would take most of the time to make it.
    options = {"xla_backend_optimization_level": 0}
    args = (state.params, batch, key, None, state.queue)
    compiled = jax.jit(trained).lower(*args).compile(options)
    return compiled.cost_analysis()["flops"]


@pytest.fixture
def unrolled(monkeypatch):
    """Blocks one after the other instead of in a loop."""
    scan = nn.scan
    monkeypatch.setattr(transformer.nn, "scan", lambda *a, **k: scan(*a, **k, unroll=k["length"]))


MODELS = {
    "map, no head, bottleneck": {
        "model": Model(
            image=ViT(variant="S/16", image_size=64, depth=2),
            text=TextTransformer(variant="S", depth=2, bottleneck=96),
            embed_dim=384,
        )
    },
    "tok": {"model": dataclasses.replace(SIGLIP, image=dataclasses.replace(VIT, pool="tok"))},
    "gap, frozen image": {
        "model": dataclasses.replace(SIGLIP, image=dataclasses.replace(VIT, pool="gap")),
        "optimizer": Adam(image=ParamGroup(frozen=True)),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("change", MODELS.values(), ids=MODELS)
def test_towers_cost_what_the_compiler_counts_of_the_unrolled_model(unrolled, change):
    chosen = cell(**change)
    assert step_flops(chosen).executed == pytest.approx(compiled_flops(chosen), rel=0.02)


@pytest.mark.slow
def test_blocks_computed_again_cost_what_the_compiler_counts_of_the_unrolled_model(unrolled):
    by_policy = {policy: step_flops(cell(), remat=policy) for policy in get_args(Remat)}
    for policy in ("nothing_saveable", "dots_with_no_batch_dims_saveable"):
        compiled = compiled_flops(cell(), remat=policy)
        assert by_policy[policy].executed == pytest.approx(compiled, rel=0.02)
    first, second, third = (f.recompute / f.executed for f in by_policy.values())
    assert first > 0.1 > second > third == 0


AVERAGE = Model(
    image=CachedImage(embeddings="e", dim=512), text=MeanPoolText(width=512), embed_dim=512
)
LOSSES = {
    "sigmoid": Sigmoid(),
    "groups": Sigmoid(pairs=Groups(size=256)),
    "random": Sigmoid(pairs=Negatives(keep="random", per_positive=16)),
    "queue": Sigmoid(queue_examples=512),
    "texts": Sigmoid(same_side="texts"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_cost_what_the_compiler_counts_of_one_tile(loss):
    """At 512 examples all tiles are one, or two of half the side; the loop over groups is one."""
    chosen = cell(AVERAGE, loss, batch_size=512)
    counted = compiled_flops(chosen)
    assert step_flops(chosen).executed == pytest.approx(counted, rel=0.02)


def test_a_bottleneck_of_the_average_costs_what_the_compiler_counts():
    narrow = dataclasses.replace(AVERAGE, text=MeanPoolText(width=512, bottleneck=256))
    chosen = cell(narrow, batch_size=512)
    assert step_flops(chosen).executed == pytest.approx(compiled_flops(chosen), rel=0.02)


def test_the_softmax_meets_every_pair_twice():
    """At 1,024 examples the compiler counts one of two tiles a side, once in each pass."""
    counted = compiled_flops(cell(AVERAGE, Softmax(), batch_size=1024))
    towers = step_flops(cell(AVERAGE, Softmax(), batch_size=1024)).towers
    tile = step_flops(cell(AVERAGE, Softmax(), batch_size=512)).loss
    assert towers + tile == pytest.approx(counted, rel=0.02)


def test_pairs_that_count_are_told_from_pairs_that_are_met():
    """Groups meet fewer; a choice of negatives meets all, the ranked ones several times."""
    every = step_flops(cell(batch_size=64))
    assert every.loss == every.loss_pairs == 6 * 64 * 64 * 256
    groups = step_flops(cell(loss=Sigmoid(pairs=Groups(size=8)), batch_size=64))
    assert groups.loss == groups.loss_pairs == every.loss // 8
    random = step_flops(
        cell(loss=Sigmoid(pairs=Negatives(keep="random", per_positive=1)), batch_size=64)
    )
    assert (random.loss, random.loss_pairs) == (every.loss, every.loss // 32)
    hard = step_flops(
        cell(loss=Sigmoid(pairs=Negatives(keep="hard", per_positive=1)), batch_size=64)
    )
    assert hard.loss > every.loss


@pytest.mark.slow
def test_microbatches_cost_a_second_forward_pass():
    """The compiler counts one of two blocks and one of two microbatches."""
    two = cell(batch_size=32)
    shallow = dataclasses.replace(
        SIGLIP,
        image=dataclasses.replace(SIGLIP.image, depth=1),
        text=dataclasses.replace(SIGLIP.text, depth=1),
    )
    half = step_flops(cell(shallow, batch_size=16), microbatched=True)
    assert half.recompute == half.image + half.text
    counted = compiled_flops(two, microbatch=16)
    assert half.towers + half.recompute + step_flops(two).loss == pytest.approx(counted, rel=0.02)
