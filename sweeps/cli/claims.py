"""`study claims`: the paper's claims on a study's records, or on the paper's own numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import analysis
from sweeps.study import StudyError


def claims(
    study: str | None, root: str, *, metric: str | None, paper: bool, as_json: bool, **where: Any
) -> int:
    """Prints one verdict per claim.

    With `paper` also where the paper's text and its numbers disagree; as JSON that is an object
    of "verdicts" and "checks", without it a list of verdicts.

    Args:
      where: the grid's cells and the folder of their records, as for `analysis.claims.judge_study`.

    Raises:
      StudyError: neither a study nor `paper`, or both.
      AnalysisError: no such root or study, or the paper's numbers are not there.
    """
    if paper == (study is not None):
        raise StudyError(
            "name one study (`study claims demo`), or `--paper` alone for the paper's numbers"
        )
    if paper and metric:
        raise StudyError("--paper takes no --metric; leave it out")
    if study is not None:
        more = where | ({"metric": metric} if metric else {})
        found = analysis.claims.judge_study(root, study, **more)
        show = analysis.claims.to_json if as_json else analysis.claims.format_verdicts
        print(show(found))
        return 0
    found, checks = analysis.claims.judge_paper(), analysis.paper.check_text()
    if as_json:
        verdicts = json.loads(analysis.claims.to_json(found))
        both = {"verdicts": verdicts, "checks": [asdict(check) for check in checks]}
        print(json.dumps(both, indent=1))
    else:
        print(analysis.claims.format_verdicts(found))
        print()
        print(analysis.paper.format_checks(checks))
    return 0
