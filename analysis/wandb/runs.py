"""Turns wandb runs back into the records that they mirror.

The config of a run is the `cell.json` of its cell, its rows are the lines of `metrics.jsonl`, and
its end is DONE.json or FAILED.json. wandb stores pairs_seen as a float, so it is computed again as
step times pairs per step. An attempt is assumed to have started just before its first row.
Per-example results are not mirrored, so intervals over examples need records.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from study.records.metrics_log import METRICS, parse
from study.records.record import CELL, DONE, FAILED

KEPT = ("global_step", "examples_seen", "attempt")  # in every row of a mirror, besides `_step`


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
      history: its rows as logged; those of a resumed run in the order of its parts.
      state: "finished", "failed" or "running"; a run that was killed stays "running".
    """

    id: str
    study: str
    config: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    state: str

    @property
    def of_a_cell(self) -> bool:
        """Whether the run mirrors a cell of a study."""
        return bool(self.study) and isinstance(self.config.get("cell"), Mapping)


def write_record(run: Run, root: Path) -> Path:
    """Writes the record that `run` mirrors under `root`; returns its folder.

    Raises:
      AnalysisError: the run's id or study contains a path.
    """
    for name in (run.study, run.id):
        if Path(name).name != name or name.startswith("."):
            raise AnalysisError(f"wandb run {run.study!r}/{run.id!r} is not named like a cell")
    folder = root / run.study / run.id
    folder.mkdir(parents=True, exist_ok=True)
    about = {key: value for key, value in run.config.items() if not key.startswith("_")}
    if pairs := about.get("pairs_per_step"):  # a float in wandb, whose text is not exact
        about["pairs_per_step"] = int(float(pairs))
    lines = _lines(run.history, about)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _put(folder / CELL, about)
    (folder / METRICS).write_text(text)
    for name in (DONE, FAILED):  # the run may have been resumed since it was last read
        (folder / name).unlink(missing_ok=True)
    rows = parse(text.encode()).rows
    if run.state == "failed":
        _put(folder / FAILED, {"error": "the wandb run failed or was interrupted"})
    elif run.state == "finished":
        last = rows[-1] if rows else dict.fromkeys(("step", "examples_seen", "pairs_seen"), 0)
        metrics = {k: v for row in rows for k, v in row.items() if "/" in k}
        whole = last["step"] >= int(about.get("steps") or 0)
        counts = {k: last.get(k, 0) for k in ("step", "examples_seen", "pairs_seen", "attempt")}
        status = {"status": "done" if whole else "diverged", **counts}
        _put(folder / DONE, {**status, "time": last.get("time"), "summary": metrics})
    return folder


def _lines(history: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a record, a start event before the first row of each attempt."""
    pairs = int(about.get("pairs_per_step") or 0)
    if (about.get("cell") or {}).get("loss", {}).get("queue_examples"):
        pairs = 0  # the first steps have fewer, so what the rows say is taken
    rows = [_row(row, pairs) for row in history if all(_whole(row.get(k)) for k in KEPT)]
    lines: list[dict[str, Any]] = []
    begun: set[int] = set()
    for row in sorted(rows, key=lambda row: row["attempt"]):
        if row["attempt"] not in begun:
            begun.add(row["attempt"])
            # The attempt resumed at a checkpoint before this row. All attempts log at the same
            # steps, so no row of an earlier one is between the two.
            step = row["step"] - 1
            each = row["examples_seen"] // max(row["step"], 1)
            before = step * pairs if pairs else row["pairs_seen"] * step // max(row["step"], 1)
            seen = {"step": step, "examples_seen": step * each, "pairs_seen": before}
            more = {"attempt": row["attempt"], "time": row.get("time"), "event": "start"}
            lines.append({**seen, **more})
        lines.append(row)
    return lines


def _row(row: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    step = int(row["global_step"])
    time = row.get("_timestamp")
    return {
        "step": step,
        "examples_seen": int(row["examples_seen"]),
        "pairs_seen": step * pairs if pairs else int(row.get("pairs_seen") or 0),
        "attempt": int(row["attempt"]),
        "time": round(float(time), 3) if time is not None else None,
        **{
            key: _number(row[key])
            for key in sorted(row)
            if "/" in key and key[0] != "_" and row[key] is not None
        },
    }


def _whole(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value == int(value)


def _number(value: Any) -> float | None:
    """None for what is not a finite number: wandb stores NaN and infinities as words."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    return value


def _put(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1))
