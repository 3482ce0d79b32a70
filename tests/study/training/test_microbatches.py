"""Exact micro-batching: the loss and gradients of the whole batch, for every size of the parts."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from study.config import (
    Budget,
    CachedImage,
    Cell,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ValLoss,
    ViT,
    replace,
)
from study.config.model import Vocabulary
from study.losses import ring
from study.training.loop import train
from study.training.step import initial_state, make_gradients
from tests.study.losses.reference import mesh_of

VOCABULARY, IMAGE = Vocabulary(50, eos=1, pad=1), (12, 12, 1)


def cell(loss, batch_size=24) -> Cell:
    model = Model(image=ViT(variant="mu/6", image_size=12), text=TextTransformer(), embed_dim=32)
    return Cell(model=model, loss=loss, batch_size=batch_size)


def batch_of(size: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(size, *IMAGE)).astype(np.float32)
    text = rng.integers(1, VOCABULARY.size, size=(size, 16)).astype(np.int32)
    return {"image": jnp.asarray(image), "text": jnp.asarray(text)}


def gradients(cell: Cell, batch, mesh=None, microbatch=None):
    params = initial_state(cell, VOCABULARY, IMAGE, 0).params
    fn = jax.jit(make_gradients(cell, VOCABULARY, mesh, microbatch=microbatch))
    (loss, _), grads = fn(params, batch, jnp.uint32(5))
    return loss, grads


def assert_close(got, want, tolerance=1e-5):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-2), path


@pytest.fixture(scope="module")
def whole():
    return gradients(DROPPING, batch_of(24))


# Masks are functions of the example, so splitting the batch must not redraw them.
DROPPING = replace(cell(Sigmoid()), "model.image.dropout", 0.3)
DROPPING = replace(DROPPING, "model.text.dropout", 0.2)


@pytest.mark.parametrize("microbatch", [5, 99])
def test_gradients_of_all_parameters_are_the_whole_batchs(microbatch, whole):
    """For a size that does not divide the batch and one beyond it; t and b are included."""
    assert {"t", "b"} <= set(whole[1])
    assert_close(gradients(DROPPING, batch_of(24), microbatch=microbatch), whole)


def test_microbatches_on_devices_give_the_whole_batchs_gradients(whole):
    mesh = mesh_of(8)
    spread = jax.device_put(batch_of(24), NamedSharding(mesh, P(mesh.axis_names)))
    assert_close(gradients(DROPPING, spread, mesh, 2), whole)


def test_microbatches_serve_the_softmax_loss():
    image = ViT(variant="mu/6", image_size=12, depth=1, pool="gap")
    model = Model(image=image, text=MeanPoolText(width=16), embed_dim=32)
    cheap = Cell(model=model, loss=Softmax(), batch_size=24)
    want = gradients(cheap, batch_of(24))
    assert_close(gradients(cheap, batch_of(24), microbatch=8), want)


def test_a_cell_trains_in_microbatches(small_glyphs, tmp_path, monkeypatch):
    """The same record but for rounding."""
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    base = Cell(
        batch_size=32,
        model=Model(image=ViT(variant="mu/12", pool="gap"), text=MeanPoolText(), embed_dim=32),
        budget=Budget(examples=128),
        evals=(ValLoss(split="val_font", examples=32, every_percent=100),),
    )
    where = Execution(data_root=str(small_glyphs.parent), wandb=False)
    base = replace(base, "data.dataset", small_glyphs.name)
    ends = []
    for name, more in (("whole", {}), ("parts", {"microbatch": 8})):
        execution = dataclasses.replace(where, **more)
        done = train(base, execution, folder=tmp_path / name, group="s")
        ends.append(done["summary"])
    whole, parts = ends
    np.testing.assert_allclose(parts["train/loss"], whole["train/loss"], rtol=1e-4)


@pytest.mark.parametrize(("gathered_bytes", "texts", "sums"), [(0, 2, 2), (2**20, 1, 0)])
def test_a_bfloat16_model_sends_bfloat16_texts(gathered_bytes, texts, sums, monkeypatch):
    """Round the ring, where float32 sums of their gradients also travel, or gathered."""
    monkeypatch.setattr(ring, "GATHERED_BYTES", gathered_bytes)
    image = CachedImage(embeddings="z", dim=32)
    exact = Cell(model=Model(image=image, text=MeanPoolText(width=8), embed_dim=32), batch_size=24)
    batch = {"image": jnp.zeros((24, 32)), "text": jnp.ones((24, 16), jnp.int32)}
    pattern = r'stablehlo.(?:collective_permute|all_gather)".*: \(tensor<3x32x(\w+)>\)'

    def lower(cell: Cell) -> tuple[Counter[str], set[str]]:
        params = jax.eval_shape(lambda: initial_state(cell, VOCABULARY, (32,), 0).params)
        step = jax.jit(make_gradients(cell, VOCABULARY, mesh_of(8), microbatch=2))
        lowered = step.lower(params, batch, jnp.uint32(5))
        sent = Counter(re.findall(pattern, lowered.as_text()))
        return sent, {str(x.dtype) for x in jax.tree.leaves(lowered.out_info)}

    # The second set: the loss, its statistics and all gradients.
    assert lower(exact) == (Counter(f32=texts + sums), {"float32"})
    rough = replace(exact, "model.dtype", "bfloat16")
    assert lower(rough) == (Counter(bf16=texts, f32=sums), {"float32"})
