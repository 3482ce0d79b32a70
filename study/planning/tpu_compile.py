"""Compiles for TPU slices that are not attached, to learn what memory a program takes.

libtpu carries the whole compiler, so a machine without a TPU compiles for any slice, in seconds.
libtpu reads its environment when jax is imported, hence a separate process: `run_python` starts
one, and the code that it runs compiles for `slice_devices` and prints JSON.

    # caller.py
    (result,) = run_python(["my_script.py"], stdin="")
    # my_script.py
    mesh = Mesh(np.array(slice_devices("v4-8")), ("x",))
    x = jax.ShapeDtypeStruct(..., sharding=...)
    print(json.dumps(jax.jit(f).lower(x).compile().memory_analysis()...))

Memory is the compiler's own layout of HBM, per chip, to which a running program adds its buffers
in flight. The compiler's FLOPs and seconds are of no use: it counts the body of a loop once,
however often it runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from study.config.hardware import get_slice
from study.errors import UserError

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


class TpuCompileError(UserError):
    """One line: why nothing is compiled, and how to fix it.

    code: with which the process ended, if it began; below zero the signal that ended it.
    """

    code: int | None = None


def why_unavailable() -> str | None:
    """Why nothing can be compiled for a TPU here, in one line; None if it can."""
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return (
        "libtpu is not installed, so nothing can be compiled for a TPU here: "
        "pip install 'jax[tpu]' (Linux on x86-64 only)"
    )


def run_python(argv: Sequence[str], *, stdin: str) -> Iterator[Any]:
    """Runs `python *argv` where it can compile for TPUs; yields each line of JSON that it prints.

    A line is yielded as soon as it is printed. The process is ended when the reader stops reading.

    Raises:
      TpuCompileError: libtpu is missing, or the process fails.
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
            error = TpuCompileError(f"compiling for TPU failed: {_last(errors.read(), code)}")
            error.code = code
            raise error


def kill_children() -> None:
    """Ends all processes of `run_python`, whose readers are then told so by a TpuCompileError."""
    for child in list(_children):
        child.kill()


def environment() -> dict[str, str]:
    """The environment of a process that compiles for TPUs.

    Raises:
      TpuCompileError: libtpu is not installed.
    """
    if reason := why_unavailable():
        raise TpuCompileError(reason)
    # The same `study` as here, wherever it was imported from; and no cache of jax's, out of which
    # programs can only be loaded for devices that are there.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    return os.environ | ENVIRONMENT | own


def _last(said: str, code: int) -> str:
    """What a failed process said last, or how it ended."""
    told = [line for line in said.strip().splitlines() if line.strip()]
    return told[-1].strip() if told else f"exit code {code}"


def slice_devices(name: str) -> list[Any]:
    """The devices of a slice, or of several, as libtpu lists them; none of them is attached.

    Raises:
      TpuCompileError: libtpu is missing, or the environment is not as `environment` makes it.
      HardwareError: there is no such slice.
    """
    chosen = get_slice(name)
    if reason := why_unavailable():
        raise TpuCompileError(reason)
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        raise TpuCompileError(
            "compiling for TPUs needs a separate process: use study.planning.tpu_compile.run_python"
        )
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        chosen.libtpu_topology, platform="tpu", **chosen.libtpu_options
    )
    return list(described.devices)
