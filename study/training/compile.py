"""What a run compiles: the loop of steps, and where its arguments lie.

`train` compiles a `Program` for the devices that are there and feeds it, `study plan` compiles it
for slices that are not there, and `study bench step` times it. What is compiled is kept for the
next cell of its family: warm workers compile little.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from study.config.cell import Cell, CellError, Data, Execution
from study.config.vocabulary import Vocabulary
from study.models.sharding import batch_sharding, check_layout, param_shardings, replicated
from study.training.microbatch import (
    GIB,
    CompileResult,
    available_bytes,
    compile_loop,
    find_microbatch,
)
from study.training.step import State, initial_state, make_loop, make_step

PIECE_BYTES = 1 << 30  # of examples on their way to the devices at once


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A loop of steps, jitted, and what it takes: shapes, types and shardings, no array yet.

    loop: see `study.training.step.make_loop`; it takes the state's buffers.
      `loop.lower(*arguments)` compiles it.
    arguments: a `State`, a dict of `image` and `text` with axes (steps, rows, ...), an int32 and a
      bool scalar, of `jax.ShapeDtypeStruct` with shardings.
    """

    loop: Any
    arguments: tuple[
        State, dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct, jax.ShapeDtypeStruct
    ]


def program(
    cell: Cell,
    execution: Execution,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    *,
    image_dtype: Any = np.float32,
    microbatch: int | None = None,
) -> Program:
    """The loop of steps that trains `cell` on `mesh`, whose devices need not be there.

    Arguments:
      vocabulary: of the tokenizer.
      image_shape: of one example: (H, W, C), or (E,) for cached embeddings.
      mesh: see `study.models.sharding.make_mesh`.
      microbatch: the number where `execution.microbatch` is a number or None itself; where that
        is "auto", one to try (see `study.training.microbatch.find_microbatch`).

    Raises:
      CellError: the cell cannot be laid out on the mesh.
    """
    check_layout(cell, execution, mesh)
    piece = steps_per_chunk(cell, execution, image_shape, image_dtype)
    return _program(
        _family(cell),
        vocabulary,
        (piece, image_shape, np.dtype(image_dtype)),
        mesh,
        microbatch if execution.microbatch == "auto" else execution.microbatch,
        execution.remat,
        execution.fsdp_mib,
    )


def compiled(
    cell: Cell,
    execution: Execution,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    *,
    image_dtype: Any = np.float32,
) -> tuple[Any, int | None]:
    """The loop of `program` compiled, and the microbatch if that was to be found.

    Raises:
      CellError: no microbatch fits, the compiler refuses the one that is given because the step
        is too large for a device, or the cell cannot be laid out on the mesh.
    """

    def with_microbatch(size: int | None) -> CompileResult:
        return _compiled(
            program(
                *(cell, execution, vocabulary, image_shape, mesh),
                image_dtype=image_dtype,
                microbatch=size,
            )
        )

    if execution.microbatch != "auto":
        attempt = with_microbatch(None)
        if attempt.executable is None:
            needed = attempt.needed_bytes
            much = "more memory" if needed is None else f"{needed / GIB:.2f} GiB, more"
            raise CellError(
                f"execution.microbatch = {execution.microbatch}: the step needs {much} than a "
                "device has; use --set execution.microbatch=auto"
            )
        return attempt.executable, None
    gib = execution.memory_gib
    rows = cell.batch_size // mesh.size
    size, loop = find_microbatch(
        with_microbatch, rows, available_bytes() if gib is None else gib * GIB
    )
    return loop, size or rows


def initial(
    cell: Cell,
    execution: Execution,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
) -> State:
    """`initial_state` of the cell, made where it will lie."""
    family = _family(cell)
    make = _initial(family, vocabulary, image_shape, mesh, execution.fsdp_mib)
    # As Python's int, JAX would take the seed for 32 bits with a sign.
    state: State = make(np.uint32(cell.seed))
    return state


def abstract_state(
    cell: Cell,
    execution: Execution,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
) -> State:
    """The shapes, types and shardings of the cell's state; takes no memory on the devices."""
    return _state(_family(cell), vocabulary, image_shape, mesh, execution.fsdp_mib)


def steps_per_chunk(
    cell: Cell, execution: Execution, image_shape: tuple[int, ...], image_dtype: Any = np.float32
) -> int:
    """How many batches travel to the devices, and are looped over, at a time."""
    text = cell.data.text_length * np.dtype(np.int32).itemsize
    example = math.prod(image_shape) * np.dtype(image_dtype).itemsize + text
    examples = min(execution.chunk_examples, PIECE_BYTES // example)
    return max(1, min(cell.steps, examples // cell.batch_size))


def _family(cell: Cell) -> Cell:
    """Cells that differ only in seed, data and evaluations share what is compiled."""
    data = Data(text_length=cell.data.text_length)
    return dataclasses.replace(cell, seed=0, evals=(), data=data)


def _state(
    family: Cell,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    fsdp_mib: float | None,
) -> State:
    """Shapes, types and shardings of the state."""
    make = functools.partial(initial_state, family, vocabulary, image_shape)
    shapes = jax.eval_shape(make, jax.ShapeDtypeStruct((), jnp.uint32))
    state: State = jax.tree.map(
        lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
        shapes,
        param_shardings(shapes, mesh, fsdp_mib),
    )
    return state


@functools.lru_cache(maxsize=32)
def _initial(
    family: Cell,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    fsdp_mib: float | None,
) -> Any:
    state = _state(family, vocabulary, image_shape, mesh, fsdp_mib)
    make = functools.partial(initial_state, family, vocabulary, image_shape)
    return jax.jit(make, out_shardings=jax.tree.map(lambda a: a.sharding, state))


@functools.lru_cache(maxsize=32)
def _program(
    family: Cell,
    vocabulary: Vocabulary,
    piece: tuple[int, tuple[int, ...], np.dtype],
    mesh: Mesh,
    microbatch: int | None,
    remat: bool,
    fsdp_mib: float | None,
) -> Program:
    length, image_shape, image_dtype = piece
    state = _state(family, vocabulary, image_shape, mesh, fsdp_mib)
    step = make_step(
        family, vocabulary, mesh, microbatch=microbatch, remat=remat, fsdp_mib=fsdp_mib
    )
    loop = jax.jit(
        make_loop(step),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda a: a.sharding, state), replicated(mesh)),
    )
    rows = batch_sharding(mesh, leading=1)

    def batches(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((length, family.batch_size, *shape), dtype, sharding=rows)

    batch = {
        "image": batches(image_shape, image_dtype),
        "text": batches((family.data.text_length,), np.int32),
    }
    count, first_of_interval = (jax.ShapeDtypeStruct((), t) for t in (np.int32, np.bool_))
    return Program(loop=loop, arguments=(state, batch, count, first_of_interval))


@functools.lru_cache(maxsize=32)
def _compiled(made: Program) -> CompileResult:
    return compile_loop(made.loop, made.arguments)
