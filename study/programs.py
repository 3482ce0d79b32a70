"""What a run compiles, kept for the next cell of its family: warm workers compile little."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from study.cell import Cell, Data, Execution
from study.microbatch import GIB, fitting, room
from study.step import compiled_loop, initial_state, make_step


def initial(cell: Cell, vocabulary: int, image_shape: tuple[int, ...]) -> Any:
    """`initial_state` of the cell on the default device."""
    return _initial(_family(cell), vocabulary, image_shape)(cell.seed)


def loop_of_steps(
    cell: Cell, execution: Execution, vocabulary: int, state: Any, batches: Any, mesh: Mesh | None
) -> tuple[Any, int | None]:
    """`compiled_loop` for arrays like these, and the microbatch if it was to be found.

    Raises:
      CellError: no microbatch fits.
    """

    def compiled(microbatch: int | None) -> Any:
        like = _abstract(state), _abstract(batches)
        return _loop(_family(cell), vocabulary, *like, mesh, microbatch, execution.remat)

    if execution.microbatch != "auto":
        return compiled(execution.microbatch), None
    gib = execution.memory_gib
    rows = cell.batch_size // (1 if mesh is None else mesh.size)
    size, loop = fitting(compiled, rows, room() if gib is None else gib * GIB)
    return loop, size or rows


def _family(cell: Cell) -> Cell:
    """Cells that differ only in seed, data and evaluations share what is compiled."""
    data = Data(text_length=cell.data.text_length)
    return dataclasses.replace(cell, seed=0, evals=(), data=data)


def _abstract(tree: Any) -> _Abstract:
    """Shapes, types and shardings, in a form that can be a cache key."""
    leaves, structure = jax.tree.flatten(tree)
    specs = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for a in leaves)
    return _Abstract(specs, structure)


class _Abstract(tuple):
    """Abstract leaves and the structure that they fill."""

    def __new__(cls, specs: Any, structure: Any) -> _Abstract:
        return super().__new__(cls, (specs, structure))

    @property
    def tree(self) -> Any:
        return jax.tree.unflatten(self[1], self[0])


@functools.lru_cache(maxsize=32)
def _initial(family: Cell, vocabulary: int, image_shape: tuple[int, ...]) -> Any:
    return jax.jit(lambda seed: initial_state(family, vocabulary, image_shape, seed))


@functools.lru_cache(maxsize=32)
def _loop(
    family: Cell,
    vocabulary: int,
    state: _Abstract,
    batch: _Abstract,
    mesh: Mesh | None,
    microbatch: int | None,
    remat: bool,
) -> Any:
    step = make_step(family, vocabulary, mesh, microbatch=microbatch, remat=remat)
    return compiled_loop(step, state.tree, batch.tree, mesh)
