"""The compiled training loop of a cell: its shapes, shardings and microbatch.

`train` compiles a `TrainProgram` and runs it, `study plan` compiles it for slices that are not
attached, and `study bench step` times it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from study.config import Cell, CellError, Execution
from study.config.execution import Remat
from study.config.hardware import GIB
from study.config.model import Vocabulary
from study.losses.queue import Queue
from study.models.sharding import (
    batch_sharding,
    bytes_per_device,
    check_layout,
    param_shardings,
    replicated,
)
from study.models.two_towers import initial_scalars
from study.training.compile_key import compile_key, start_key
from study.training.memory import CompileResult, available_bytes, try_compile
from study.training.step import (
    LossFn,
    State,
    batch_loss,
    initial_state,
    make_loop,
    make_step,
    read_numbers,
)

CHUNK_BYTES = 1 << 28  # at most, of the batches that travel to the devices together


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainProgram:
    """A jitted loop of training steps and all that it depends on; build it with `train_program`.

    Nothing is on a device until `init_state`, so the mesh's devices need not be attached.

    Attributes:
      cell: reduced by `compile_key`.
      image_shape: of one example: (H, W, C), or (E,) for cached embeddings.
      mesh: see `study.models.sharding.make_mesh`.
      chunk_steps: batches that travel to the devices, and are looped over, together.
      microbatch, remat, fsdp_min_mib: see `Execution`; microbatch None is the whole batch at once.
      loss_fn: see `study.training.step.make_gradients`.
    """

    cell: Cell
    vocabulary: Vocabulary
    image_shape: tuple[int, ...]
    mesh: Mesh
    chunk_steps: int
    image_dtype: np.dtype[Any]
    microbatch: int | None
    remat: Remat | None
    fsdp_min_mib: float | None
    loss_fn: LossFn

    @property
    def state(self) -> State:
        """Shapes, types and shardings of the state."""
        return self._start.state

    @property
    def shardings(self) -> State:
        """A `NamedSharding` for each array of the state."""
        return self._start.shardings

    @functools.cached_property
    def batches(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and shardings of a chunk: `image`, `text` and, for a loss that compares
        them, `class`; axes (steps, rows, ...)."""
        rows = batch_sharding(self.mesh, leading=1)
        size = (self.chunk_steps, self.cell.batch_size)
        text = (*size, self.cell.data.text_length)
        batches = {
            "image": jax.ShapeDtypeStruct(
                (*size, *self.image_shape), self.image_dtype, sharding=rows
            ),
            "text": jax.ShapeDtypeStruct(text, np.int32, sharding=rows),
        }
        if self.cell.loss.same_by == "class":
            batches["class"] = jax.ShapeDtypeStruct(size, np.int32, sharding=rows)
        return batches

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `loop` takes, as `jax.ShapeDtypeStruct`s."""
        index, first_of_interval = (jax.ShapeDtypeStruct((), t) for t in (np.int32, np.bool_))
        numbers = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), read_numbers(self.cell)
        )
        factor_S = jax.ShapeDtypeStruct((self.chunk_steps,), np.float32)
        return self.state, self.batches, index, index, first_of_interval, numbers, factor_S

    @functools.cached_property
    def loop(self) -> Any:
        """`study.training.step.make_loop`, jitted; it donates the state's buffers."""
        step = make_step(
            self.cell,
            self.vocabulary,
            self.mesh,
            microbatch=self.microbatch,
            remat=self.remat,
            fsdp_min_mib=self.fsdp_min_mib,
            loss_fn=self.loss_fn,
        )
        shardings = self.shardings, replicated(self.mesh)
        return jax.jit(make_loop(self.cell, step), donate_argnums=0, out_shardings=shardings)

    @functools.cached_property
    def compiled(self) -> CompileResult:
        """The compiled loop and its memory; the one account of it, for training and planning."""
        result = try_compile(self.loop, self.arguments)
        if result.needed_bytes is None:
            return result
        # The host sends the next chunk while this one trains.
        return result._replace(needed_bytes=result.needed_bytes + bytes_per_device(self.batches))

    def init_state(self, cell: Cell) -> State:
        """The state of a cell of this program at step 0, on the devices."""
        # JAX would take a Python int for 32 bits with a sign.
        state: State = self._start.initialize(np.uint32(cell.seed), initial_scalars(cell))
        return state

    @functools.cached_property
    def _start(self) -> StartProgram:
        cell = start_key(self.cell)
        return start_program(cell, self.vocabulary, self.image_shape, self.mesh, self.fsdp_min_mib)


class StartProgram(NamedTuple):
    """The state at step 0: its shapes and shardings, and the function that computes it.

    Attributes:
      initialize: jitted, `(seed, study.models.two_towers.initial_scalars(cell)) -> State`.
      arguments: what it takes.
    """

    state: State
    shardings: State
    initialize: Any
    arguments: tuple[Any, ...]


@functools.lru_cache(maxsize=32)
def start_program(
    cell: Cell,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    fsdp_min_mib: float | None,
) -> StartProgram:
    """One for all batch sizes: its program takes as long to compile as a small loop of steps."""
    initialize = functools.partial(initial_state, cell, vocabulary, image_shape)
    scalar = jax.ShapeDtypeStruct((1,), np.float32)
    scalars = dict.fromkeys(initial_scalars(cell), scalar)
    arguments = jax.ShapeDtypeStruct((), np.uint32), scalars
    shapes = jax.eval_shape(initialize, *arguments)
    shardings = param_shardings(shapes, mesh, fsdp_min_mib)
    if shapes.queue is not None:
        queue = jax.tree.map(lambda spec: NamedSharding(mesh, spec), Queue.specs(mesh.axis_names))
        shardings = shardings._replace(queue=queue)
    state = jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    return StartProgram(state, shardings, jax.jit(initialize, out_shardings=shardings), arguments)


def train_program(
    cell: Cell,
    execution: Execution,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    *,
    image_dtype: Any = np.float32,
    loss_fn: LossFn = batch_loss,
) -> TrainProgram:
    """The loop of steps that trains `cell` on `mesh`, with what earlier equal ones compiled.

    Arguments: see `TrainProgram`. For `execution.microbatch` "auto" it has the whole batch at
    once, which `compile_loop` replaces.

    Raises:
      CellError: the cell cannot be laid out on the mesh.
    """
    check_layout(cell, execution, mesh)
    text_bytes = cell.data.text_length * np.dtype(np.int32).itemsize
    example_bytes = math.prod(image_shape) * np.dtype(image_dtype).itemsize + text_bytes
    chunk_examples = min(execution.chunk_examples, CHUNK_BYTES // example_bytes)
    longest = max(1, min(cell.steps, chunk_examples // cell.batch_size))
    return _shared(
        TrainProgram(
            cell=compile_key(cell),
            vocabulary=vocabulary,
            image_shape=image_shape,
            mesh=mesh,
            # The length that pads the last chunk least.
            chunk_steps=min(range(longest, longest // 2, -1), key=lambda k: -cell.steps % k),
            image_dtype=np.dtype(image_dtype),
            microbatch=None if execution.microbatch == "auto" else execution.microbatch,
            remat=execution.remat,
            fsdp_min_mib=execution.fsdp_min_mib,
            loss_fn=loss_fn,
        )
    )


# More than half of the programs of `glyphs` (52), so that two workers compile none twice. One of a
# small cell holds 14 MB; to read one again from the compile cache takes a tenth of compiling it.
@functools.lru_cache(maxsize=32)
def _shared(program: TrainProgram) -> TrainProgram:
    """The first of equal programs, which holds what was compiled: warm workers compile little."""
    return program


def compile_loop(program: TrainProgram, execution: Execution) -> tuple[Any, int | None]:
    """The compiled loop, and the microbatch if `execution` leaves that to a search.

    Raises:
      CellError: no microbatch fits, or the step with the given one is too large for a device.
    """
    if execution.microbatch != "auto":
        executable, needed = program.compiled
        if executable is None:
            much = "more memory" if needed is None else f"{needed / GIB:.2f} GiB, more"
            raise CellError(
                f"execution.microbatch = {execution.microbatch}: the step needs {much} than a "
                "device has; use --set execution.microbatch=auto"
            )
        return executable, None

    def compile_with(microbatch: int | None) -> CompileResult:
        return _shared(dataclasses.replace(program, microbatch=microbatch)).compiled

    gib = execution.memory_gib
    rows = program.cell.batch_size // program.mesh.size
    limit = available_bytes() if gib is None else gib * GIB
    microbatch, executable = find_microbatch(compile_with, rows, limit)
    return executable, microbatch or rows


def find_microbatch(
    compile_with: Callable[[int | None], CompileResult], rows: int, limit: float
) -> tuple[int | None, Any]:
    """A microbatch near the largest with which the step fits, and the compiled step.

    Arguments:
      compile_with: compiles the step with a microbatch (None: all rows at once).
      rows: examples per device.
      limit: bytes per device that the step may need.

    Returns:
      The microbatch (None if the whole batch fits), and the executable.

    Raises:
      CellError: not even one example at a time fits.
    """
    result = compile_with(None)
    if result.fits(limit):
        return None, result.executable
    # At best all memory shrinks with the microbatch, so no larger share of the rows can fit.
    # Parameters and embeddings do not shrink, so halve from there. A refusal may name no number,
    # or one below the limit if the limit is more than the device has.
    share = min(1.0, limit / result.needed_bytes) if result.needed_bytes else 0.5
    size = 1 << max(1, int(rows * share)).bit_length() - 1
    while not (result := compile_with(size)).fits(limit):
        if size == 1:
            break
        size //= 2
    else:
        return size, result.executable
    needed = "too much" if result.needed_bytes is None else f"{result.needed_bytes / GIB:.2f} GiB"
    problem = f"the step needs {needed} per device with one example at a time"
    remedy = "use more devices or a smaller batch_size"
    if result.executable is None:
        raise CellError(f"batch_size: {problem}, and the compiler refuses it; {remedy}")
    raise CellError(
        f"memory_gib: {problem} and {limit / GIB:.2f} are allowed; raise memory_gib, or {remedy}"
    )
