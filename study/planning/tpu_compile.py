"""Compiles for TPU slices that are not attached, to find out how much memory a program needs.

libtpu contains the whole compiler, so a machine without a TPU can compile for any slice. It reads
its environment when jax is imported, hence a separate process: `run_python` starts one, and the
code that it runs compiles for `slice_devices` and prints JSON.

    # caller.py
    (result,) = run_python(["my_script.py"], stdin="")
    # my_script.py
    mesh = Mesh(np.array(slice_devices("v4-8")), ("x",))
    x = jax.ShapeDtypeStruct(..., sharding=...)
    print(json.dumps(jax.jit(f).lower(x).compile().memory_analysis()...))

The compiler's FLOPs and seconds are of no use: it counts the body of a loop once, however often
it runs.
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

# JAX itself stays on the CPU, or it would look for a TPU; libtpu does not query the metadata
# server, logs little, and lets several processes load it at once.
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
    """Why a compilation failed, in one line.

    Attributes:
      code: the exit code of the process, negative for a signal; None if it did not start.
    """

    code: int | None = None


def why_unavailable() -> str | None:
    """Why nothing can be compiled for a TPU on this machine, in one line; None if it can."""
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return (
        "libtpu is not installed, so nothing can be compiled for a TPU here: "
        "pip install 'jax[tpu]' (Linux on x86-64 only)"
    )


def run_python(argv: Sequence[str], *, stdin: str) -> Iterator[Any]:
    """Run `python *argv` with the environment to compile for TPUs; yield the JSON lines it prints.

    Lines are yielded as they are printed. The process is killed when the reader stops reading.

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
            output = errors.read().strip().splitlines()
            reason = output[-1].strip() if output else f"exit code {code}"
            error = TpuCompileError(f"compiling for TPU failed: {reason}")
            error.code = code
            raise error


def kill_children() -> None:
    """Kill all processes of `run_python`; their readers get a TpuCompileError."""
    for child in list(_children):
        child.kill()


def environment() -> dict[str, str]:
    """The environment of a process that compiles for TPUs.

    Raises:
      TpuCompileError: libtpu is not installed.
    """
    if reason := why_unavailable():
        raise TpuCompileError(reason)
    # The child imports the same `study`. JAX's cache can only load programs for attached devices.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    return os.environ | ENVIRONMENT | own


def slice_devices(name: str) -> list[Any]:
    """The devices of one or more slices in libtpu's order; none of them is attached.

    Raises:
      TpuCompileError: libtpu is missing, or this is not a process of `run_python`.
      HardwareError: the slice is unknown.
    """
    machine = get_slice(name)
    if reason := why_unavailable():
        raise TpuCompileError(reason)
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        raise TpuCompileError(
            "compiling for TPUs needs a separate process: use study.planning.tpu_compile.run_python"
        )
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        machine.libtpu_topology, platform="tpu", **machine.libtpu_options
    )
    return list(topology.devices)
