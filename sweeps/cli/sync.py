"""`study sync`: upload the runs that were mirrored to W&B offline."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import Only, Root, Set, StudyName, root_of, study_of

BATCH = 200  # files in one call of `wandb sync`


def sync(
    name: StudyName,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files, and upload nothing.")
    ] = False,
) -> int:
    """Upload the runs that were mirrored to W&B offline.

    A run of several attempts is uploaded in their order. Runs of cells that are being trained are
    left for a later call, and uploaded runs are marked and left out.
    """
    from study.records.storage import is_bucket, listdir, resolve, write
    from study.records.wandb_mirror import why_offline
    from sweeps.runner import cell_status
    from sweeps.study import StudyError, abbreviate

    study = study_of(name, None, settings, only)
    folder = resolve(root_of(root)).absolute()
    statuses = cell_status.read(study, folder)
    if all(status.state == "pending" for status in statuses) and not listdir(study.folder(folder)):
        raise StudyError(f"no records of {study.name} in {root}; `study run` creates them")
    running = [status.cell.id for status in statuses if status.state == "running"]
    files = [
        file
        for status in statuses
        if status.state != "running"
        for file in sorted((status.folder / "wandb").glob("offline-run-*/*.wandb"))
        if not _mark(file).exists()
    ]
    if running:
        print(f"left for later, because it is being trained: {abbreviate(running)}")
    if dry_run:
        for file in files:
            print(file)
    if dry_run or not files:
        print(f"{len(files)} files to upload")
        return 0
    if (reason := why_offline()) is not None:
        raise StudyError(f"nothing is uploaded: {reason}")
    if not is_bucket(folder):
        left = _upload(files)
    else:
        with tempfile.TemporaryDirectory(prefix="study-wandb-") as temp:
            copies = {Path(temp, *file.parts[-4:]): file for file in files}
            for copy, file in copies.items():
                copy.parent.mkdir(parents=True)
                copy.write_bytes(file.read_bytes())
            left = [copies[copy] for copy in _upload(list(copies))]
            for file in files:
                if file not in left:
                    write(_mark(file), b"")
    print(f"uploaded {len(files) - len(left)} of {len(files)} files")
    return 1 if left else 0


def _mark(file: Path) -> Path:
    """The file that `wandb sync` leaves beside one that it has uploaded."""
    return file.with_name(f"{file.name}.synced")


def _upload(files: Sequence[Path]) -> list[Path]:
    """Uploads files with W&B's own command; returns those that it did not upload."""
    # Without it, wandb replaces the rows of a run's first attempt with those of the next.
    environ = {**os.environ, "WANDB_RESUME": "allow"}
    environ.pop("WANDB_MODE", None)
    for start in range(0, len(files), BATCH):
        batch = [str(file) for file in files[start : start + BATCH]]
        subprocess.run([sys.executable, "-m", "wandb", "sync", *batch], env=environ, check=False)
    return [file for file in files if not _mark(file).exists()]
