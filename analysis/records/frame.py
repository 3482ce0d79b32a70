"""Records as data frames: one row per logged line, per logged step, or per cell.

>>> cells("runs", "demo")                  # a folder of records
>>> rows("gs://lab/runs", ["demo", "lr"])  # a bucket; several studies
>>> steps("snapshots/demo")                # a snapshot; all its studies

Every function takes a folder, a bucket or a snapshot (`analysis.records.open`), and gives
the same frame for records and for the snapshot that was taken of them. Records are read as plain
JSON: what trained them need not be installed. pandas is imported where a frame is made, so that
`studies` and `training_progress` answer at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.records.lines import COUNTS, Lines, Progress, training_progress
from analysis.records.open import open_records
from analysis.records.record import WHOLE, CellRecord, digest_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["AnalysisError", "Progress", "cells", "items", "rows", "steps", "studies",
           "training_progress"]  # fmt: skip

NOT_STARTED = "not started"
STATUSES = ("done", "diverged", "failed", "running-or-interrupted", NOT_STARTED)

# The prefixes of the columns that hold a cell's fields, beside `batch_size` and `seed`.
FIELDS = ("model.", "data.", "loss.", "optimizer.", "budget.")

COLUMNS = (
    *("study", "id", "status", "batch_size", "seed", "steps", "examples", "pairs_per_step", "step"),
    *("examples_seen", "pairs_seen", "attempts", "seconds", "parameters", "dataset_fingerprint"),
    "dataset_examples",
    *("code", "error", "dropped_lines", "superseded_rows", "content"),
)
MEMORY = ("memory.peak_bytes", "memory.source", "memory.compiled_bytes")

Root = str | os.PathLike[str]
Studies = str | Sequence[str] | None  # one, several, or all that there are


def studies(root: Root) -> list[str]:
    """The studies that have records under `root`.

    Raises:
      AnalysisError: there is no such folder, bucket or snapshot.
    """
    return open_records(root).studies()


def rows(root: Root, study: Studies = None) -> pd.DataFrame:
    """Every measurement of studies, one row per logged line, attempts stitched into one run.

    Columns: study, id, step, examples_seen, pairs_seen (exact Python integers), attempt, time,
    then one float column per metric. `attrs["dropped_lines"]` counts torn lines by cell id.

    Raises:
      AnalysisError: no such root or study.
    """
    import pandas as pd

    records = _records(root, study)
    flat = [{"study": s, "id": r.id, **row} for s, r in records for row in r.lines.rows]
    names = dict.fromkeys(("study", "id", *COUNTS, "time", *(key for row in flat for key in row)))
    frame = pd.DataFrame({name: _column([row.get(name) for row in flat], name) for name in names})
    frame.attrs["dropped_lines"] = {r.id: r.lines.dropped for _, r in records}
    return frame


def steps(root: Root, study: Studies = None) -> pd.DataFrame:
    """The tidy table: one row per logged step of each cell, with the cell's fields beside it.

    Columns: those of `rows`, lines of one step merged, then the cell's status, planned length
    and flattened fields, named as in `cells`. Cells that logged nothing have no step: `cells` has
    them all, and `attrs["without_steps"]` gives their status by id.

    Raises:
      AnalysisError: no such root or study.
    """
    about, measured = cells(root, study), rows(root, study)
    merged = measured.groupby(["study", "id", "step"], sort=False, as_index=False).last()
    fields = [c for c in about if c.startswith(FIELDS) or c in ("evals", "batch_size", "seed")]
    own = [*("study", "id", "status", "steps", "examples", "pairs_per_step"), *fields]
    frame = merged.merge(about[own], on=["study", "id"], how="left", validate="many_to_one")
    silent = about[~about["id"].isin(measured["id"])]
    frame.attrs["without_steps"] = dict(zip(silent["id"], silent["status"], strict=True))
    return frame


def cells(
    root: Root,
    study: Studies = None,
    *,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> pd.DataFrame:
    """Every cell of studies, one row each, whatever became of it.

    Columns: `COLUMNS`, the cell's fields flattened (`loss.pairs.kind`), `seconds.*`, `versions.*`
    and `devices.*` of what trained it, and for cells that ended the last value of every metric
    and `MEMORY`, in bytes per device: the measured peak, its source ("device": the allocator of the
    fullest device; "process": growth of the resident memory of the process, which tells nothing of
    steps below about 100 MiB; older records hold it for those too), and what XLA's memory analysis
    says of the compiled step. The oldest records hold no memory.
    pairs_seen holds exact Python integers.

    Args:
      study: one, several, or None for all that there are.
      planned: what a study's grid lists, as {"id", "cell", ...} like `cell.json`; those of
        them without a record are "not started". Without it only cells with a record are known.
        It takes exactly one study.
      records: the folder that the study shares with others, if not its own; cells of it that are
        not planned are not the study's.

    Raises:
      AnalysisError: no such root or study.
    """
    import pandas as pd

    plans = {str(plan["id"]): plan for plan in planned or ()}
    if (plans or records) and not isinstance(study, str):
        raise AnalysisError("planned cells are those of one study; name it")
    shared = records not in (None, study)
    found = _records(root, records or study)
    if shared:
        found = [(str(study), record) for _, record in found if record.id in plans]
    unborn = {*plans} - {record.id for _, record in found}
    found += [(str(study), _nothing(name)) for name in unborn]
    flat = [_cell(s, r, plans.get(r.id, {})) for s, r in sorted(found, key=lambda p: p[1].id)]
    names = dict.fromkeys((*COLUMNS, *(key for row in flat for key in row)))
    frame = pd.DataFrame({name: _column([row.get(name) for row in flat], name) for name in names})
    frame = frame.sort_values(["batch_size", "id", "study"], ignore_index=True)
    frame.attrs["planned"] = planned is not None
    return frame


def items(root: Root, study: str, cell: str) -> dict[str, np.ndarray]:
    """Which evaluated examples a cell had right at its last evaluation: bool `N` by metric.

    Raises:
      AnalysisError: no such root or study, or a file of `items/` is damaged.
    """
    source = open_records(root)
    _known(source.studies(), root, study)
    files = source.items(study, cell)
    found: dict[str, np.ndarray] = {}
    for stem in sorted({name.rpartition(".")[0] for name in files}):
        try:
            about = json.loads(files[f"{stem}.json"])
            metric = about.get("metric", stem.replace(".", "/"))
            found[metric] = _correct(about, files.get(f"{stem}.npy"))
        except (KeyError, ValueError, TypeError, AttributeError, EOFError) as error:
            raise AnalysisError(f"{study}/{cell}/items/{stem} cannot be read: {error}") from None
    return found


def _correct(about: Mapping[str, Any], npy: bytes | None) -> np.ndarray:
    """The bits of one metric, bool `N`; records of earlier versions have them in a .npy."""
    import base64
    import io

    import numpy as np

    count = about["examples"]
    if "correct" in about:
        packed = np.frombuffer(base64.b64decode(about["correct"], validate=True), np.uint8)
    elif npy is not None:
        packed = np.load(io.BytesIO(npy), allow_pickle=False)
    else:
        raise ValueError("it has no bits")
    if len(packed) != (count + 7) // 8:
        raise ValueError(f"{len(packed)} bytes for {count} examples")
    return np.unpackbits(packed, count=count).astype(bool)


def _records(root: Root, study: Studies) -> list[tuple[str, CellRecord]]:
    source = open_records(root)
    known = source.studies()
    names = [study] if isinstance(study, str) else known if study is None else list(study)
    for name in names:
        _known(known, root, name)
    return [(name, record) for name in names for record in source.records(name)]


def _known(known: Sequence[str], root: Root, study: str) -> None:
    if study not in known:
        raise AnalysisError(
            f"no study {study!r} in {root}; there are: {', '.join(known) or 'none'}"
        )


def _nothing(name: str) -> CellRecord:
    files = dict.fromkeys(WHOLE, b"")
    return CellRecord(
        id=name, files=files, lines=Lines([], 0, 0, 0), digest=digest_of(name, files, b"")
    )


def _cell(study: str, record: CellRecord, plan: Mapping[str, Any]) -> dict[str, Any]:
    about = record.about or dict(plan)
    done, failed, lines = record.done, record.failed, record.lines
    last = done or (lines.rows[-1] if lines.rows else {})
    seconds = (done or {}).get("seconds") or {}
    return {
        "study": study,
        "id": record.id,
        "status": record.status,
        **{k: about.get(k) for k in ("steps", "examples", "pairs_per_step", "parameters")},
        **{k: about.get(k) for k in ("dataset_fingerprint", "dataset_examples", "code")},
        **{k: last.get(k, 0) for k in ("step", "examples_seen", "pairs_seen")},
        "attempts": max(lines.attempts, last.get("attempt", 0)),
        "seconds": seconds.get("total"),
        "error": (failed or {}).get("error"),
        "dropped_lines": lines.dropped,
        "superseded_rows": lines.superseded,
        "content": record.digest,
        **{f"seconds.{k}": v for k, v in seconds.items() if k != "total"},
        **_flatten(about.get("cell") or {}),
        **_flatten({key: about.get(key) or {} for key in ("versions", "devices")}),
        **_flatten({"memory": (done or {}).get("memory") or {}}),
        **((done or {}).get("summary") or {}),
    }


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
