"""Where arrays lie changes nothing: cut or whole, on one device, in one slice or in two."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from study.config import (
    Adafactor,
    Budget,
    Cell,
    CellError,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    ViT,
)
from study.config.model import Vocabulary
from study.config.schedule import schedule
from study.models.sharding import (
    AXES,
    batch_sharding,
    check_layout,
    local_rows,
    make_mesh,
    param_shardings,
)
from study.training.checkpoint import Checkpoints
from study.training.compile import compile_loop, train_program
from study.training.step import read_numbers
from tests.study.losses.reference import mesh_of

VOCABULARY, IMAGE, STEPS = Vocabulary(64, eos=1, pad=1), (12, 12, 1), 4
CELL = Cell(
    model=Model(
        image=ViT(variant="mu/6", depth=2, image_size=12, pool="gap"),
        text=MeanPoolText(width=32),
        embed_dim=32,
    ),
    optimizer=Adafactor(learning_rate=3e-3, min_dim_size_to_factor=8),
    batch_size=16,
    budget=Budget(steps=STEPS),
)
# Small enough that every matrix is cut.
CUT = Execution(fsdp_min_mib=0.001)
WHOLE = Execution()


def batches(cell):
    rng = np.random.default_rng(0)
    size = (STEPS, cell.batch_size)
    image = rng.normal(size=(*size, *IMAGE)).astype(np.float32)
    text = rng.integers(2, VOCABULARY.size, size=(*size, cell.data.text_length)).astype(np.int32)
    return {"image": image, "text": text}


@functools.cache
def trained(cell, execution, mesh):
    """The state after `STEPS` steps on this mesh, and the last step's metrics."""
    program = train_program(cell, execution, VOCABULARY, IMAGE, mesh)
    loop, _ = compile_loop(program, execution)
    state = program.init_state(cell)
    placed = {
        k: jax.device_put(a, batch_sharding(mesh, leading=1)) for k, a in batches(cell).items()
    }
    factor_S = schedule(cell)(np.arange(program.chunk_steps))
    steps = np.int32(0), np.int32(STEPS)
    return loop(state, placed, *steps, np.True_, read_numbers(cell), factor_S)


def assert_same(got, want):
    """Equal but for the rounding of sums, and of what is stored in bfloat16."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        if "key" in str(path) and "bias" in str(path):
            continue  # its gradient is rounding alone, which the optimizer makes a whole step of
        tolerance = 2**-9 if b.dtype == jnp.bfloat16 else 2e-4
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert (np.isnan(a) == np.isnan(b)).all(), path  # a loss without a bias has none to show
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-1), path


def cut_leaves(tree):
    return [a for a in jax.tree.leaves(tree) if not a.sharding.is_fully_replicated]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("execution", "shape", "loss"),
    [(CUT, (2, 4), Sigmoid()), (WHOLE, (2, 4), Softmax())],
    ids=["cut", "whole"],
)
def test_a_run_is_the_same_wherever_its_arrays_lie(execution, shape, loss):
    """Parameters, optimizer state and every metric after some steps, by the paper's optimizer."""
    cell = dataclasses.replace(CELL, loss=loss)
    state, metrics = trained(cell, execution, mesh_of(*shape))
    one, one_metrics = trained(cell, WHOLE, mesh_of(1, 1))
    assert bool(cut_leaves(state)) == (execution is CUT)
    assert_same(state, one)
    assert_same(metrics, one_metrics)


@pytest.mark.slow
def test_a_checkpoint_of_cut_parameters_is_restored_whole_and_back(tmp_path):
    state, _ = trained(CELL, CUT, mesh_of(2, 4))
    whole_like = train_program(CELL, WHOLE, VOCABULARY, IMAGE, mesh_of(1, 1)).state
    cut_like = train_program(CELL, CUT, VOCABULARY, IMAGE, mesh_of(2, 4)).state
    written = state
    for folder, like in (("whole", whole_like), ("cut", cut_like)):
        checkpoints = Checkpoints(tmp_path / folder)
        checkpoints.save(STEPS, written)
        checkpoints.close()
        checkpoints = Checkpoints(tmp_path / folder)
        written = checkpoints.restore(like).state
        checkpoints.close()
        jax.tree.map(np.testing.assert_array_equal, written, state)
        got, want = (jax.tree.map(lambda a: a.sharding, tree) for tree in (written, like))
        assert got == want


@pytest.mark.parametrize(
    ("shape", "fsdp_min_mib", "spec"),
    [
        ((512, 1024), 1.0, P(None, "data")),
        ((1024, 512), 1.0, P("data")),
        ((12, 256, 256), 1.0, P(None, None, "data")),  # the last of equals
        ((1022, 512), 1.0, P(None, "data")),  # the longest cannot be cut evenly
        ((1022, 513), 1.0, P()),
        ((512, 1024), 2.1, P()),
        ((), 0.0, P()),
        ((512, 1024), None, P()),
    ],
)
def test_which_arrays_are_cut_and_where(shape, fsdp_min_mib, spec):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert param_shardings(leaf, mesh_of(2, 4), fsdp_min_mib).spec == spec


class Device(SimpleNamespace):
    """A device of a slice, by identity as JAX's are."""

    __hash__ = object.__hash__


def test_devices_of_a_slice_are_a_row_of_the_mesh():
    kind = {"platform": "cpu", "device_kind": "cpu", "process_index": 0}
    devices = [Device(id=k, slice_index=k % 2, **kind) for k in range(8)]
    mesh = make_mesh(devices)
    assert mesh.axis_names == AXES
    assert [[d.id for d in row] for row in mesh.devices] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert make_mesh(jax.devices()).devices.shape == (1, 8)


def test_a_process_reads_the_rows_of_its_devices_which_need_not_be_neighbours():
    devices = [SimpleNamespace(process_index=k) for k in (0, 1, 1, 0)]
    mesh = SimpleNamespace(devices=np.array(devices).reshape(2, 2), size=4)
    assert local_rows(mesh, 8).tolist() == [0, 1, 6, 7]


@pytest.mark.parametrize(
    ("cell", "execution", "shape", "words"),
    [
        ({"batch_size": 20}, WHOLE, (2, 4), "batch_size: 20 cannot be spread evenly over 8 dev"),
        ({}, CUT, (1, 1), r"execution.fsdp_min_mib: 0.001 shards .* leave it out"),
        ({}, CUT, (4, 1), r"execution.fsdp_min_mib: .* only one"),
        (
            {},
            dataclasses.replace(WHOLE, memory_gib=4.0),
            (1, 1),
            r"execution.memory_gib: 4 .* set execution.microbatch=auto",
        ),
    ],
)
def test_what_cannot_be_laid_out_is_one_line(cell, execution, shape, words):
    with pytest.raises(CellError, match=words) as why:
        check_layout(dataclasses.replace(CELL, **cell), execution, mesh_of(*shape))
    assert "\n" not in str(why.value)


def test_a_program_needs_no_devices_and_says_where_everything_lies():
    made = train_program(CELL, CUT, VOCABULARY, IMAGE, mesh_of(2, 4))
    state, batch, *scalars, numbers, factor_S = made.arguments
    assert (batch["image"].shape, batch["text"].shape) == ((4, 16, *IMAGE), (4, 16, 16))
    assert batch["image"].sharding.spec == P(None, AXES)
    assert {a.shape for a in jax.tree.leaves((scalars, numbers.rates))} == {()}
    assert (numbers.keep_2.shape, factor_S.shape) == ((2,), (4,))
    assert cut_leaves(state.params)
    assert cut_leaves(state.opt_state)
