"""The paper's claims as tests on records: reproduced, contradicted or undecided.

One file per section of the paper: the tests, then the claims that they decide. Claims of section
"ours" are on what the paper does not vary.

>>> print(format_verdicts(judge_study("runs", "glyphs")))
>>> to_frame(judge_paper())
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims import (
    batch,
    beta2,
    branches,
    composition,
    corruption,
    duration,
    embedding,
    false_negatives,
    initial,
    languages,
    matched_pairs,
    pairs_map,
    queues,
    recipe,
    scaling_rules,
    temperature,
)
from analysis.claims.claim import OURS, Claim, Evidence, Verdict, adjust, conclude
from analysis.claims.formatting import (
    count_verdicts,
    format_number,
    format_p,
    format_verdicts,
    parse_intervals,
    to_frame,
    to_json,
)
from analysis.errors import AnalysisError
from analysis.paper import as_cells
from analysis.records import frame
from analysis.records.scores import ItemReader
from analysis.select.fields import TOP1, usual_quality

__all__ = [
    "CLAIMS", "OURS", "Claim", "Evidence", "Verdict", "conclude", "count_verdicts", "format_number",
    "format_p", "format_verdicts", "judge", "judge_paper", "judge_study", "parse_intervals",
    "to_frame", "to_json",
]  # fmt: skip

_FILES = (
    batch, duration, languages, embedding, recipe, beta2, composition, matched_pairs, initial,
    corruption, pairs_map, scaling_rules, branches, queues, false_negatives,
    temperature,
)  # fmt: skip
# The paper's claims by section, then our own.
CLAIMS = tuple(
    sorted((claim for file in _FILES for claim in file.CLAIMS), key=lambda c: c.section == OURS)
)


def judge_study(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> list[Verdict]:
    """Tests every claim on the finished cells of a study.

    Args:
      metric: the column of quality, in percent; None is `usual_quality`.
      planned, records: as for `frame.cells`.

    Raises:
      AnalysisError: the root or the study does not exist.
    """
    cells = frame.cells(root, study, planned=planned, records=records)

    def read_rows() -> pd.DataFrame:
        rows = frame.rows(root, records or study)
        return rows[rows["id"].isin(cells["id"])]

    read_items = frame.item_reader(root, records or study)
    metric = metric or usual_quality(cells)
    return judge(cells, metric=metric, read_rows=read_rows, read_items=read_items)


def judge(
    cells: pd.DataFrame,
    *,
    metric: str = TOP1,
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame,
    read_items: ItemReader = lambda cell, metric: None,
    claims: Sequence[Claim] = CLAIMS,
) -> list[Verdict]:
    """Tests claims, all by default, on a frame of cells, see `frame.cells`.

    Their p-values are adjusted for the false discovery rate over these claims, see `adjust`.

    Args:
      metric: the column of quality, in percent.
      read_rows: reads the logged rows, see `frame.rows`; called when a claim needs curves.
      read_items: reads which test examples a cell got right, see `frame.item_reader`.
    """
    evidence = Evidence(cells=cells, metric=metric, read_rows=read_rows, read_items=read_items)
    paper = _paper_estimates()
    return adjust(
        [claim.judge(evidence, paper=paper.get(claim.name, math.nan)) for claim in claims]
    )


def judge_paper() -> list[Verdict]:
    """Tests every claim on the numbers that the paper prints, of one run each.

    Intervals are from the spread of its repeated runs, see `as_cells.run_spread`.

    Raises:
      AnalysisError: the file of the paper's numbers does not exist.
    """
    evidence = Evidence(cells=as_cells.cells(), spread=as_cells.run_spread())
    return adjust([claim.judge(evidence) for claim in CLAIMS])


@functools.cache
def _paper_estimates() -> dict[str, float]:
    """The estimates on the paper's own numbers, to show next to those of a study."""
    try:
        return {verdict.name: verdict.estimate for verdict in judge_paper()}
    except AnalysisError:
        return {claim.name: math.nan for claim in CLAIMS}
