"""Ray, started for one sweep and ended with it, leaving neither noise nor processes.

What was found on Ray 2.60 and is dealt with here: it prints to the terminal whatever
`log_to_driver` says; its two agents outlive a killed driver by more than a minute; a session left
behind keeps its files in the temporary folder for ever.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from study.records.storage import format_error
from sweeps.runner import compile_cache as compiled
from sweeps.study import StudyError

_PREFIX = "study-"
LOCK = "lock"  # held by the process whose folder it is
_LEAST_DISK = 200 * 2**20  # bytes that a session writes at most in logs and sockets, generously
_STORE = 80 * 2**20  # the least that Ray takes; a sweep passes a few kilobytes through it

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
        "XLA_FLAGS": flags,
        # Of XLA's thread pool; the flag alone leaves it at all cores. Programs of several devices
        # leave one another work in it, which piles up, 10 kB for each tile of logits, while each
        # thread is busy with a program of its own: one thread more takes it away.
        "NPROC": str(cores + 1 if cores > 1 else 1),
        "OMP_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled.folder(environ)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if found := platforms(environ):
        settings["JAX_PLATFORMS"] = found
    wandb = {k: v for k, v in environ.items() if k.startswith("WANDB_") and "KEY" not in k}
    return settings | wandb


def gang_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process on a slice finds beside what its host says: how many threads and which
    devices are the host's business, not the driver's."""
    kept = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_", "WANDB_")
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


def slots(parallel: int) -> int:
    """How many cells run at once: one per GPU, one per TPU host, else as many as were asked."""
    if has_tpu():
        return 1
    return min(parallel, gpus() or parallel)


@dataclass(kw_only=True)
class Cluster:
    """A Ray cluster that this process uses: its own, or one that was joined.

    environment: of local cells, where it is not that of all workers.
    """

    ray: Any
    temp: Path | None
    environment: dict[str, str] | None = None
    gpus_per_cell: int = 0
    processes: list[Any] = field(default_factory=list)
    reaper: subprocess.Popen[bytes] | None = None

    def dead(self) -> str | None:
        """The name of a Ray process of ours that died, or None."""
        node = self.ray._private.worker._global_node
        if self.temp is None or node is None:
            return None
        gone = node.dead_processes()
        return gone[0][0] if gone else None

    def machines(self) -> tuple[list[Any], Mapping[str, Any], set[str]]:
        """Nodes, what is free on each, and the ids of those that are about to be taken away."""
        from ray._private.state import available_resources_per_node, state

        return self.ray.nodes(), available_resources_per_node(), set(state.get_draining_nodes())

    def steady(self, nodes: Sequence[str]) -> Any:
        """Where a task goes that must outlive the slices: one of `nodes`, or else where we are."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self.ray.get_runtime_context().get_node_id()
        node = here if here in nodes or not nodes else nodes[0]
        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)

    def kill(self) -> None:
        """Ends every Ray process of ours, the polite way having failed or taking too long.

        The workers too, which Ray started since, and which would finish what they compile first.
        """
        for process in [*(_processes() if self.temp is not None else []), *self.processes]:
            with contextlib.suppress(Exception):  # gone, or another process by now
                process.kill()


@contextlib.contextmanager
def cluster(*, parallel: int, address: str | None, temp: Path) -> Iterator[Cluster]:
    """Ray, up; and down again however the block is left.

    Arguments:
      parallel: CPUs of the cluster, one a cell or more.
      address: of a cluster to join; None starts one of our own, whatever else runs here.
      temp: from `temporary`.

    Raises:
      StudyError: Ray does not come up.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no network
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    own = address is None
    settings: dict[str, Any] = {"address": address}
    if address is not None and address.startswith(("127.", "localhost")):
        # Ray would look for it at this machine's address in the network.
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False
        settings["_node_ip_address"] = "127.0.0.1"
    if own:
        settings = {
            "address": "local",
            "num_cpus": parallel,
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_temp_dir": str(temp),
            "_node_ip_address": "127.0.0.1",
            "runtime_env": {"env_vars": environment() | _scratch(temp)},
        }
    up = Cluster(
        ray=ray,
        temp=temp if own else None,
        # On a cluster that was joined other processes of ours may run on an accelerator.
        environment=None if own else environment(),
        gpus_per_cell=1 if gpus() else 0,
    )
    try:
        try:
            ray.init(
                **settings,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            raise StudyError(_no_ray(error, address)) from error
        if own:
            up.processes = _processes()
            up.reaper = _reaper([process.pid for process in up.processes])
        yield up
    finally:
        up.processes = [*up.processes, *(_processes() if own else [])]
        with contextlib.suppress(Exception):
            ray.shutdown()
        up.kill()
        if up.reaper is not None:
            up.reaper.kill()
            up.reaper.wait()
            assert up.reaper.stdin is not None
            up.reaper.stdin.close()


def _scratch(temp: Path) -> dict[str, str]:
    """Where workers put temporary files: workers that are killed leave them, wandb's for one."""
    folder = temp / "tmp"
    folder.mkdir(exist_ok=True)
    return {"TMPDIR": str(folder)}


def _processes() -> list[Any]:
    """Ray's processes among our descendants; other children of this process are not our business.

    A process object knows when its process started, so a number that was given to another
    process since is not mistaken for it.
    """
    import psutil
    import ray

    home = str(Path(ray.__file__).parent)
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if home in line or line.startswith("ray::"):
                found.append(process)
    return found


def _reaper(pids: list[int]) -> subprocess.Popen[bytes]:
    """Kills `pids` when this process is gone: then, and only then, its standard input ends."""
    script = "trap '' INT TERM HUP; read -r _; kill -9 " + " ".join(map(str, pids))
    return subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def check_address(address: str) -> None:
    """Asks before Ray does, which takes minutes to find out that nobody answers.

    Raises:
      StudyError: no such address, or no answer.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise StudyError(f"--address {address}: give host:port, as `ray status` shows it")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        said = error.strerror or error
        raise StudyError(f"no Ray cluster answers at {address}: {said}") from None


def _no_ray(error: Exception, address: str | None) -> str:
    said = format_error(error, max_chars=300)
    if "AuthenticationError" in "".join(traceback.format_exception(error)):
        said = "it asks for a token; set RAY_AUTH_MODE=token, as Ray's page on token auth says"
    if address is not None:
        return f"cannot join the Ray cluster at {address}: {said}; without --address one is started"
    return f"Ray did not start: {said}; `study doctor` may say why, and `study train` needs no Ray"


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, removed at the end; also removes those of the dead.

    Raises:
      StudyError: its disk is full.
    """
    base = Path(tempfile.gettempdir())
    if len(str(base)) > 30:  # the path of a socket may have about 100 characters
        base = Path("/tmp")
    free = shutil.disk_usage(base).free
    if free < _LEAST_DISK:
        raise StudyError(
            f"{base} has {free / 2**20:.0f} MiB left and Ray needs {_LEAST_DISK / 2**20:.0f}; "
            "make room, or set TMPDIR to a short path on another disk"
        )
    for old in base.glob(f"{_PREFIX}????????"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid == os.getuid() and _left_behind(old):
                shutil.rmtree(old, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except OSError as error:
        raise StudyError(f"cannot write {base}: {error.strerror or error}; set TMPDIR") from error
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _left_behind(folder: Path) -> bool:
    """Whether the driver whose folder this is has gone.

    Without a lease it has too, if Ray was there: a Ray process that was slow to die wrote on
    while the folder was being removed.
    """
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, timeout=0):
                return True
        except Timeout:
            return False
    silent = time.time() - folder.stat().st_mtime > 60
    return silent and (folder / "session_latest").is_symlink()


@contextlib.contextmanager
def quiet(log: Path, *, errors: bool = False) -> Iterator[TextIO]:
    """Sends what this process and its children print to `log`; yields the real standard output.

    With `errors` the real standard error, for standard output may hold what a program reads. At
    the level of file descriptors, because part of what Ray prints comes from C++.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    words = _last_words(saved[1], log)
    with (
        log.open("ab") as file,
        os.fdopen(os.dup(2 if errors else 1), "w", encoding="utf-8") as real,
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield real
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, back in zip((1, 2), saved, strict=True):
                os.dup2(back, fd)
                os.close(back)
            words.communicate(b"\n")


def _last_words(terminal: int, log: Path) -> subprocess.Popen[bytes]:
    """Speaks for this process if that ends without having told it otherwise.

    Ray's C++ part ends the whole process, with code 1 and not a word on the terminal, when one of
    Ray's processes dies while it starts.
    """
    text = (
        f"study: ended at once (killed, or by Ray: see {log}); what is recorded is kept: run the "
        "same again"
    )
    script = "trap '' INT TERM HUP; read -r _ || printf '%s\\n' \"$0\""
    return subprocess.Popen(
        ["sh", "-c", script, text],
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
