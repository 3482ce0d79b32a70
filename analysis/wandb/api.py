"""Runs from a wandb server, through `wandb.Api`: what is asked for, and how patiently.

The server limits how often it may be asked: 429, 5xx and broken connections are met with patience
that grows, with jitter. A scan that breaks off goes on after its last row, and runs that were
fetched whole are not fetched again. Which scans a run takes is in `analysis.wandb.history`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from analysis.errors import AnalysisError
from analysis.records.record import content, parse_json
from analysis.wandb.history import rows
from analysis.wandb.runs import Run, write_record

OVER = {"finished": "finished", "failed": "failed", "crashed": "failed", "killed": "failed"}
MARK = ".pulled.json"  # of a run that was fetched whole
TRIES, FIRST_WAIT, LONGEST_WAIT = 8, 1.0, 60.0  # seconds

Got = TypeVar("Got")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What `fetch` did, by run id."""

    new: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()  # of no cell of a study


def connect() -> Any:
    """A `wandb.Api`.

    Raises:
      AnalysisError: there is no key, or wandb does not start.
    """
    try:
        import wandb

        return wandb.Api(timeout=60)
    except Exception as error:  # only its kind: a message could quote a key
        raise AnalysisError(
            f"wandb: {type(error).__name__}; `wandb login` or set WANDB_API_KEY, and check the "
            "network"
        ) from None


def fetch(
    api: Any,
    project: str,
    root: Path,
    *,
    studies: Sequence[str] | None = None,
    unfinished: bool = False,
    progress: Callable[[str], None] = lambda run: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Writes the records that the runs of a project mirror under `root`.

    Interrupted, it goes on where it stopped: a run that is whole under `root` and has not changed
    on the server is not fetched again.

    Args:
      api: a `wandb.Api`.
      project: "ENTITY/PROJECT".
      studies: only runs of these groups.
      unfinished: take runs that go on, as far as they are; they are fetched anew each time.

    Raises:
      AnalysisError: the project cannot be read, or a run goes on and `unfinished` is not asked.
    """
    patient = Patient(sleep)
    filters = {"group": {"$in": list(studies)}} if studies else None
    found = patient(lambda: list(api.runs(project, filters=filters)))
    ours = [run for run in found if run.group and isinstance(run.config.get("cell"), Mapping)]
    going_on = sorted(run.id for run in ours if run.state not in OVER)
    if going_on and not unfinished:
        said = "1 run is" if len(going_on) == 1 else f"{len(going_on)} runs are"
        raise AnalysisError(
            f"{project}: {said} not over, such as {going_on[0]}; wait, or take what there is "
            "with --unfinished"
        )
    new, kept = [], []
    for run in ours:
        mark = root / run.group / run.id / MARK
        about = {"state": run.state, "last": getattr(run, "lastHistoryStep", None)}
        if run.state in OVER and parse_json(content(mark)) == about:
            kept.append(run.id)
            continue
        mark.unlink(missing_ok=True)
        history = rows(run, patient)
        state = OVER.get(run.state, "running")
        config = dict(run.config)
        write_record(
            Run(id=run.id, study=run.group, config=config, history=history, state=state), root
        )
        mark.write_text(json.dumps(about))
        new.append(run.id)
        progress(run.id)
    skipped = tuple(run.id for run in found if run not in ours)
    return Fetched(new=tuple(new), kept=tuple(kept), skipped=skipped)


class Patient:
    """Calls, and calls again when the server asks for patience.

    Raises:
      AnalysisError: the server refused, or asked for patience `TRIES` times.
    """

    def __init__(self, sleep: Callable[[float], None]):
        self._sleep = sleep
        self._random = random.Random()

    def __call__(self, work: Callable[[], Got]) -> Got:
        for failures in range(TRIES):
            try:
                return work()
            except AnalysisError:
                raise
            except Exception as error:
                why = _passing(error)
                if why is None:
                    said = f"{type(error).__name__} {_status(error) or ''}".strip()
                    raise AnalysisError(
                        f"wandb: {said}; check the name of the project and who may read it"
                    ) from None
                # Anything between half and one and a half times, so that several pulls part.
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**failures)
                self._sleep(wait * (0.5 + self._random.random()))
        raise AnalysisError(f"wandb: {why} {TRIES} times; run the same again later, it goes on")


def _passing(error: BaseException) -> str | None:
    """What the server says that passes with time; None for what does not."""
    status = _status(error)
    if status == 429:
        return "the server limits the rate"
    if status is not None and 500 <= status < 600:
        return f"the server answers {status}"
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"ConnectionError", "Timeout", "TimeoutError", "CommError"} and status is None:
        return "the server does not answer"
    return None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status in an error, or in what caused it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        for holder in (error, getattr(error, "response", None)):
            for name in ("status_code", "code", "status"):
                if type(code := getattr(holder, name, None)) is int and 100 <= code < 600:
                    return code
        error = getattr(error, "exc", None) or error.__cause__ or error.__context__
    return None
