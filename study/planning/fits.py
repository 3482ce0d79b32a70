"""Whether a cell fits a slice, by compiling what it runs there: the step, and its evaluation.

    python -m study.planning.fits < request.json

in the environment of `study.planning.tpu_compile.environment`.

The request names a cell, the sizes that its data set would have, a slice, and the ways to run it,
best first. For each there is a line of JSON that announces it and one with what the compiler made
of it; the first that fits ends the search. What a compiler's abort leaves is the announcement.

Nothing here imports jax until a program is compiled, so asking for what is cached is quick.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from study.config.budget import Budget
from study.config.cell import Cell, Data, Execution, Sigmoid, Softmax, from_dict, to_dict
from study.config.hardware import GIB, get_slice
from study.config.optimizer import Part
from study.config.pairs import Negatives
from study.planning.code_hash import sources

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from study.training.compile import Program

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """A way to run a step, as in `Execution`. microbatch: None is the whole batch at once."""

    microbatch: int | None = None
    remat: bool = False
    fsdp_mib: float | None = None

    def of(self, execution: Execution) -> Execution:
        """`execution`, run in this way."""
        return dataclasses.replace(execution, **vars(self))


@dataclass(frozen=True, kw_only=True)
class ProgramSpec:
    """All that a compiled program depends on but the way to run it.

    program: the loop of training steps, or both towers on a batch of an evaluation.
    cell: without what changes no array and no operation of the program: see `canonical` and
      `evaluation_of`.
    vocabulary: number of pieces of the tokenizer.
    image_shape: of one example of the data set.
    image_dtype: in which images reach the devices.
    slice: as `study.config.hardware` names it.
    chunk_examples: see `Execution`.
    """

    program: Literal["step", "evaluation"] = "step"
    cell: Cell
    vocabulary: int
    image_shape: tuple[int, ...]
    image_dtype: str = "float32"
    slice: str
    chunk_examples: int = 8192

    def key(self, setting: RunSetting) -> str:
        """Names the program: its shape, setting, and what it is made by."""
        what = [self.to_dict(), vars(setting), made_by()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "cell": to_dict(self.cell)}


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a run needs on one device of the slice, by what the compiler made of its programs.

    usable_bytes: of HBM.
    step_bytes: of HBM while steps run: the compiled loop with all that it takes and gives, and
      the next batches on their way; where the compiler refused, what it asked for.
    batch_bytes: of the batches of one loop.
    state_bytes: of parameters and optimizer.
    copied_bytes: of parts of the state, copied on the device while a checkpoint is saved.
    evaluation_bytes: of a batch of an evaluation, its embeddings and all in between, beside the
      parameters; 0 where that is known to stay below the step.
    seconds, cpu_seconds: of tracing and compiling, on the machine that compiled.
    aborted: the last line of a compiler that broke off, or "".
    """

    usable_bytes: int
    step_bytes: int = 0
    batch_bytes: int = 0
    state_bytes: int = 0
    copied_bytes: int = 0
    evaluation_bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    aborted: str = ""

    @property
    def parts(self) -> dict[str, int]:
        """Bytes that are held during each part of a run.

        Evaluations and checkpoints come between loops: the step's temporaries are gone, while
        the batches of the last loop are not. A restart restores the state and nothing beside it,
        which is less than any of these.
        """
        between = self.state_bytes + self.batch_bytes
        return {
            "the training step": self.step_bytes,
            "saving a checkpoint": between + self.copied_bytes,
            "evaluation": between + self.evaluation_bytes,
        }

    @property
    def largest_part(self) -> str:
        """The part of a run that needs the most."""
        return max(self.parts, key=self.parts.__getitem__)

    @property
    def needed_bytes(self) -> int:
        """Of HBM, at the worst moment of a run."""
        return max(self.parts.values())

    @property
    def fits(self) -> bool:
        return not self.aborted and self.needed_bytes <= self.usable_bytes

    @property
    def summary(self) -> str:
        """One line: how much is needed, and for which part of a run where that is of interest."""
        if self.aborted:
            return f"the compiler broke off: {self.aborted}"
        part = self.largest_part
        line = f"{self.needed_bytes / GIB:.1f} of {self.usable_bytes / GIB:.1f} GiB"
        if self.fits:
            return f"takes {line}" + ("" if part == "the training step" else f" for {part}")
        hint = "; lower execution.eval_batch_size" if part == "evaluation" else ""
        return f"needs {line} for {part}{hint}"

    def with_evaluation(self, encoding: FitReport) -> FitReport:
        """This answer for a step, with the evaluation of the same cell counted."""
        return dataclasses.replace(
            self,
            evaluation_bytes=encoding.evaluation_bytes,
            aborted=self.aborted or encoding.aborted,
        )


def canonical(cell: Cell, chunk_examples: int) -> Cell:
    """`cell` with the same arrays and operations, and everything else at one value.

    Seeds, data, evaluations, rates, schedules and durations are constants of the program at most,
    so cells that differ in nothing else share one answer.
    """

    def part(given: Part) -> Part:
        return Part(frozen=given.frozen)

    o, loss = cell.optimizer, cell.loss
    same: dict[str, Any] = {name: part(getattr(o, name)) for name in ("image", "text", "scalars")}
    if hasattr(o, "factor_from"):
        same["factor_from"] = o.factor_from
    optimizer = type(o)(clip_norm=None if o.clip_norm is None else 1.0, **same)
    if isinstance(loss, Sigmoid):
        pairs = loss.pairs
        if isinstance(pairs, Negatives):
            pairs = dataclasses.replace(pairs, per_positive=1.0)
        loss = Sigmoid(b_init=None if loss.b_init is None else -10.0, pairs=pairs)
    else:
        loss = type(loss)()
    # A run shorter than a piece of the feed is one piece; of others the length does not matter.
    steps = min(cell.steps, 1 + chunk_examples // cell.batch_size)
    return Cell(
        model=dataclasses.replace(cell.model, init=None),
        data=Data(text_length=cell.data.text_length),
        loss=loss,
        optimizer=optimizer,
        budget=Budget(steps=steps),
        batch_size=cell.batch_size,
    )


def evaluation_of(shape: ProgramSpec, rows: int) -> ProgramSpec:
    """The towers that evaluate a cell, on `rows` images or texts at a time.

    All cells of a slice with the same towers share it, whatever their batch size, loss and
    optimizer.
    """
    devices = get_slice(shape.slice).devices
    return dataclasses.replace(
        shape,
        program="evaluation",
        cell=Cell(
            model=dataclasses.replace(shape.cell.model, init=None),
            data=Data(text_length=shape.cell.data.text_length),
            loss=Softmax(),
            budget=Budget(steps=1),
            batch_size=max(2, -(-rows // devices) * devices),
        ),
        chunk_examples=1,
    )


@functools.cache
def made_by() -> str:
    """The code and the versions that an answer depends on, as a hash.

    The code is this file and all that it imports, down to the step; not what feeds a run, keeps
    its records or draws them, so that an edit there leaves answers as good as they were.
    """
    digest = hashlib.sha256("".join(sources("study.planning.fits").values()).encode())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)} ".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


# --- in the child ---------------------------------------------------------------------------------


def end_with_parent() -> None:
    """Has the kernel end this process with the one that started it, however that ends: the
    compiler, once it is busy, looks up from its work for no other sign. Linux, as libtpu is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    end_with_parent()
    request = json.loads(sys.stdin.read())
    shape = ProgramSpec(
        **{
            **request["shape"],
            "cell": from_dict(request["shape"]["cell"]),
            "image_shape": tuple(request["shape"]["image_shape"]),
        }
    )
    for values in request["settings"]:
        print(json.dumps({"trying": values}), flush=True)
        answer = compiled(shape, RunSetting(**values))
        print(json.dumps({"setting": values, "answer": vars(answer)}), flush=True)
        if answer.fits:
            return


def compiled(shape: ProgramSpec, setting: RunSetting) -> FitReport:
    """Compiles one program for the slice; here and now, so in a process of its own.

    Raises:
      CellError: the cell cannot be laid out on the slice.
    """
    import time

    import numpy as np

    from study.config.vocabulary import Vocabulary
    from study.models.sharding import make_mesh
    from study.planning import tpu_compile
    from study.training.compile import program

    mesh = make_mesh(tpu_compile.slice_devices(shape.slice))
    execution = Execution(slice=shape.slice, chunk_examples=shape.chunk_examples)
    clocks = time.perf_counter(), time.process_time()
    made = program(
        shape.cell,
        setting.of(execution),
        # Which ids end and fill a text changes no array and no operation.
        Vocabulary(shape.vocabulary, eos=1, pad=1),
        shape.image_shape,
        mesh,
        image_dtype=np.dtype(shape.image_dtype),
    )
    usable = get_slice(shape.slice).chip.usable_bytes
    if shape.program == "evaluation":
        answer = FitReport(
            usable_bytes=usable, evaluation_bytes=_evaluation_bytes(made, shape, mesh, usable)
        )
    else:
        answer = _of_step(made, usable)
    return dataclasses.replace(
        answer,
        seconds=round(time.perf_counter() - clocks[0], 2),
        cpu_seconds=round(time.process_time() - clocks[1], 2),
    )


def _of_step(made: Program, usable: int) -> FitReport:
    from study.models.sharding import bytes_per_device
    from study.training.microbatch import compile_loop

    state, batches, *_ = made.arguments
    attempt = compile_loop(made.loop, made.arguments)
    needed = attempt.needed_bytes or 0
    return FitReport(
        usable_bytes=usable,
        # A refusal stands, whatever number it names.
        step_bytes=max(needed, usable + 1) if attempt.executable is None else needed,
        batch_bytes=bytes_per_device(batches),
        state_bytes=bytes_per_device(state),
        copied_bytes=copied_bytes(state),
    )


def copied_bytes(state: Any) -> int:
    """Bytes per device of the slices of `state` that Orbax makes there while it saves.

    Each of n devices that hold the same array sends an n-th of it to the host, which it cuts out
    on the device first, of all arrays at once; an array that has no axis of a multiple of n is
    sent whole by one of them, without a copy.

    Arguments:
      state: tree of arrays, or of shapes with shardings.
    """
    import jax

    total = 0
    for leaf in jax.tree.leaves(state):
        shard = leaf.sharding.shard_shape(leaf.shape)
        size = math.prod(shard)
        replicas = leaf.sharding.num_devices * size // max(1, math.prod(leaf.shape))
        if replicas > 1 and any(side % replicas == 0 for side in shard):
            total += size * leaf.dtype.itemsize // replicas
    return total


def _evaluation_bytes(made: Program, shape: ProgramSpec, mesh: Mesh, usable: int) -> int:
    """What embedding a batch needs in addition to the parameters, which stay where they are."""
    import jax

    from study.config.vocabulary import Vocabulary
    from study.models.embed import jit_towers
    from study.models.sharding import batch_sharding, bytes_per_device
    from study.training.microbatch import try_to_compile

    vocabulary = Vocabulary(shape.vocabulary, eos=1, pad=1)
    towers = jit_towers(shape.cell.model, shape.cell.data, vocabulary, mesh)
    params, batches = made.arguments[0].params, made.arguments[1]
    needed = 0
    for name in ("image", "text"):
        chunk = batches[name]
        batch = jax.ShapeDtypeStruct(chunk.shape[1:], chunk.dtype, sharding=batch_sharding(mesh))
        attempt = try_to_compile(towers[name], (params, batch))
        if attempt.executable is None:
            return max(attempt.needed_bytes or 0, usable + 1)
        # All but the parameters of this tower, which are among the state's.
        arguments = attempt.executable.memory_analysis().argument_size_in_bytes
        needed = max(needed, attempt.needed_bytes - arguments + bytes_per_device(batch))
    return needed


if __name__ == "__main__":
    main()
