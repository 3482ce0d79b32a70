"""`study pull`: makes a snapshot of records, and checks one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.errors import AnalysisError
from analysis.records import snapshot
from analysis.records.frame import open_records, open_snapshot
from analysis.records.record import RecordRoot
from sweeps.cli.options import local
from sweeps.cli.table import table

EXAMPLE = "Example: study pull demo --from gs://lab/runs --out snapshots/demo"
FILES, SERVER = "wandb-offline:", "wandb:"


def pull(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies.  [default: all that are there]"),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="STUDY_ROOT",
            metavar="PLACE",
            help="A folder, bucket or snapshot; wandb-offline:DIR; or wandb:ENTITY/PROJECT.",
        ),
    ] = "runs",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", callback=local, help="Where to.  [default: snapshots/STUDY]"
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--merge-from",
            metavar="SNAPSHOT",
            help="Takes over the cells of an earlier snapshot that are not done in --from.",
        ),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            "--items",
            metavar="METRIC",
            help="Keeps the evaluated examples of this metric only. May be repeated.  "
            "[default: of all]",
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Take wandb runs that have no end, too.")
    ] = False,
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="SNAPSHOT", help="Pull nothing: check a snapshot."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """Makes a snapshot of records: small, typed and hashed, for figures and for keeping.

    Interrupted, the same command goes on. pandas.read_parquet opens cells.parquet, rows.parquet and
    items.parquet of a snapshot. Exit codes: 0 made (or unchanged), 2 bad input or a changed file.
    """
    if verify is not None:
        return check_snapshot(verify, as_json=as_json)
    return make(
        studies or [],
        source,
        out,
        keep,
        items=items or None,
        unfinished=unfinished,
        as_json=as_json,
    )


def make(
    studies: Sequence[str],
    source: str,
    out: str | None,
    keep: str | None = None,
    *,
    items: Sequence[str] | None = None,
    unfinished: bool,
    as_json: bool,
) -> int:
    """Makes the snapshot `out` of `studies` (none: all) in `source`, and of the cells in the
    snapshot `keep` that are not done there; returns the exit code.

    Args:
      items: see `snapshot.write`.
    """
    where = Path(out or f"snapshots/{studies[0] if len(studies) == 1 else 'all'}")
    tell = _progress()
    notes: list[str] = []
    earlier = open_snapshot(keep) if keep else None
    records: RecordRoot | snapshot.Snapshot | snapshot.Joined
    if source.startswith((FILES, SERVER)):
        records, kind, notes = _from_wandb(studies, source, where, unfinished, tell)
    else:
        records, kind = open_records(source), "records"
    if earlier:
        records = snapshot.Joined(records, earlier)
    more = {} if kind == "records" else _wandb_version()
    try:
        made = snapshot.write(
            records,
            where,
            studies=studies or None,
            kind=kind,
            versions=more,
            progress=tell,
            items=items,
        )
    finally:
        tell("")
    if kind != "records":
        shutil.rmtree(_staging(where), ignore_errors=True)
    if as_json:
        told = {k: made[k] for k in ("from", "records", "sha256", "versions", "studies")}
        print(json.dumps({"snapshot": str(where), **told, "notes": notes}, indent=1))
    else:
        for note in notes:
            print(note)
        print(_text(made, where))
    return 0


def check_snapshot(where: str, *, as_json: bool) -> int:
    """Checks every file of a snapshot; returns the exit code."""
    found = open_snapshot(where)
    files = found.verify()
    told = {k: found.manifest[k] for k in ("records", "sha256")}
    if as_json:
        print(json.dumps({"snapshot": where, "files": files, **told}, indent=1))
    else:
        print(f"{where}: {files} files are as they were; records {told['records'][:10]}")
    return 0


def _from_wandb(
    studies: Sequence[str],
    source: str,
    where: Path,
    unfinished: bool,
    tell: Callable[[str], None],
) -> tuple[RecordRoot, str, list[str]]:
    """Records made from wandb's runs, beside the snapshot to be; they stay there if it fails."""
    staging = _staging(where)
    if source.startswith(SERVER):
        from analysis.wandb import api as wandb_api

        fetched = wandb_api.fetch(
            wandb_api.connect(),
            source.removeprefix(SERVER),
            staging,
            studies=studies or None,
            unfinished=unfinished,
            progress=tell,
        )
        skipped, kind = len(fetched.skipped), "wandb"
        kept = (
            [f"{_count(len(fetched.kept), 'was', 'were')} fetched before"] if fetched.kept else []
        )
    else:
        from analysis.wandb import offline as wandb_files
        from analysis.wandb import runs as wandb_runs

        shutil.rmtree(staging, ignore_errors=True)
        runs = wandb_files.read_runs(Path(source.removeprefix(FILES)), progress=tell)
        ours = [r for r in runs if r.of_a_cell and (not studies or r.study in studies)]
        going_on = [run.id for run in ours if run.state == "running"]
        if going_on and not unfinished:
            raise AnalysisError(
                f"{_count(len(going_on), 'has', 'have')} no end, such as {going_on[0]}, which goes "
                "on or was killed; take what there is with --unfinished"
            )
        for run in ours:
            wandb_runs.write_record(run, staging)
        skipped, kind, kept = sum(not run.of_a_cell for run in runs), "wandb-offline", []
    if not RecordRoot(staging).studies():
        asked = f" of {', '.join(studies)}" if studies else ""
        raise AnalysisError(f"no runs{asked} in {source} that mirror cells of a study")
    if skipped:
        kept.append(f"{_count(skipped, 'is', 'are')} of no cell of a study; left out")
    return RecordRoot(staging), kind, kept


def _count(runs: int, one: str, more: str) -> str:
    return f"1 run {one}" if runs == 1 else f"{runs} runs {more}"


def _staging(where: Path) -> Path:
    return where.with_name(f".{where.name}.pulling")


def _wandb_version() -> dict[str, str]:
    from importlib.metadata import version

    return {"wandb": version("wandb")}


def _text(made: dict[str, Any], where: Path) -> str:
    rows = []
    for study, counts in made["studies"].items():
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts["states"].items()))
        numbers = (f"{counts[key]:,}" for key in ("rows", "dropped_lines"))
        rows.append((study, str(counts["cells"]), states, *numbers))
    head = ("study", "cells", "states", "rows", "torn lines")
    size = sum(file["bytes"] for file in made["files"].values())
    return (
        f"{table(head, rows, right={1, 3, 4})}\n{where}: {len(made['files'])} files, "
        f"{size / 1024:,.0f} KiB; records {made['records'][:10]}"
    )


def _progress() -> Callable[[str], None]:
    """Counts on one line of a terminal; "" ends it. Silent elsewhere."""
    count = 0

    def tell(name: str) -> None:
        nonlocal count
        if not sys.stderr.isatty():
            return
        count = count + 1 if name else 0
        print(f"\r\x1b[K{f'{count} {name}' if name else ''}", end="", file=sys.stderr, flush=True)

    return tell
