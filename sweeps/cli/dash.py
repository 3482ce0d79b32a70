"""`study dash`: a study's wandb workspace, saved where there is a network, else as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from study.records.record import write_json
from study.records.wandb_mirror import why_offline
from sweeps import wandb_workspace as dash
from sweeps.study import Study, StudyError


def run(study: Study, *, out: str | None) -> int:
    """Saves the workspace, or writes or prints what it would be; returns the exit code."""
    if out is None and (why := why_offline()) is None:
        print(dash.save(study))
        return 0
    entity, project = dash.place()
    spec = dash.spec(dash.workspace(study, entity=entity, project=project))
    if out is None:
        print(f"not saved, only printed: {why}", file=sys.stderr)
        print(json.dumps(spec, indent=1))
        return 0
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(out), spec)
    except OSError as error:
        raise StudyError(f"cannot write {out}: {error.strerror or error}") from None
    print(out)
    return 0
