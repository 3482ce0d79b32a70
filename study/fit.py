"""Whether a cell's step fits a slice, by compiling it: the step that `study train` runs.

    python -m study.fit < request.json      (in the environment of `study.aot.run`)

The request names a cell, the sizes that its data set would have, a slice, and the ways to run it,
best first. For each there is a line of JSON that announces it and one that says what the compiler
made of it; the first that fits ends the search. What a compiler's abort leaves is the
announcement.

Nothing here imports jax until a program is compiled, so asking for what is cached is quick.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import re
import signal
import sys
from dataclasses import dataclass
from typing import Any

from study.cell import Cell, Data, Execution, Sigmoid, from_dict, to_dict
from study.durations import Budget
from study.hardware import GIB, slice_of
from study.pairs import Negatives
from study.recipe import Part
from study.sources import sources

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to run a step, as in `Execution`. microbatch: None is the whole batch at once."""

    microbatch: int | None = None
    remat: bool = False
    fsdp_mib: float | None = None

    def of(self, execution: Execution) -> Execution:
        """`execution`, run in this way."""
        return dataclasses.replace(execution, **vars(self))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All that a compiled step depends on but the way to run it.

    cell: without what changes no array and no operation of its step: see `canonical`.
    vocabulary: number of pieces of the tokenizer.
    image_shape: of one example of the data set.
    image_dtype: in which images reach the devices.
    slice: as `study.hardware` names it.
    chunk_examples: see `Execution`.
    """

    cell: Cell
    vocabulary: int
    image_shape: tuple[int, ...]
    image_dtype: str = "float32"
    slice: str
    chunk_examples: int = 8192

    def key(self, setting: Setting) -> str:
        """Names the program: its shape, setting, and what it is made by."""
        what = [self.to_dict(), vars(setting), made_by()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "cell": to_dict(self.cell)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the compiler made of a step on one device of the slice.

    fits: whether it and what is under way beside it have room.
    needed_bytes: of HBM; where the compiler gave up, as it said itself.
    usable_bytes: of HBM.
    batch_bytes: of the examples of a piece; while one is trained on, the next arrives.
    state_bytes: of parameters and optimizer.
    seconds, cpu_seconds: of tracing and compiling, on the machine that compiled.
    aborted: the last line of a compiler that broke off, or "".
    """

    fits: bool
    needed_bytes: int
    usable_bytes: int
    batch_bytes: int = 0
    state_bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    aborted: str = ""

    @property
    def said(self) -> str:
        """In one line."""
        if self.aborted:
            return f"the compiler broke off: {self.aborted}"
        verb = "takes" if self.fits else "needs"
        return f"{verb} {self.needed_bytes / GIB:.1f} of {self.usable_bytes / GIB:.1f} GiB"


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


@functools.cache
def made_by() -> str:
    """The code and the versions that an answer depends on, as a hash.

    The code is this file and all that it imports, down to the step; not what feeds a run, keeps
    its records or draws them, so that an edit there leaves answers as good as they were.
    """
    digest = hashlib.sha256("".join(sources("study.fit").values()).encode())
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
    shape = Shape(
        **{
            **request["shape"],
            "cell": from_dict(request["shape"]["cell"]),
            "image_shape": tuple(request["shape"]["image_shape"]),
        }
    )
    for values in request["settings"]:
        print(json.dumps({"trying": values}), flush=True)
        answer = compiled(shape, Setting(**values))
        print(json.dumps({"setting": values, "answer": vars(answer)}), flush=True)
        if answer.fits:
            return


def compiled(shape: Shape, setting: Setting) -> Answer:
    """Compiles one step for the slice; here and now, so in a process of its own.

    Raises:
      CellError: the cell cannot be laid out on the slice.
    """
    import time

    import jax
    import numpy as np

    from study import aot
    from study.programs import program
    from study.sharding import bytes_per_device, mesh_over
    from study.vocabulary import Vocabulary

    mesh = mesh_over(aot.devices(shape.slice))
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
    state, batch = (bytes_per_device(tree) for tree in made.arguments[:2])
    usable = slice_of(shape.slice).chip.usable_bytes

    def answer(needed: int) -> Answer:
        return Answer(
            fits=needed <= usable,
            needed_bytes=needed,
            usable_bytes=usable,
            batch_bytes=batch,
            state_bytes=state,
            seconds=round(time.perf_counter() - clocks[0], 2),
            cpu_seconds=round(time.process_time() - clocks[1], 2),
        )

    try:
        memory = made.loop.lower(*made.arguments).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return answer(needed_in(str(error), usable) + batch)
    return answer(int(memory.peak_memory_in_bytes) + batch)


def needed_in(said: str, usable: int) -> int:
    """The bytes of HBM that a compiler asked for when it gave up; at least more than there are.

    It names one of them: what the whole program uses, or what its temporaries alone would.
    """
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "": 1}
    number = r"([\d.]+)([KMGT]?)"
    for pattern in (rf"Used {number} of", rf"\({number}\) exceeds available"):
        if found := re.search(pattern, said):
            return max(int(float(found[1]) * unit[found[2]]), usable + 1)
    return usable + 1


if __name__ == "__main__":
    main()
