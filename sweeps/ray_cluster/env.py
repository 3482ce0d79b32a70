"""The environment of processes that train cells, set before they import JAX."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from sweeps.ray_cluster import compile_cache

# Ray starts workers at niceness 15, which halves the speed of training beside other work.
NICENESS = {"RAY_worker_niceness": "0"}

# XLA ends a process of which one device waits 40 s for another. With large batches two of them,
# one slowed by other work, are further apart than that between two exchanges.
_DEVICES = (
    "--xla_force_host_platform_device_count={} "
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=86400 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=86400 "
    "--xla_cpu_collective_timeout_seconds=86400"
)


def platforms(environ: Mapping[str, str] = os.environ) -> str | None:
    """What JAX is to run on, or None where it should look itself.

    On a machine without an accelerator it is told so: it would look for a TPU wherever libtpu, the
    compiler that the tests use, is installed, and say much about finding none.
    """
    asked = environ.get("JAX_PLATFORMS")
    return asked or (None if gpus(environ) or has_tpu() else "cpu")


def environment(environ: Mapping[str, str] = os.environ, *, cores: int = 1) -> dict[str, str]:
    """What a process that trains a cell finds in its environment, set before it imports JAX.

    One thread a cell, or a device: a sweep keeps the cores busy with cells, and the order of sums,
    and so the last bit of a result, does not depend on how many cores there are.

    cores: of the CPU, each of them a device.
    """
    flags = environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if cores > 1:
        flags = f"{flags} {_DEVICES.format(cores)}"
    settings = {
        **NICENESS,
        "XLA_FLAGS": flags,
        # Of XLA's thread pool; the flag alone leaves it at all cores. Programs of several devices
        # leave one another work in it, which piles up, 10 kB for each tile of logits, while each
        # thread is busy with a program of its own: one thread more takes it away.
        "NPROC": str(cores + 1 if cores > 1 else 1),
        "OMP_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compile_cache.folder(environ)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if platform := platforms(environ):
        settings["JAX_PLATFORMS"] = platform
    wandb = {k: v for k, v in environ.items() if k.startswith("WANDB_") and "KEY" not in k}
    return settings | wandb


def gang_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process on a slice finds beside what its host says: how many threads and which
    devices are the host's business, not the driver's."""
    kept = (*NICENESS, "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_", "WANDB_")
    return {k: v for k, v in environment(environ).items() if k.startswith(kept)}


def gpus(environ: Mapping[str, str] = os.environ) -> int:
    """The GPUs that JAX can use here, told without importing it."""
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        return 0
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, len([v for v in visible.split(",") if v]))


def has_tpu() -> bool:
    """Whether this host has TPU chips and the library for them."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return importlib.util.find_spec("libtpu") is not None and bool(chips)


def local_workers(cores: int) -> int:
    """How many workers a machine of `cores` cores runs: one for each GPU or TPU host, else core."""
    if has_tpu():
        return 1
    return min(cores, gpus() or cores)
