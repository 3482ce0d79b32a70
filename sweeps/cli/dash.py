"""`study dash`: save a study's wandb workspace, or print it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import Only, Set, StudyName, local, study_of


def dash(
    name: StudyName,
    settings: Set = None,
    only: Only = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=local,
            help="Write the workspace JSON to FILE instead of saving it to W&B.",
        ),
    ] = None,
) -> int:
    """Save the study's W&B workspace, and print its URL.

    Without an API key or a network, prints the workspace as JSON.
    """
    from study.records.record import write_json
    from study.records.wandb_mirror import why_offline
    from sweeps import wandb_workspace
    from sweeps.study import StudyError

    study = study_of(name, None, settings, only)
    if out is None and (reason := why_offline()) is None:
        print(wandb_workspace.save(study))
        return 0
    spec = wandb_workspace.to_json(wandb_workspace.build(study))
    if out is None:
        print(f"not saved, only printed: {reason}", file=sys.stderr)
        print(json.dumps(spec, indent=1))
        return 0
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(out), spec)
    except OSError as error:
        raise StudyError(f"cannot write {out}: {error.strerror or error}") from None
    print(out)
    return 0
