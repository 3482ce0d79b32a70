"""Where arrays lie changes nothing: cut or whole, on one device, in one slice or in two."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from study.cell import (
    Adafactor,
    Cell,
    Execution,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.durations import Budget
from study.pairs import Groups, Negatives
from study.programs import compiled, initial
from study.sharding import by_row
from tests.study.reference import mesh_of

VOCABULARY, IMAGE, STEPS = 64, (12, 12, 1), 4
CELL = Cell(
    model=Model(
        image=ViT(variant="mu/6", depth=2, image_size=12),
        text=TextTransformer(variant="mu", depth=2),
        embed_dim=32,
    ),
    optimizer=Adafactor(learning_rate=3e-3, factor_from=8),
    batch_size=16,
    budget=Budget(steps=STEPS),
)
# Small enough that every matrix is cut.
CUT = Execution(fsdp_mib=0.001)
WHOLE = Execution()


def batches(cell):
    rng = np.random.default_rng(0)
    size = (STEPS, cell.batch_size)
    image = rng.normal(size=(*size, *IMAGE)).astype(np.float32)
    text = rng.integers(2, VOCABULARY, size=(*size, cell.data.text_length)).astype(np.int32)
    return {"image": image, "text": text}


@functools.cache
def trained(cell, execution, mesh):
    """The state after `STEPS` steps on this mesh, and the last step's metrics."""
    loop, _ = compiled(cell, execution, VOCABULARY, IMAGE, mesh)
    state = initial(cell, execution, VOCABULARY, IMAGE, mesh)
    placed = {k: jax.device_put(a, by_row(mesh, leading=1)) for k, a in batches(cell).items()}
    return loop(state, placed, np.int32(STEPS))


def assert_same(got, want, tolerance=2e-4):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-1), path


def cut_leaves(tree):
    return [a for a in jax.tree.leaves(tree) if not a.sharding.is_fully_replicated]


@pytest.mark.parametrize(
    "loss",
    [
        Sigmoid(),
        Softmax(),
        Sigmoid(pairs=Negatives(keep="hard", per_positive=3)),
        Sigmoid(pairs=Groups(size=4)),
    ],
    ids=["sigmoid", "softmax", "hard", "groups"],
)
@pytest.mark.parametrize(("execution", "shape"), [(CUT, (1, 8)), (CUT, (2, 4)), (WHOLE, (2, 4))])
def test_a_run_is_the_same_wherever_its_arrays_lie(execution, shape, loss):
    """Parameters, optimizer state and every metric after some steps, by the paper's optimizer."""
    cell = dataclasses.replace(CELL, loss=loss)
    state, metrics = trained(cell, execution, mesh_of(*shape))
    one, one_metrics = trained(cell, WHOLE, mesh_of(1, 1))
    assert bool(cut_leaves(state)) == (execution is CUT)
    assert_same(state, one)
    assert_same(metrics, one_metrics)
