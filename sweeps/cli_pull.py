"""`study pull`: makes a snapshot of records, and checks one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis import snapshot
from analysis.errors import AnalysisError
from analysis.record import RecordRoot, opened
from sweeps.table import table

FILES, SERVER = "wandb-offline:", "wandb:"


def pull(
    studies: Sequence[str],
    source: str,
    out: str | None,
    *,
    unfinished: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Makes the snapshot `out` of `studies` (none: all) in `source`; returns the exit code."""
    where = Path(out or f"snapshots/{studies[0] if len(studies) == 1 else 'all'}")
    if "://" in str(out):
        raise AnalysisError(f"--out {out}: give a folder; a snapshot can be copied to a bucket")
    tell = _progress()
    notes: list[str] = []
    records: RecordRoot | snapshot.Snapshot
    if source.startswith((FILES, SERVER)):
        records, kind, notes = _from_wandb(studies, source, where, unfinished, check, tell)
    else:
        records, kind = opened(source), "records"
    more = {} if kind == "records" else _wandb_version()
    try:
        made = snapshot.write(
            records, where, studies=studies or None, kind=kind, versions=more, progress=tell
        )
    finally:
        tell("")
    if kind != "records":
        shutil.rmtree(_staging(where))
    if as_json:
        cells = [
            {"study": study, "id": name, **about}
            for study, known in made["studies"].items()
            for name, about in known.items()
        ]
        told = {k: made[k] for k in ("from", "records", "sha256", "versions")}
        print(
            json.dumps({"snapshot": str(where), **told, "notes": notes, "cells": cells}, indent=1)
        )
    else:
        for note in notes:
            print(note)
        print(_text(made, where))
    return 0


def verify(where: str, *, as_json: bool) -> int:
    """Checks every file of a snapshot; returns the exit code."""
    found = opened(where)
    if not isinstance(found, snapshot.Snapshot):
        raise AnalysisError(f"{where} is no snapshot: it has no manifest.json")
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
    check: bool,
    tell: Callable[[str], None],
) -> tuple[RecordRoot, str, list[str]]:
    """Records made from wandb's runs, beside the snapshot to be; they stay there if it fails."""
    staging = _staging(where)
    staging.mkdir(parents=True, exist_ok=True)
    if source.startswith(SERVER):
        from analysis import wandb_api

        fetched = wandb_api.fetch(
            wandb_api.connect(),
            source.removeprefix(SERVER),
            staging,
            studies=studies or None,
            unfinished=unfinished,
            progress=tell,
        )
        skipped, kind = len(fetched.skipped), "wandb"
        kept = [f"{len(fetched.kept)} runs were fetched before"] if fetched.kept else []
    else:
        from analysis import wandb_files, wandb_runs

        shutil.rmtree(staging)
        staging.mkdir()
        runs = wandb_files.runs(Path(source.removeprefix(FILES)), check=check, progress=tell)
        ours = [r for r in runs if r.of_a_cell and (not studies or r.study in studies)]
        going_on = [run.id for run in ours if run.state == "running"]
        if going_on and not unfinished:
            shutil.rmtree(staging)
            raise AnalysisError(
                f"{len(going_on)} runs have no end, such as {going_on[0]}: they go on or were "
                "killed; take them as they are with --unfinished"
            )
        for run in ours:
            wandb_runs.write_record(run, staging)
        skipped, kind, kept = sum(not run.of_a_cell for run in runs), "wandb-offline", []
    if skipped:
        kept.append(f"{skipped} runs are of no cell of a study; left out")
    return RecordRoot(staging), kind, kept


def _staging(where: Path) -> Path:
    return where.with_name(f".{where.name}.wandb")


def _wandb_version() -> dict[str, str]:
    from importlib.metadata import version

    return {"wandb": version("wandb")}


def _text(made: dict[str, Any], where: Path) -> str:
    rows = []
    for study, cells in made["studies"].items():
        states: dict[str, int] = {}
        for cell in cells.values():
            states[cell["status"]] = states.get(cell["status"], 0) + 1
        said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        counts = [sum(cell[k] for cell in cells.values()) for k in ("rows", "dropped_lines")]
        rows.append((study, str(len(cells)), said, *(f"{count:,}" for count in counts)))
    head = ("study", "cells", "states", "rows", "torn lines")
    size = sum(file["bytes"] for file in made["files"].values())
    return (
        f"{table(head, rows, right={1, 3, 4})}\n{where}: {len(made['files'])} files, "
        f"{size / 2**20:.1f} MiB; records {made['records'][:10]}"
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
