"""The paper's claims as tests on records: reproduced, contradicted or undecided.

>>> print(format_verdicts(judge_study("runs", "glyphs")))
>>> print(format_verdicts(judge_paper()))
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims.catalogue import CLAIMS, Claim
from analysis.claims.evidence import Evidence
from analysis.claims.formatting import Verdict, format_verdicts, to_json
from analysis.errors import AnalysisError
from analysis.paper import as_cells
from analysis.records import frame
from analysis.select.panels import TOP1

__all__ = [
    "CLAIMS", "Claim", "Evidence", "Verdict", "format_verdicts", "judge", "judge_paper",
    "judge_study", "to_json",
]  # fmt: skip


def judge_study(
    root: str | Path,
    study: str,
    *,
    metric: str = TOP1,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> list[Verdict]:
    """Every claim on the finished cells of a study.

    Args:
      metric: the column of quality, in percent.
      planned, records: as for `frame.cells`.

    Raises:
      AnalysisError: no such root or study.
    """
    cells = frame.cells(root, study, planned=planned, records=records)

    def read_rows() -> pd.DataFrame:
        rows = frame.rows(root, records or study)
        return rows[rows["id"].isin(cells["id"])]

    return judge(cells, metric=metric, read_rows=read_rows)


def judge(
    cells: pd.DataFrame,
    *,
    metric: str = TOP1,
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame,
    claims: Sequence[Claim] = CLAIMS,
) -> list[Verdict]:
    """Claims, all by default, on a frame of cells, see `frame.cells`.

    Args:
      read_rows: gives the logged lines, see `frame.rows`, when a claim asks for curves.
    """
    evidence = Evidence(cells=cells, metric=metric, read_rows=read_rows)
    paper = _paper_estimates()
    return [_verdict(claim, evidence, paper[claim.name]) for claim in claims]


def judge_paper() -> list[Verdict]:
    """Every claim on the numbers that the paper prints: its intervals are those of rounding.

    Raises:
      AnalysisError: the paper's numbers are not there.
    """
    evidence = Evidence(cells=as_cells.cells(), rounding=as_cells.ROUNDING)
    return [_verdict(claim, evidence, math.nan) for claim in CLAIMS]


def _verdict(claim: Claim, evidence: Evidence, paper: float) -> Verdict:
    finding = claim.test(evidence)
    if finding.verdict == "no data":
        finding = replace(finding, decide=f"cells: {claim.needs}")
    return Verdict(
        name=claim.name,
        claim=claim.sentence,
        section=claim.section,
        paper=paper,
        **{part.name: getattr(finding, part.name) for part in fields(finding)},
    )


@functools.cache
def _paper_estimates() -> dict[str, float]:
    """The estimates on the paper's own numbers, to stand beside ours."""
    try:
        return {one.name: one.estimate for one in judge_paper()}
    except AnalysisError:
        return {claim.name: math.nan for claim in CLAIMS}
