"""The columns of a cell, and data frames of exact types from Python values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.records.record import CellRecord
from study.records.metrics_log import COUNTS

if TYPE_CHECKING:
    import pandas as pd

NOT_STARTED = "not started"
STATUSES = ("done", "diverged", "failed", "running-or-interrupted", NOT_STARTED)

COLUMNS = (
    *("study", "id", "status", "batch_size", "seed", "steps", "examples", "pairs_per_step", "step"),
    *("examples_seen", "pairs_seen", "attempts", "seconds", "parameters", "dataset_fingerprint"),
    "dataset_examples",
    *("code", "error", "dropped_lines", "superseded_rows", "content"),
)
MEMORY = ("memory.peak_bytes", "memory.source", "memory.compiled_bytes")
EXACT = ("pairs_seen", "pairs_per_step")  # a step of 2**32 examples has 2**64 pairs


def cell_frame(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of what `cell_columns` returns for each cell: `COLUMNS` first, by batch size."""
    cells = sorted(cells, key=lambda cell: str(cell["id"]))
    names = dict.fromkeys((*COLUMNS, *(key for cell in cells for key in cell)))
    return _frame(cells, names).sort_values(["batch_size", "id", "study"], ignore_index=True)


def row_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of logged rows: study, id, counts and time, then the metrics by name."""
    return _frame(rows, row_columns(rows))


def row_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the columns of logged rows, in order."""
    metrics = {key for row in rows for key in row if "/" in key}
    return ["study", "id", *COUNTS, "time", *sorted(metrics)]


def cell_columns(study: str, record: CellRecord, plan: Mapping[str, Any]) -> dict[str, Any]:
    """One cell's columns.

    Args:
      plan: what the grid says of the cell, for one whose cell.json is missing or torn.
    """
    about, done = record.about or dict(plan), record.done
    last = done or next(reversed(record.read_rows()), {})
    seconds = (done or {}).get("seconds") or {}
    return {
        "study": study,
        "id": record.id,
        "status": record.status,
        **{k: about.get(k) for k in ("steps", "examples", "pairs_per_step", "parameters")},
        **{k: about.get(k) for k in ("dataset_fingerprint", "dataset_examples", "code")},
        **{k: last.get(k, 0) for k in ("step", "examples_seen", "pairs_seen")},
        "attempts": max(record.attempts, last.get("attempt", 0)),
        "seconds": seconds.get("total"),
        "error": (record.failed or {}).get("error"),
        "dropped_lines": record.dropped,
        "superseded_rows": record.superseded,
        "content": record.digest,
        **{f"seconds.{k}": v for k, v in seconds.items() if k != "total"},
        **_flatten(about.get("cell") or {}),
        **_flatten({key: about.get(key) or {} for key in ("versions", "devices")}),
        **_flatten({"memory": (done or {}).get("memory") or {}}),
        **((done or {}).get("summary") or {}),
    }


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names, as `pd.json_normalize`; lists become JSON text."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flatten(item, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(item) if isinstance(item, list) else item
    return flat


def _frame(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: _column([row.get(name) for row in rows], name) for name in names})


def _column(values: list[Any], name: str) -> pd.Series:
    """The narrowest type that holds every value exactly, which `convert_dtypes` does not give."""
    import pandas as pd

    given = [v for v in values if v is not None]
    kinds = {type(v) for v in given}
    if name in EXACT:
        return pd.Series(values, dtype=object)
    if "/" in name or name.startswith(("time", "seconds")):
        numbers = [v if type(v) in (int, float) else None for v in values]
        return pd.Series(numbers, dtype="float64")
    if kinds == {int} and all(abs(v) < 2**63 for v in given):
        return pd.Series(values, dtype="Int64" if len(given) < len(values) else "int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    if kinds == {str}:
        return pd.Series(values, dtype="str")
    return pd.Series(values, dtype=object)
