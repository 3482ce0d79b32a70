"""Exchanges between the processes of a run, outside the compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from study.records.storage import format_error

_LINE_BYTES = 512

T = TypeVar("T")


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
