"""The study that a verb of results shows: its cells, its folder of records, what its grid states.

From records these are the cells that the grid lists today, with or without a record. A snapshot
is read whole, whatever the grid has become since.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.record import RecordRoot
    from analysis.records.snapshot import Joined, Snapshot
    from study.config import Cell
    from sweeps.study import Study

GRIDS = "grids"  # in a snapshot's manifest


def recorded_study(
    name: str, root: str, settings: list[str] | None = None, only: list[str] | None = None
) -> tuple[str, Mapping[str, Any]]:
    """The study's name, and its planned cells and folder as `analysis.frame.cells` takes them.

    Of a snapshot they are those that it holds, see `held_cells`. A study whose records are under
    `root`, but whose grid is gone, has its name only: `settings` and `only` select from a grid.

    Raises:
      StudyError: no such study, or no cell matches `settings` and `only`.
      AnalysisError: the snapshot was changed.
    """
    import analysis
    from study.config import to_dict
    from study.models.flops import step_flops
    from sweeps.planning.calibrate import channels_of
    from sweeps.registry import load_study
    from sweeps.selection import select
    from sweeps.study import StudyError

    try:
        study = load_study(name)
    except StudyError:
        if "/" not in name and not settings and not only:
            with contextlib.suppress(analysis.AnalysisError):  # no such root
                if name in analysis.frame.studies(root):
                    return name, {}
        raise
    if held := held_cells(study, root):
        if not only and not settings:
            _note_differences(study, held)
        study = dataclasses.replace(study, cells=tuple(held.values()), matched=())
    study = select(study, settings=settings or [], only=only or [])
    cells = [cell for cell in study.cells if not held or cell.id in held]
    flops = [step_flops(cell, channels=channels_of(cell)) for cell in cells]
    planned = [
        {
            "id": cell.id,
            "cell": to_dict(cell),
            "steps": cell.steps,
            "examples": cell.examples,
            "pairs_per_step": cell.pairs_per_step,
            "flops": {"towers": step.towers, "loss": step.loss},
        }
        for cell, step in zip(cells, flops, strict=True)
    ]
    return study.name, {"planned": planned, "records": study.group}


def held_cells(study: Study, root: str) -> dict[str, Cell]:
    """The cells of a study in a snapshot, by id; none where `root` is no snapshot with any.

    They are those that the grid listed when the snapshot was made, in its order; in a snapshot of a
    part of the study, that part. Of a snapshot that does not say they are all, or, where several
    studies share a folder, those listed today.
    """
    from study.config import from_dict

    snapshot = _snapshot(root)
    if snapshot is None or study.group not in snapshot.studies():
        return {}
    known = {record.id: record.about for record in snapshot.records(study.group)}
    listed = snapshot.manifest.get(GRIDS, {}).get(study.name, {}).get("cells")
    if listed is None and study.name != study.group:
        listed = [cell.id for cell in study.cells if cell.id in known]
    chosen = {name: known[name] for name in listed or known if name in known}
    return {name: from_dict(about["cell"]) for name, about in chosen.items() if about}


def stated_by(study: Study) -> dict[str, Any]:
    """What a grid states about a study and no cell holds."""
    assumptions = [dataclasses.asdict(assumption) for assumption in study.assumptions]
    return {"question": study.question, "paper": study.paper, "assumptions": assumptions}


def own_cells(
    names: Sequence[str], grids: Mapping[str, Any], folders: Collection[str]
) -> tuple[list[str], dict[str, set[str]]]:
    """The folders of these studies, and which cells there are of other studies alone, by folder.

    Args:
      names: of studies, or of folders.
      grids: what is known of the studies, see `stated_today`.
      folders: those that hold records.
    """
    own: dict[str, set[str]] = {}
    for name in names:
        grid = grids.get(name, {"folder": name, "cells": ()})
        own.setdefault(name if name in folders else grid["folder"], set()).update(grid["cells"])
    left_out: dict[str, set[str]] = {}
    for grid in grids.values():
        if mine := own.get(grid["folder"]):
            left_out.setdefault(grid["folder"], set()).update({*grid["cells"]} - mine)
    return list(own), left_out


def stated_in(study: Study, root: str) -> dict[str, Any]:
    """The same, as the snapshot at `root` has it; as today's grid has it where none has."""
    snapshot = _snapshot(root)
    kept: dict[str, dict[str, Any]] = snapshot.manifest.get(GRIDS, {}) if snapshot else {}
    return kept.get(study.name) or stated_by(study)


def stated_today(records: RecordRoot | Snapshot | Joined) -> dict[str, Any]:
    """What the built-in grids state today about `records`, by study, as a snapshot keeps it.

    "cells" has the ids of those recorded. A study is left out if none of its cells is.
    """
    from sweeps.registry import builtin_studies, load_study

    ids = {name: {each.id for each in records.records(name)} for name in records.studies()}
    stated = {}
    for study in map(load_study, builtin_studies()):
        if own := [cell.id for cell in study.cells if cell.id in ids.get(study.group, ())]:
            stated[study.name] = {"folder": study.group, **stated_by(study), "cells": own}
    return stated


def note_unplanned(cells: pd.DataFrame, only: list[str] | None) -> None:
    """Says on standard error how many recorded cells of the study its grid does not list.

    With `only`, the others are left out on purpose.
    """
    if (count := cells.attrs["unplanned"]) and not only:
        print(
            f"study: {count} recorded cells that the grid does not list are left out; cells of "
            "a --set are shown with the same --set",
            file=sys.stderr,
        )


def _note_differences(study: Study, held: Mapping[str, Cell]) -> None:
    """Says on standard error in what a snapshot and the grid of today differ."""
    listed = {cell.id for cell in study.cells}
    differences = []
    if missing := len(listed - {*held}):
        differences.append(f"{missing} cells of the grid are not in the snapshot")
    if more := len({*held} - listed):
        differences.append(f"{more} cells of the snapshot are shown that the grid does not list")
    if differences:
        print(f"study: {study.name}: {'; '.join(differences)}", file=sys.stderr)


def _snapshot(root: str) -> Snapshot | None:
    from analysis import AnalysisError
    from analysis.records.frame import open_records
    from analysis.records.snapshot import Snapshot

    try:
        records = open_records(root)
    except AnalysisError:  # no such root: whoever reads the records says so
        return None
    return records if isinstance(records, Snapshot) else None
