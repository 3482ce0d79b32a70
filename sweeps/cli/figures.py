"""`study figures`: what was drawn and what is missing, in lines or as JSON. Imports no jax."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import analysis


def figures(
    names: list[str],
    root: str,
    out: str,
    metric: str | None,
    recorded: Callable[[str], tuple[str, dict[str, Any]]],
    *,
    only: list[str],
    as_json: bool,
) -> int:
    """Figures and tables of the studies, or of all that have records.

    recorded: a study's name and where its records are, as `draw_all` takes them.
    """
    names = names or analysis.frame.studies(root)
    if not names:
        raise analysis.AnalysisError(f"no records in {root}; `study run STUDY` makes them")
    found = []
    for name in names:
        study, where = recorded(name)
        drawn = analysis.figures.draw_all(root, study, out, metric=metric, only=only, **where)
        found += _told(study, f"{study}-", drawn, quiet=as_json)
    if as_json:
        print(json.dumps(found, indent=1))
    return 0


def paper(out: str, *, only: list[str], as_json: bool) -> int:
    """The paper's figures and tables from its own numbers."""
    found = _told("paper", "", analysis.figures.draw_paper(out, only=only), quiet=as_json)
    if as_json:
        print(json.dumps(found, indent=1))
    return 0


def _told(study: str, prefix: str, drawn: Any, *, quiet: bool) -> list[dict[str, Any]]:
    for one in drawn if not quiet else ():
        print(f"{prefix}{one.line}" if one.skipped is not None else one.line)
    return [
        {"study": study, "figure": one.name, "files": one.files}
        | {"missing": list(one.missing), "skipped": one.skipped}
        for one in drawn
    ]
