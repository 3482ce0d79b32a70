"""`study pull`: make a snapshot of records, or verify one."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import Json, complete_study, local

if TYPE_CHECKING:
    from analysis.records.record import RecordRoot

OFFLINE, SERVER = "wandb-offline:", "wandb:"


def pull(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY",
            show_default="all in --from",
            help="Studies.",
            autocompletion=complete_study,
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="STUDY_ROOT",
            metavar="SOURCE",
            help="A folder, bucket or snapshot; wandb-offline:DIR; or wandb:ENTITY/PROJECT.",
        ),
    ] = "runs",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", callback=local, show_default="snapshots/STUDY", help="Output directory."
        ),
    ] = None,
    merge_from: Annotated[
        str | None,
        typer.Option(
            metavar="SNAPSHOT", help="Add the cells of this snapshot that are not done in --from."
        ),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            show_default="all",
            help="Keep per-example results of this metric only (repeatable).",
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Include W&B runs that have not ended.")
    ] = False,
    verify: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="Verify this snapshot instead.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Create an immutable, checksummed snapshot of records.

    Of a folder that several studies share it holds the cells of those that are named, and those
    that no grid lists. An interrupted command can be repeated. pandas.read_parquet opens the
    snapshot's cells.parquet, rows.parquet and items.parquet.
    """
    from analysis.records import snapshot
    from analysis.records.frame import open_records, open_snapshot
    from sweeps.cli.recorded import own_cells, stated_today
    from sweeps.runner.display import ProgressLine

    if verify is not None:
        checked = open_snapshot(verify)
        files, about = checked.verify(), {k: checked.manifest[k] for k in ("records", "sha256")}
        if as_json:
            print(json.dumps({"snapshot": verify, "files": files, **about}, indent=1))
        else:
            print(f"{verify}: {files} files are unchanged; records {about['records'][:10]}")
        return 0
    folder = Path(out or f"snapshots/{studies[0] if studies and len(studies) == 1 else 'all'}")
    staging = folder.with_name(f".{folder.name}.pulling")
    kind = "records"
    versions: dict[str, str] = {}
    notes: list[str] = []
    count = itertools.count(1)
    with ProgressLine() as bar:

        def progress(name: str) -> None:
            bar(name, next(count))

        earlier = open_snapshot(merge_from) if merge_from else None
        records: Any
        if source.startswith((OFFLINE, SERVER)):
            kind = source.partition(":")[0]
            versions = {"wandb": importlib.metadata.version("wandb")}
            pull_runs = _pull_server if kind == "wandb" else _pull_offline
            records, notes = pull_runs(studies or [], source, staging, unfinished, progress)
        else:
            records = open_records(source)
        whole = snapshot.Joined(records, earlier) if earlier else records
        kept = whole.manifest if isinstance(whole, snapshot.Snapshot) else {}
        grids = kept.get("grids") or stated_today(whole)  # a copy states what it stated
        folders, left_out = own_cells(studies or [], grids, whole.studies())
        manifest = snapshot.write(
            snapshot.Selected(whole, left_out),
            folder,
            studies=folders or None,
            kind=kind,
            versions=versions,
            progress=progress,
            items=items or None,
            grids=grids,
        )
    if kind != "records":
        shutil.rmtree(staging, ignore_errors=True)
    if as_json:
        about = {k: manifest[k] for k in ("from", "records", "sha256", "versions", "studies")}
        print(json.dumps({"snapshot": str(folder), **about, "notes": notes}, indent=1))
    else:
        for note in notes:
            print(note)
        print(_table(manifest, folder))
    return 0


Pulled = tuple["RecordRoot", list[str]]


def _pull_server(
    studies: Sequence[str],
    source: str,
    staging: Path,
    unfinished: bool,
    progress: Callable[[str], None],
) -> Pulled:
    """Writes the runs of a W&B project to `staging` as records.

    `staging` is kept if this fails, and what it holds is not fetched again.
    """
    from analysis.wandb import api

    fetched = api.fetch(
        api.connect(),
        source.removeprefix(SERVER),
        staging,
        studies=studies or None,
        unfinished=unfinished,
        progress=progress,
    )
    notes = []
    if fetched.kept:
        notes.append(f"{_runs(len(fetched.kept), 'was', 'were')} fetched before")
    return _open_staging(staging, source, studies, notes, skipped=len(fetched.skipped))


def _pull_offline(
    studies: Sequence[str],
    source: str,
    staging: Path,
    unfinished: bool,
    progress: Callable[[str], None],
) -> Pulled:
    """Writes the runs of .wandb files to `staging` as records."""
    from analysis.errors import AnalysisError
    from analysis.wandb import offline
    from analysis.wandb.runs import write_record

    shutil.rmtree(staging, ignore_errors=True)
    runs = offline.read_runs(Path(source.removeprefix(OFFLINE)), progress=progress)
    chosen = [run for run in runs if run.of_a_cell and (not studies or run.study in studies)]
    open_ended = [run.id for run in chosen if run.state == "running"]
    if open_ended and not unfinished:
        raise AnalysisError(
            f"{_runs(len(open_ended), 'has', 'have')} not ended, such as {open_ended[0]}, which "
            "is running or was killed; --unfinished includes them"
        )
    for run in chosen:
        write_record(run, staging)
    skipped = sum(not run.of_a_cell for run in runs)
    return _open_staging(staging, source, studies, [], skipped=skipped)


def _open_staging(
    staging: Path, source: str, studies: Sequence[str], notes: list[str], *, skipped: int
) -> Pulled:
    from analysis.errors import AnalysisError
    from analysis.records.record import RecordRoot

    records = RecordRoot(staging)
    if not records.studies():
        of = f" of {', '.join(studies)}" if studies else ""
        raise AnalysisError(f"no runs{of} in {source} that mirror cells of a study")
    if skipped:
        notes.append(f"{_runs(skipped, 'does', 'do')} not belong to a study; skipped")
    return records, notes


def _runs(count: int, one: str, many: str) -> str:
    return f"1 run {one}" if count == 1 else f"{count} runs {many}"


def _table(manifest: dict[str, Any], folder: Path) -> str:
    from sweeps.cli.table import table

    rows = []
    for study, counts in manifest["studies"].items():
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts["states"].items()))
        numbers = (f"{counts[key]:,}" for key in ("rows", "dropped_lines"))
        rows.append((study, str(counts["cells"]), states, *numbers))
    head = ("study", "cells", "states", "rows", "torn lines")
    size = sum(file["bytes"] for file in manifest["files"].values())
    return (
        f"{table(head, rows, right={1, 3, 4})}\n{folder}: {len(manifest['files'])} files, "
        f"{size / 1024:,.0f} KiB; records {manifest['records'][:10]}"
    )
