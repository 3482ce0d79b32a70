"""What it means for an attempt that training raised an error."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study.errors import UserError
from study.records.record import DONE, FAILED, RecordError, read_json, write_failure
from study.records.redact import redact
from sweeps.runner.attempts import Outcome
from sweeps.runner.lease import LeaseLost

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def classify(error: Exception, folder: Path) -> tuple[Outcome, str]:
    """What it means for an attempt that training raised `error`, and one line about it."""
    if isinstance(error, LeaseLost):
        return "lost", str(error)
    if any(is_no_space(cause) for cause in _causes(error)):
        line = str(error) if isinstance(error, RecordError) else None
        return "no space", line or (
            f"cannot write {folder}: no space left on device; make room or choose another --root "
            "and run again (what is recorded is kept)"
        )
    line = redact(" ".join(str(error).split()))
    # An error of the storage has a cause, and may be over at the next attempt.
    if isinstance(error, UserError) and line and error.__cause__ is None:
        return "invalid", line
    return "raised", f"{type(error).__name__}: {line}".removesuffix(": ")


def blame(error: Exception, line: str, folder: Path, *, since: float) -> tuple[Outcome, str]:
    """Why an exchange with another process failed: its own error, or the loss of its host."""
    with contextlib.suppress(Exception):
        if (failure := _recorded(folder, since)) is not None:
            return "raised", failure["error"]
    # Status codes of errors that have their cause in the program itself.
    own = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED")
    if type(error).__name__ == "JaxRuntimeError" and not str(error).startswith(own):
        return "lost", f"another process of this worker was lost ({line})"[:400]
    return "raised", line


def record_failure(
    folder: Path, error: Exception, outcome: Outcome, line: str, *, since: float
) -> None:
    """Writes FAILED.json, unless another process of this worker has already said why."""
    if outcome not in ("raised", "invalid"):
        return
    with contextlib.suppress(Exception):  # a disk that has just filled up
        if _recorded(folder, since) is None and not (folder / DONE).exists():
            write_failure(folder, error=line, trace="".join(traceback.format_exception(error)))


def _recorded(folder: Path, since: float) -> dict[str, Any] | None:
    failure = read_json(folder / FAILED)
    return failure if failure is not None and failure.get("time", 0.0) >= since else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def is_no_space(error: BaseException) -> bool:
    """Orbax and TensorStore tell by their message only."""
    return (isinstance(error, OSError) and error.errno in _NO_SPACE) or (
        "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
    )
