"""Runs from a wandb server, through `wandb.Api`.

wandb itself repeats requests that the server limits (429) or fails (5xx), with growing waits.
Runs that were fetched whole are not fetched again, so an interrupted pull goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.records.record import content, parse_json
from analysis.wandb.runs import Run, write_record

ENDED = {"finished": "finished", "failed": "failed", "crashed": "failed", "killed": "failed"}
MARK = ".pulled.json"  # in the record of a run that was fetched whole


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """Ids of runs: fetched now, unchanged since an earlier fetch, and not of a cell of a study."""

    new: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def connect() -> Any:
    """A `wandb.Api`.

    Raises:
      AnalysisError: no API key, or wandb does not start.
    """
    with _one_line("`wandb login` or set WANDB_API_KEY, and check the network"):
        import wandb

        return wandb.Api(timeout=60)


def fetch(
    api: Any,
    project: str,
    root: Path,
    *,
    studies: Sequence[str] | None = None,
    unfinished: bool = False,
    progress: Callable[[str], None] = lambda run: None,
) -> FetchResult:
    """Writes the records that the runs of a project mirror under `root`.

    Args:
      api: a `wandb.Api`.
      project: "ENTITY/PROJECT".
      studies: only runs of these groups.
      unfinished: also take runs that are not over; they are fetched again each time.
      progress: called with the id of each run that was fetched.

    Raises:
      AnalysisError: the project cannot be read, or a run is not over and `unfinished` is False.
    """
    advice = f"check the name {project} and who may read it, or run the same again later"
    filters = {"group": {"$in": list(studies)}} if studies else None
    with _one_line(advice):
        runs = list(api.runs(project, filters=filters))
    ours = [run for run in runs if run.group and isinstance(run.config.get("cell"), Mapping)]
    going_on = sorted(run.id for run in ours if run.state not in ENDED)
    if going_on and not unfinished:
        count = "1 run is" if len(going_on) == 1 else f"{len(going_on)} runs are"
        raise AnalysisError(
            f"{project}: {count} not over, such as {going_on[0]}; wait, or take what there is "
            "with --unfinished"
        )
    new, kept = [], []
    for run in ours:
        mark = root / run.group / run.id / MARK
        about = {"state": run.state, "last": getattr(run, "lastHistoryStep", None)}
        if run.state in ENDED and parse_json(content(mark)) == about:
            kept.append(run.id)
            continue
        mark.unlink(missing_ok=True)
        with _one_line(advice):
            # Without `keys` a scan gives every row; with them, only rows that hold all of them.
            history = [dict(row) for row in run.scan_history()]
        state = ENDED.get(run.state, "running")
        config = dict(run.config)
        write_record(
            Run(id=run.id, study=run.group, config=config, history=history, state=state), root
        )
        mark.write_text(json.dumps(about))
        new.append(run.id)
        progress(run.id)
    skipped = tuple(run.id for run in runs if run not in ours)
    return FetchResult(new=tuple(new), kept=tuple(kept), skipped=skipped)


@contextmanager
def _one_line(advice: str) -> Iterator[None]:
    """Turns any error of wandb into one line with its type alone: a message could quote a key."""
    try:
        yield
    except Exception as error:
        raise AnalysisError(f"wandb: {type(error).__name__}; {advice}") from None
