"""Whether a cell fits a slice: compiles its training step and its evaluation for it.

    python -m study.planning.fits < request.json

in the environment of `study.planning.tpu_compile.environment`. The request holds a `ProgramSpec`
and a list of `RunSetting`s, best first. For each, one line of JSON announces the attempt and one
gives its `FitReport`; the first that fits ends the process. If the compiler aborts, the last
announcement says on which setting.

jax is imported only to compile, so that looking up cached reports is quick.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from study.config import Budget, Cell, Data, Execution, Softmax, from_dict, to_dict
from study.config.execution import Remat
from study.config.hardware import GIB, get_slice

if TYPE_CHECKING:
    from study.training.compile import TrainProgram
    from study.training.step import LossFn

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
# The code that makes a step.
_ROOMS = ("config", "losses", "models", "planning", "training", "errors.py", "rng.py")
_LIBRARIES = ("jax", "jaxlib", "libtpu", "flax", "optax")


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """How a step runs, as in `Execution`. microbatch: None is the whole batch at once."""

    microbatch: int | None = None
    remat: Remat | None = None
    fsdp_min_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProgramSpec:
    """All that a compiled program depends on apart from its `RunSetting`.

    Attributes:
      program: the loop of training steps, or both towers on a batch of an evaluation.
      cell: reduced to what changes the program, by `study.training.compile_key.memory_key` or
        `evaluation_of`.
      vocabulary: number of pieces of the tokenizer.
      image_shape: of one example of the data set.
      slice: its name, see `study.config.hardware`.
      chunk_examples: see `Execution`.
    """

    program: Literal["step", "evaluation"] = "step"
    cell: Cell
    vocabulary: int
    image_shape: tuple[int, ...]
    slice: str
    chunk_examples: int = 8192

    def key(self, setting: RunSetting) -> str:
        """A hash of the program, its setting, and the code and libraries that make it."""
        parts = [self.to_dict(), vars(setting), code_hash()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "cell": to_dict(self.cell)}


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """The memory that a run needs on one device of the slice, by the compiler's account.

    Attributes:
      usable_bytes: of HBM.
      step_bytes: of the compiled loop with its arguments, its results and the next chunk of
        batches; if the compiler refused it, what it asked for.
      batch_bytes: of one chunk of batches.
      state_bytes: of parameters and optimizer.
      copied_bytes: of parts of the state, copied on the device while a checkpoint is saved.
      evaluation_bytes: of a batch of an evaluation with its activations and embeddings, in
        addition to the parameters; 0 if that is known to be less than the step needs.
      seconds, cpu_seconds: of tracing and compiling, on the machine that compiled.
      aborted: the last line of a compiler that crashed, or "".
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
    def phases(self) -> dict[str, int]:
        """Bytes in use during each phase of a run.

        Evaluations and checkpoints come between loops: the step's temporaries are free, and the
        batches of the last loop are not. A restart restores the state alone, which needs less.
        """
        between = self.state_bytes + self.batch_bytes
        return {
            "the training step": self.step_bytes,
            "saving a checkpoint": between + self.copied_bytes,
            "evaluation": between + self.evaluation_bytes,
        }

    @property
    def largest_phase(self) -> str:
        """The phase of a run that needs the most memory."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def needed_bytes(self) -> int:
        """Of HBM, in the largest phase of a run."""
        return max(self.phases.values())

    @property
    def fits(self) -> bool:
        return not self.aborted and self.needed_bytes <= self.usable_bytes

    @property
    def summary(self) -> str:
        """One line: how much memory is needed, and in which phase unless it is the step."""
        if self.aborted:
            return f"the compiler crashed: {self.aborted}"
        phase = self.largest_phase
        line = f"{self.needed_bytes / GIB:.1f} of {self.usable_bytes / GIB:.1f} GiB"
        if self.fits:
            return f"takes {line}" + ("" if phase == "the training step" else f" for {phase}")
        hint = "; lower execution.eval_batch_size" if phase == "evaluation" else ""
        return f"needs {line} for {phase}{hint}"

    def with_evaluation(self, evaluation: FitReport) -> FitReport:
        """This report for a step, with the evaluation of the same cell included."""
        return dataclasses.replace(
            self,
            evaluation_bytes=evaluation.evaluation_bytes,
            aborted=self.aborted or evaluation.aborted,
        )


def evaluation_of(spec: ProgramSpec, rows: int) -> ProgramSpec:
    """The towers that evaluate the cell of a step, on `rows` images or texts at a time.

    Batch size, loss and optimizer do not enter, so cells with the same towers share it.
    """
    devices = get_slice(spec.slice).devices
    return dataclasses.replace(
        spec,
        program="evaluation",
        cell=Cell(
            model=dataclasses.replace(spec.cell.model, init=None),
            data=Data(text_length=spec.cell.data.text_length),
            loss=Softmax(),
            budget=Budget(steps=1),
            batch_size=max(2, -(-rows // devices) * devices),
        ),
        chunk_examples=1,
    )


@functools.cache
def code_hash() -> str:
    """A hash of all that a report depends on apart from its program: our code and libraries.

    The code is whole rooms, so a comment that changes there also invalidates cached reports.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted([*(package / room).rglob("*.py")] or [package / room]):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    for library in _LIBRARIES:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        digest.update(f"{library} {version}\n".encode())
    return digest.hexdigest()


# --- in the child process ------------------------------------------------------------------------


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; a busy compiler handles no signals.

    Linux only, as libtpu is.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    end_with_parent()
    request = json.loads(sys.stdin.read())
    spec = ProgramSpec(
        **{
            **request["spec"],
            "cell": from_dict(request["spec"]["cell"]),
            "image_shape": tuple(request["spec"]["image_shape"]),
        }
    )
    for values in request["settings"]:
        print(json.dumps({"trying": values}), flush=True)
        report = compile_report(spec, RunSetting(**values))
        print(json.dumps({"setting": values, "report": vars(report)}), flush=True)
        if report.fits:
            return


def compile_report(
    spec: ProgramSpec, setting: RunSetting, *, loss_fn: LossFn | None = None
) -> FitReport:
    """Compile one program for the slice, in this process (see `study.planning.tpu_compile`).

    Arguments:
      loss_fn: of the training step, see `study.training.step.make_gradients`; None is the cell's.

    Raises:
      CellError: the cell cannot be laid out on the slice.
    """
    import time

    import numpy as np

    from study.config.model import CachedImage, Vocabulary
    from study.models.sharding import bytes_per_device, make_mesh
    from study.planning.tpu_compile import slice_devices
    from study.training.compile import train_program
    from study.training.step import batch_loss

    start, cpu_start = time.perf_counter(), time.process_time()
    execution = Execution(slice=spec.slice, chunk_examples=spec.chunk_examples)
    program = train_program(
        spec.cell,
        dataclasses.replace(execution, **vars(setting)),
        # The ids that end and pad a text change no array and no operation.
        Vocabulary(spec.vocabulary, eos=1, pad=1),
        spec.image_shape,
        make_mesh(slice_devices(spec.slice)),
        # As `study data embed` stores embeddings, and `study.data.sources` pixels.
        image_dtype=np.float16 if isinstance(spec.cell.model.image, CachedImage) else np.uint8,
        loss_fn=loss_fn or batch_loss,
    )
    usable = get_slice(spec.slice).chip.usable_bytes
    if spec.program == "evaluation":
        report = FitReport(usable_bytes=usable, evaluation_bytes=_evaluation_bytes(program, usable))
    else:
        result = program.compiled
        step_bytes = result.needed_bytes or 0
        if result.executable is None:  # too large, whatever number the compiler names
            step_bytes = max(step_bytes, usable + 1)
        report = FitReport(
            usable_bytes=usable,
            step_bytes=step_bytes,
            batch_bytes=bytes_per_device(program.batches),
            state_bytes=bytes_per_device(program.state),
            copied_bytes=checkpoint_copy_bytes(program.state),
        )
    return dataclasses.replace(
        report,
        seconds=round(time.perf_counter() - start, 2),
        cpu_seconds=round(time.process_time() - cpu_start, 2),
    )


def checkpoint_copy_bytes(state: Any) -> int:
    """Bytes per device of the slices of `state` that Orbax copies there while it saves.

    Each of n devices that hold the same array sends an n-th of it to the host, and slices it on
    the device first, all arrays at once. An array without an axis divisible by n is sent whole by
    one device, without a copy.

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


def _evaluation_bytes(program: TrainProgram, usable: int) -> int:
    """Bytes per device to embed one of the program's batches, in addition to its parameters."""
    import jax

    from study.models.embed import jit_towers
    from study.models.sharding import batch_sharding, bytes_per_device
    from study.training.memory import try_compile

    cell, mesh = program.cell, program.mesh
    towers = jit_towers(cell.model, cell.data, program.vocabulary, mesh)
    needed = 0
    for name in ("image", "text"):
        chunk = program.batches[name]
        batch = jax.ShapeDtypeStruct(chunk.shape[1:], chunk.dtype, sharding=batch_sharding(mesh))
        result = try_compile(towers[name], (program.state.params, batch))
        if result.executable is None or result.needed_bytes is None:
            return max(result.needed_bytes or 0, usable + 1)
        # The parameters of this tower are part of the state.
        arguments = result.executable.memory_analysis().argument_size_in_bytes
        needed = max(needed, result.needed_bytes - arguments + bytes_per_device(batch))
    return needed


if __name__ == "__main__":
    main()
