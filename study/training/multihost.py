"""Joins the hosts of a run, and exchanges between its processes outside the compiled step."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from study.errors import UserError
from study.records.storage import format_error

JOIN_SECONDS = 300.0  # a slice's hosts may boot minutes apart
_HEARTBEAT_SECONDS = 20
_LEAVE_SECONDS = 60
_EXCHANGE_SECONDS = 5.0
_LINE_BYTES = 512

T = TypeVar("T")


def join(
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    *,
    seconds: float = JOIN_SECONDS,
) -> None:
    """Join the processes of a run, one on each host, before JAX looks for its devices.

    With no arguments JAX finds them: on TPU pods, in a Job or JobSet of Kubernetes, in Slurm and in
    Open MPI. In the last two it gives each task one GPU, so start a task for each GPU.

    A process that dies ends the others with SIGABRT: at once if it was process 0, else when it has
    missed its heartbeats for 20 seconds. So restart a run on all of its hosts together.

    Arguments:
      coordinator: `HOST:PORT`, a free port of process 0 that all hosts can reach.
      process_id: 0 to `process_count` - 1, different on each host.
      seconds: how long to wait for the other processes.

    Raises:
      UserError: an argument is missing or wrong, the port is taken, no cluster is found, or not
        all processes joined in time.
    """
    given = {
        "--coordinator": coordinator,
        "--process-count": process_count,
        "--process-id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise UserError(
            f"{' and '.join(missing)} missing: give all of {', '.join(given)}, or none of them"
            " where JAX finds the hosts itself (TPU pods, Kubernetes jobs, Slurm)"
        )
    if coordinator is not None and process_count is not None and process_id is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--coordinator {coordinator}: give it as HOST:PORT")
        if not 0 <= process_id < process_count:
            raise UserError(
                f"--process-id {process_id}: must be 0 to {process_count - 1}"
                f" for --process-count {process_count}"
            )
        if process_id == 0:  # JAX crashes on a port that is taken
            try:
                socket.create_server(("", int(port))).close()
            except OSError as error:
                raise UserError(
                    f"--coordinator {coordinator}: cannot listen on port {port}"
                    f" ({error.strerror}): give another port"
                ) from error
    # Its handler would replace the caller's for SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    failures: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                process_count,
                process_id,
                # Else JAX asks Kubernetes or Slurm for the devices of an explicit process too.
                cluster_detection_method=None if coordinator is None else "deactivate",
                initialization_timeout=round(seconds) + 60,
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_LEAVE_SECONDS,
            )
        except Exception as error:
            failures.append(error)

    # JAX aborts the program with a stack trace when its own time is over, so wait beside it.
    thread = threading.Thread(target=initialize, name="join", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        where = "the coordinator" if coordinator is None else coordinator
        raise UserError(
            f"not all processes joined at {where} within {seconds:.0f} s: start the same command"
            " on every host, and check that each reaches that address"
        )
    if failures:
        if coordinator is None:
            raise UserError(
                f"found no cluster to join ({format_error(failures[0])}): give {', '.join(given)}"
            )
        raise UserError(f"could not join at {coordinator}: {format_error(failures[0])}")


def leave() -> None:
    """Leave the processes of `join`; waits for the others to leave, at most a minute."""
    jax.distributed.shutdown()


class PeerFailed(RuntimeError):
    """Another process of this run failed; the message names it and repeats its error."""


def raise_together(action: Callable[[], T]) -> T:
    """The result of `action`; if it fails on one process, raise on all of them.

    Otherwise the others would wait for the failed process in their next collective, until a
    time-out of minutes ends them without a reason.

    Arguments:
      action: must not wait for another process.

    Raises:
      PeerFailed: `action` failed on another process. Its own error is raised here unchanged.
    """
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        failure = error
    if jax.process_count() > 1:
        line = "" if failure is None else format_error(failure, max_chars=_LINE_BYTES)
        text = line.encode()[:_LINE_BYTES].ljust(_LINE_BYTES, b"\0")
        texts = multihost_utils.process_allgather(np.frombuffer(text, np.uint8))
        for process, raw in enumerate(np.asarray(texts)):
            peer_line = raw.tobytes().rstrip(b"\0").decode(errors="replace")
            if peer_line and failure is None:
                failure = PeerFailed(f"process {process} of this run failed: {peer_line}")
    if failure is not None:
        raise failure
    return result


def any_process(*flags: bool) -> list[bool]:
    """Each flag, or-ed over all processes; every process must call this."""
    if jax.process_count() == 1:
        return list(flags)
    return [bool(f) for f in np.any(multihost_utils.process_allgather(np.array(flags)), axis=0)]


class Agreement:
    """Exchanges flags after some chunks of steps, the same chunks on all processes.

    An exchange waits for the devices and for the slowest process, so one after each chunk would
    end asynchronous dispatch. They come about every 5 seconds of the slowest process instead: its
    time per chunk is part of an exchange, from which all processes compute how many chunks later
    the next one comes. At most twice as many as before, in case the first chunks are fast. On one
    process each chunk is followed by an exchange, which costs nothing.

    JAX's `reached_preemption_sync_point` cannot replace this. It agrees on a step without a
    barrier, but once in a session of `jax.distributed`, and only a SIGTERM that its own handler
    catches starts it, while a worker trains many cells in one session and may stop each of them.
    """

    def __init__(self) -> None:
        self.interval = 1  # chunks
        self._chunks = 0
        self._since = time.monotonic()

    def due(self, *, now: bool) -> bool:
        """Count a chunk; returns whether all processes exchange after it.

        Arguments:
          now: exchange in any case; must be the same on all processes.
        """
        self._chunks += 1
        return now or self._chunks >= self.interval

    def exchange(self, *flags: bool) -> list[bool]:
        """Each flag, or-ed over all processes, which must have finished their steps."""
        if jax.process_count() == 1:
            return list(flags)
        seconds = (time.monotonic() - self._since) / self._chunks
        votes = multihost_utils.process_allgather(np.array([*flags, seconds], np.float32))
        *agreed, slowest = np.max(votes, axis=0)
        self.interval = _next_interval(self.interval, float(slowest))
        self._chunks, self._since = 0, time.monotonic()
        return [bool(flag) for flag in agreed]


def _next_interval(interval: int, seconds: float) -> int:
    """Chunks until the next exchange, if one takes `seconds`."""
    if seconds * 2 * interval <= _EXCHANGE_SECONDS:
        return 2 * interval
    return max(1, int(_EXCHANGE_SECONDS / seconds))


def broadcast_text(text: str | None) -> str:
    """The text of process 0, on all processes; every process must call this.

    Arguments:
      text: at most 512 bytes in UTF-8; ignored on all processes but 0.
    """
    raw = (text or "").encode() if jax.process_index() == 0 else b""
    if len(raw) > _LINE_BYTES:
        raise ValueError(f"text of {len(raw)} bytes, more than {_LINE_BYTES}")
    buffer = np.frombuffer(raw.ljust(_LINE_BYTES, b"\0"), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes().rstrip(b"\0").decode()
