"""Records as data frames: one row per logged line, per logged step, or per cell.

>>> cells("runs", "demo")                  # a folder of records
>>> rows("gs://lab/runs", ["demo", "lr"])  # a bucket; several studies
>>> steps("snapshots/demo")                # a snapshot; all its studies

Every function takes a folder, a bucket or a snapshot, and gives the same frame for records and for
the snapshot that was taken of them. pandas is imported where a frame is made, so that `studies` is
fast.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.records.record import (
    COLUMNS,
    FIELDS,
    MEMORY,
    NOT_STARTED,
    STATUSES,
    CellRecord,
    Items,
    RecordRoot,
    cell_columns,
    cell_frame,
    content,
    not_started,
    row_frame,
)
from analysis.records.scores import ItemReader
from analysis.records.snapshot import MANIFEST, Snapshot
from study.records.storage import RecordError, resolve

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "FIELDS",
    "MEMORY",
    "NOT_STARTED",
    "STATUSES",
    "AnalysisError",
    "cells",
    "item_reader",
    "items",
    "open_records",
    "open_snapshot",
    "rows",
    "steps",
    "studies",
]

Root = str | os.PathLike[str]
Studies = str | Sequence[str] | None  # one, several, or None for all


def open_records(root: Root) -> RecordRoot | Snapshot:
    """The records in a folder, a bucket or a snapshot.

    Raises:
      AnalysisError: `root` does not exist, or is a snapshot that was changed.
      RecordError: the bucket cannot be read; the methods of what is returned may raise it too.
    """
    try:
        folder = resolve(root)
    except RecordError as error:
        raise AnalysisError(str(error)) from None
    if manifest := content(folder / MANIFEST):
        return Snapshot(folder, manifest)
    if not folder.is_dir():
        what = "bucket" if "://" in str(root) else "folder"
        raise AnalysisError(f"no {what} {root}; give the one that the study was run with")
    return RecordRoot(folder)


def open_snapshot(root: Root) -> Snapshot:
    """The snapshot in a folder or bucket.

    Raises:
      AnalysisError: there is none, or it was changed.
    """
    source = open_records(root)
    if not isinstance(source, Snapshot):
        raise AnalysisError(f"{root} is not a snapshot: it has no {MANIFEST}")
    return source


def studies(root: Root) -> list[str]:
    """The studies that have records under `root`.

    Raises:
      AnalysisError: no such folder, bucket or snapshot.
    """
    return open_records(root).studies()


def rows(root: Root, study: Studies = None) -> pd.DataFrame:
    """Every measurement of studies, one row per logged line, attempts stitched into one run.

    Columns: study, id, step, examples_seen, pairs_seen (exact Python integers), attempt, time,
    then one float column per metric. `attrs["dropped_lines"]` counts torn lines by cell id,
    where there are any.

    Raises:
      AnalysisError: no such root or study.
    """
    records = _records(root, study)
    frame = row_frame(
        [{"study": s, "id": r.id, **row} for s, r in records for row in r.read_rows()]
    )
    # Few cells have any, and pandas copies it, deeply, with every selection of rows.
    frame.attrs["dropped_lines"] = {r.id: r.dropped for _, r in records if r.dropped}
    return frame


def steps(root: Root, study: Studies = None) -> pd.DataFrame:
    """The tidy table: one row per logged step of each cell, joined with the cell's fields.

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
    """Every cell of studies, one row each, whatever its state.

    Columns: `COLUMNS`, the cell's fields flattened (`loss.pairs.kind`), `seconds.*`, `versions.*`
    and `devices.*` of what trained it, and for cells that ended the last value of every metric
    and `MEMORY`, in bytes per device: the measured peak, its source ("device": the allocator of the
    fullest device; "process": growth of the resident memory of the process, uninformative for
    steps below about 100 MiB; older records hold it for those too), and what XLA's memory analysis
    gives for the compiled step. The oldest records hold no memory.
    pairs_seen holds exact Python integers. interruptions, where a cell had several attempts, is a
    JSON list of the fields of `study.records.interruptions.Interruption`.

    `flops.towers` and `flops.loss`, operations of one step, are known of planned cells alone.

    Args:
      study: one, several, or None for all.
      planned: what a study's grid lists, as {"id", "cell", ...} like `cell.json`; those of
        them without a record are "not started", and recorded cells that are not planned are left
        out: `attrs["unplanned"]` counts them. Without it only cells with a record are known. It
        takes exactly one study.
      records: the folder that the study shares with others, if not its own.

    Raises:
      AnalysisError: no such root or study.
    """
    plans = {str(plan["id"]): plan for plan in planned or ()}
    if (plans or records) and not isinstance(study, str):
        raise AnalysisError("planned cells are those of one study; name it")
    recorded, unplanned = _records(root, records or study), 0
    if planned is not None or records not in (None, study):
        every = recorded
        recorded = [(str(study), record) for _, record in every if record.id in plans]
        if records in (None, study):  # in a folder of several studies they are the others'
            unplanned = len(every) - len(recorded)
    missing = {*plans} - {record.id for _, record in recorded}
    recorded += [(str(study), not_started(cell)) for cell in missing]
    frame = cell_frame([cell_columns(s, r, plans.get(r.id, {})) for s, r in recorded])
    frame.attrs["planned"] = planned is not None
    frame.attrs["unplanned"] = unplanned
    return frame


def items(root: Root, study: str, cell: str) -> Items:
    """Whether a cell had each example of its last evaluation right: bool `N` by metric.

    Raises:
      AnalysisError: no such root, study or cell, or a file of `items/` is damaged.
    """
    source = open_records(root)
    _check_known(source.studies(), root, study)
    return source.record(study, cell).read_items()


def item_reader(root: Root, study: str) -> ItemReader:
    """Reads the items of one cell and metric of a study, each cell once.

    A cell whose items are damaged has none: torn by a kill, it counts as not recorded.
    """
    source = open_records(root)

    @functools.cache
    def read(cell: str) -> Items:
        try:
            return source.record(study, cell).read_items()
        except AnalysisError:
            return {}

    return lambda cell, metric: read(cell).get(metric)


def _records(root: Root, study: Studies) -> list[tuple[str, CellRecord]]:
    source = open_records(root)
    known = source.studies()
    names = [study] if isinstance(study, str) else known if study is None else list(study)
    for name in names:
        _check_known(known, root, name)
    return [(name, record) for name in names for record in source.records(name)]


def _check_known(known: Sequence[str], root: Root, study: str) -> None:
    if study not in known:
        raise AnalysisError(
            f"no study {study!r} in {root}; there are: {', '.join(known) or 'none'}"
        )
