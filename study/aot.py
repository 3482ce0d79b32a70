"""Compiling for TPU slices that are not there: does a program compile, and what memory it takes.

libtpu carries the whole compiler, so a machine without a TPU compiles for any slice, in seconds.
It wants its environment before jax is imported, hence a process of its own: `run` starts one, and
what runs in it builds a `mesh` of the slice, says what its arguments look like and calls `report`.

    # here                              # my_script.py
    result = run(["my_script.py"])      x = jax.ShapeDtypeStruct(shape, dtype, sharding=...)
                                        print(json.dumps(report(jax.jit(f), x).as_dict()))

What to believe: memory is the compiler's own layout of HBM, per chip, to which a running program
adds its buffers in flight. The compiler's FLOPs and seconds are left out: it counts the body of a
loop once, however often it runs.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.hardware import slice_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

# Before jax is imported: JAX itself stays on the CPU, or it would look for hardware; libtpu does
# not ask the Cloud for metadata, is quiet, and lets several processes load it at once.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


_children: set[subprocess.Popen[str]] = set()


class AotError(Exception):
    """One line: why nothing is compiled, and how to mend it.

    code: with which the process ended, if it began; below zero the signal that ended it.
    """

    code: int | None = None


class DoesNotFit(AotError):
    """The program needs more memory than a chip of the slice has."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the compiler made of a program: bytes of HBM per chip, and how long it took.

    Attributes:
      argument_bytes, output_bytes, temp_bytes: arguments and results (which may share memory)
        and everything in between.
      peak_bytes: the most that is held at any time.
      seconds: of lowering and compiling, on this machine.
    """

    argument_bytes: int
    output_bytes: int
    temp_bytes: int
    peak_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def missing() -> str | None:
    """Why nothing can be compiled for a TPU here, in one line; None if it can."""
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return (
        "libtpu is not installed, so nothing can be compiled for a TPU here: "
        "pip install 'jax[tpu]' (Linux on x86-64 only)"
    )


def run(argv: Sequence[str], *, timeout_seconds: float = 600.0) -> Any:
    """Runs `python *argv` where it can compile for TPUs: what its last line says, as JSON.

    Raises AotError if libtpu is missing or the process fails.
    """
    done = subprocess.run(
        [sys.executable, *argv],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    if done.returncode:
        raise AotError(f"compiling for TPU failed: {_last(done.stderr, done.returncode)}")
    return json.loads(done.stdout.splitlines()[-1])


def lines(argv: Sequence[str], *, stdin: str) -> Iterator[Any]:
    """Runs `python *argv` as `run` does: each line that it says, as JSON, when it says it.

    The process is ended when the reader stops reading. Raises AotError as `run` does.
    """
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, *argv],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        _children.add(child)
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(stdin)
            child.stdin.close()
            for line in child.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            _children.discard(child)
        if code:
            errors.seek(0)
            error = AotError(f"compiling for TPU failed: {_last(errors.read(), code)}")
            error.code = code
            raise error


def stop() -> None:
    """Ends all processes of `lines`, whose readers are then told so by an AotError."""
    for child in list(_children):
        child.kill()


def environment() -> dict[str, str]:
    """The environment of a process that compiles for TPUs. Raises AotError without libtpu."""
    if reason := missing():
        raise AotError(reason)
    # The same `study` as here, wherever it was imported from; and no cache of jax's, out of which
    # programs can only be loaded for devices that are there.
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    return os.environ | ENVIRONMENT | own


def _last(said: str, code: int) -> str:
    """What a failed process said last, or how it ended."""
    told = [line for line in said.strip().splitlines() if line.strip()]
    return told[-1].strip() if told else f"exit code {code}"


def devices(name: str) -> list[Any]:
    """The devices of a slice, or of several, as libtpu lists them: none of them is here.

    Raises AotError if libtpu is missing or the environment is not `run`'s; HardwareError if there
    is no such slice.
    """
    chosen = slice_of(name)
    if reason := missing():
        raise AotError(reason)
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        raise AotError("compiling for TPUs needs a process of its own: call study.aot.run")
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        chosen.libtpu_topology, platform="tpu", **chosen.libtpu_options
    )
    return list(described.devices)


def mesh(name: str, *, chips: int | None = None) -> Mesh:
    """The devices of a slice in one row, axis "data"; several slices are rows, axis "slice".

    chips: the first so many of a single slice.

    Raises AotError if libtpu is missing or the environment is not `run`'s; HardwareError if there
    is no such slice.
    """
    import numpy as np
    from jax.experimental import mesh_utils
    from jax.sharding import Mesh

    chosen = slice_of(name)
    by_slice: dict[int, list[Any]] = {}
    for device in devices(name):
        by_slice.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    # In the order in which neighbours in a row are neighbours in the torus.
    rows = [mesh_utils.create_device_mesh((len(row),), row) for row in by_slice.values()]
    if len(rows) > 1:
        return Mesh(np.stack(rows), ("slice", "data"))
    last = None if chips is None else chips * chosen.chip.devices
    return Mesh(np.asarray(rows[0])[:last], ("data",))


def report(jitted: Any, *args: Any) -> Report:
    """Compiles a jitted function for the devices that its arguments' shardings name.

    args: as the function's, with a `jax.ShapeDtypeStruct` that has a sharding for each array.

    Raises DoesNotFit if a chip's memory is too small.
    """
    import jax

    begun = time.perf_counter()
    try:
        compiled = jitted.lower(*args).compile()
    except jax.errors.JaxRuntimeError as error:
        text = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in text:
            raise
        said = text.split(" See https:")[0].split("HLO module")[0]
        raise DoesNotFit(f"does not fit a chip: {said.strip()}") from None
    memory = compiled.memory_analysis()
    return Report(
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        seconds=round(time.perf_counter() - begun, 3),
    )
