"""Records as data frames: one row per logged line, or one row per cell.

    <root>/<study>/<cell id>/{cell.json, metrics.jsonl, FAILED.json, DONE.json}

Records are read as plain JSON: what trained them need not be installed. pandas is imported where
a frame is made, so that `studies` and `training_progress` answer at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.lines import COUNTS, Progress, read_lines, training_progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AnalysisError", "Progress", "cells", "rows", "studies", "training_progress"]

FILES = ("cell.json", "metrics.jsonl", "DONE.json", "FAILED.json")
NOT_STARTED = "not started"
STATUSES = ("done", "diverged", "failed", "running-or-interrupted", NOT_STARTED)
CELL_ID = re.compile(r"b\d+-.+-[0-9a-f]{8}$")

# The prefixes of the columns that hold a cell's fields, beside `batch_size` and `seed`.
FIELDS = ("model.", "data.", "loss.", "optimizer.", "budget.")

COLUMNS = (
    *("id", "status", "batch_size", "seed", "steps", "examples", "pairs_per_step", "step"),
    *("examples_seen", "pairs_seen", "attempts", "seconds", "parameters", "dataset_fingerprint"),
    *("code", "error", "dropped_lines", "superseded_rows", "content"),
)


def studies(root: str | Path) -> list[str]:
    """The studies that have a folder under `root`.

    Raises:
      AnalysisError: there is no such folder.
    """
    if str(root).startswith("gs://"):
        raise AnalysisError(f"{root} is a bucket; pull its records into a folder and read that")
    root = Path(root)
    if not root.is_dir():
        raise AnalysisError(f"no folder {root}; give the folder that the study was run with")
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def rows(root: str | Path, study: str) -> pd.DataFrame:
    """Every measurement of a study, one row per logged line, attempts stitched into one run.

    Columns: id, step, examples_seen, pairs_seen (exact Python integers), attempt, time, then one
    float column per metric. `attrs["dropped_lines"]` counts torn lines by cell id.

    Raises:
      AnalysisError: no such root or study.
    """
    import pandas as pd

    records = {folder.name: read_lines(folder / "metrics.jsonl") for folder in _cells(root, study)}
    flat = [{"id": name, **row} for name, lines in records.items() for row in lines.rows]
    names = dict.fromkeys(("id", *COUNTS, "time", *(key for row in flat for key in row)))
    frame = pd.DataFrame({name: _column([row.get(name) for row in flat], name) for name in names})
    frame.attrs["dropped_lines"] = {n: lines.dropped for n, lines in records.items()}
    return frame


def cells(
    root: str | Path,
    study: str,
    *,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> pd.DataFrame:
    """Every cell of a study, one row each, whatever became of it.

    Columns: `COLUMNS`, the cell's fields flattened (`loss.pairs.kind`), `seconds.*`, `versions.*`
    and `devices.*` of what trained it, and for cells that ended the last value of every metric.
    pairs_seen holds exact Python integers.

    Args:
      planned: what the study's grid lists, as {"id", "cell", ...} like `cell.json`; those of
        them without a record are "not started". Without it only cells with a record are known.
      records: the folder that the study shares with others, if not its own; cells of it that are
        not planned are not the study's.

    Raises:
      AnalysisError: no such root or study.
    """
    import pandas as pd

    plans = {str(plan["id"]): plan for plan in planned or ()}
    found = {folder.name: folder for folder in _cells(root, records or study)}
    if records not in (None, study):
        found = {name: folder for name, folder in found.items() if name in plans}
    flat = [_cell(n, found.get(n), plans.get(n, {})) for n in sorted({*found, *plans})]
    names = dict.fromkeys((*COLUMNS, *(key for row in flat for key in row)))
    frame = pd.DataFrame({name: _column([row.get(name) for row in flat], name) for name in names})
    frame = frame.sort_values(["batch_size", "id"], ignore_index=True)
    frame.attrs["planned"] = planned is not None
    return frame


def _cells(root: str | Path, study: str) -> list[Path]:
    known = studies(root)
    if study not in known:
        raise AnalysisError(
            f"no study {study!r} in {root}; there are: {', '.join(known) or 'none'}"
        )
    return sorted(
        folder
        for folder in (Path(root) / study).iterdir()
        if folder.is_dir()
        and (CELL_ID.match(folder.name) or any((folder / file).is_file() for file in FILES))
    )


def _cell(name: str, folder: Path | None, plan: Mapping[str, Any]) -> dict[str, Any]:
    content = {file: _bytes(folder, file) for file in FILES}
    about = _object(content["cell.json"]) or dict(plan)
    done, failed = _object(content["DONE.json"]), _object(content["FAILED.json"])
    lines = read_lines(folder / "metrics.jsonl") if folder else read_lines(Path())
    last = done or (lines.rows[-1] if lines.rows else {})
    if done:
        status = str(done.get("status", "done"))
    elif failed:
        status = "failed"
    else:
        started = content["cell.json"] or content["metrics.jsonl"]
        status = "running-or-interrupted" if started else NOT_STARTED
    seconds = (done or {}).get("seconds") or {}
    return {
        "id": name,
        "status": status,
        **{k: about.get(k) for k in ("steps", "examples", "pairs_per_step", "parameters")},
        **{k: about.get(k) for k in ("dataset_fingerprint", "code")},
        **{k: last.get(k, 0) for k in ("step", "examples_seen", "pairs_seen")},
        "attempts": max(lines.attempts, last.get("attempt", 0)),
        "seconds": seconds.get("total"),
        "error": (failed or {}).get("error"),
        "dropped_lines": lines.dropped,
        "superseded_rows": lines.superseded,
        "content": _digest(name, content),
        **{f"seconds.{k}": v for k, v in seconds.items() if k != "total"},
        **_flatten(about.get("cell") or {}),
        **_flatten({key: about.get(key) or {} for key in ("versions", "devices")}),
        **((done or {}).get("summary") or {}),
    }


def _bytes(folder: Path | None, file: str) -> bytes:
    return (folder / file).read_bytes() if folder and (folder / file).is_file() else b""


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _digest(name: str, content: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(name.encode())
    for file, text in content.items():
        digest.update(f"\0{file}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names; lists stay whole, as JSON."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flatten(item, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(item) if isinstance(item, list) else item
    return flat


def _column(values: Sequence[Any], name: str) -> pd.Series:
    """The narrowest type that holds every value exactly."""
    import pandas as pd

    given = [v for v in values if v is not None]
    kinds = {type(v) for v in given}
    if name == "pairs_seen" or name == "pairs_per_step":
        return pd.Series(list(values), dtype=object)  # a step of 2**32 examples has 2**64 pairs
    if "/" in name or name.startswith(("time", "seconds")):
        numbers = [v if type(v) in (int, float) else None for v in values]
        return pd.Series(numbers, dtype="float64")
    if kinds == {int} and all(abs(v) < 2**63 for v in given):
        return pd.Series(list(values), dtype="Int64" if len(given) < len(values) else "int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(list(values), dtype="float64")
    if kinds == {str}:
        return pd.Series(list(values), dtype="str")
    return pd.Series(list(values), dtype=object)
