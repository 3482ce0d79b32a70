"""`study dash`: save a study's wandb workspace, or print it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import (
    Json,
    Only,
    Root,
    Set,
    StudyName,
    local,
    root_of,
    study_of,
)
from sweeps.cli.recorded import recorded_study

if TYPE_CHECKING:
    from sweeps.study import Study


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
    panels: Annotated[
        bool,
        typer.Option(
            "--panels",
            help="Print, as Markdown, what each panel shows of the records under --root.",
        ),
    ] = False,
    root: Root = "runs",
    as_json: Json = False,
) -> int:
    """Save the study's W&B workspace, and print its URL.

    --out, --json and --panels save nothing and need no network. Without an API key or a network,
    the workspace is printed as JSON.
    """
    from study.records.record import write_json
    from study.records.wandb_mirror import why_offline
    from sweeps import wandb_workspace
    from sweeps.study import StudyError

    study = study_of(name, None, settings, only)
    if (out is not None) + panels + as_json > 1:
        raise StudyError("give one of --out, --panels and --json")
    if panels:
        print(_describe(study, name, root_of(root), settings, only))
        return 0
    reason = None
    if out is None and not as_json and (reason := why_offline()) is None:
        print(wandb_workspace.save(study))
        return 0
    spec = wandb_workspace.to_json(wandb_workspace.build(study))
    if out is None:
        if reason is not None:
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


def _describe(
    study: Study, name: str, root: str, settings: list[str] | None, only: list[str] | None
) -> str:
    from analysis.figures import read_inputs
    from analysis.records.frame import NOT_STARTED
    from sweeps import wandb_workspace
    from sweeps.cli.panels import describe

    recorded, where = recorded_study(name, root, settings, only)
    inputs = read_inputs(root, recorded, **where)
    cells = inputs.cells[inputs.cells["status"] != NOT_STARTED]
    spec = wandb_workspace.to_json(wandb_workspace.build(study))
    return describe(study.name, spec, cells, inputs.rows)
