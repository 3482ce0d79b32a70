"""Exact micro-batching: the whole batch's loss and gradients, whatever the towers see at once."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from study.cell import Cell, CellError, Model, Sigmoid, Softmax, TextTransformer, ViT, replace
from study.microbatch import GIB, fitting, memory
from study.step import initial_state, make_gradients
from study.vocabulary import Vocabulary
from tests.study.reference import mesh_of

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
    return gradients(cell(Sigmoid()), batch_of(24))


@pytest.mark.parametrize("microbatch", [5, 99])
def test_gradients_of_all_parameters_are_the_whole_batchs(microbatch, whole):
    """No divisor, and more than all; t and b are among the parameters."""
    assert {"t", "b"} <= set(whole[1])
    assert_close(gradients(cell(Sigmoid()), batch_of(24), microbatch=microbatch), whole)


def test_microbatches_serve_the_softmax_loss():
    want = gradients(cell(Softmax()), batch_of(24))
    assert_close(gradients(cell(Softmax()), batch_of(24), microbatch=8), want)


def test_dropout_drops_the_same_in_microbatches(whole):
    """Masks are functions of the example, so splitting the batch does not redraw them."""
    c = replace(cell(Sigmoid()), "model.image.dropout", 0.3)
    c = replace(c, "model.text.dropout", 0.2)
    want = gradients(c, batch_of(24))
    assert_close(gradients(c, batch_of(24), microbatch=5), want)
    assert abs(float(want[0]) - float(whole[0])) > 1e-3


def test_microbatches_on_devices_give_the_whole_batchs_gradients(whole):
    mesh = mesh_of(8)
    spread = jax.device_put(batch_of(24), NamedSharding(mesh, P(mesh.axis_names)))
    assert_close(gradients(cell(Sigmoid()), spread, mesh, 2), whole)


class Compiled(NamedTuple):
    """A compiled step as far as `fitting` looks at it: 1 GiB, and 1 GiB per 16 examples."""

    microbatch: int | None

    def memory_analysis(self):
        temporary = GIB // 16 * (self.microbatch or 512)
        return SimpleNamespace(
            argument_size_in_bytes=GIB,
            output_size_in_bytes=GIB,
            alias_size_in_bytes=GIB,
            temp_size_in_bytes=temporary,
        )


@pytest.mark.parametrize(
    ("gib", "microbatch"), [(33, None), (32, 256), (17, 256), (16, 128), (2.5, 16), (1.07, 1)]
)
def test_a_microbatch_is_found_that_fits(gib, microbatch):
    """The largest power of two with which it does, or the whole batch."""
    size, step = fitting(Compiled, 512, gib * GIB)
    assert size == microbatch
    assert memory(step) <= gib * GIB


def test_too_little_memory_is_one_line():
    with pytest.raises(
        CellError, match=r"^memory_gib: the step needs 1\.06 GiB per device with one"
    ):
        fitting(Compiled, 512, GIB)


def test_a_cell_trains_in_microbatches(small_glyphs, tmp_path, monkeypatch):
    """The same record but for rounding."""
    from study.cell import Execution, FixedLoss
    from study.durations import Budget
    from study.train import train

    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    base = Cell(
        batch_size=32,
        model=Model(image=ViT(variant="mu/6"), text=TextTransformer(), embed_dim=32),
        budget=Budget(examples=128),
        evals=(FixedLoss(split="val_font", examples=32, every_percent=100),),
    )
    where = Execution(data_root=str(small_glyphs.parent), wandb=False)
    base = replace(base, "data.dataset", small_glyphs.name)
    ends = []
    for name, more in (("whole", {}), ("parts", {"microbatch": 8})):
        execution = dataclasses.replace(where, **more)
        done = train(base, execution, folder=tmp_path / name, study="s")
        ends.append(done["summary"])
    whole, parts = ends
    np.testing.assert_allclose(parts["train/loss"], whole["train/loss"], rtol=1e-4)
