"""The paper's claims as tests on records: reproduced, contradicted or undecided.

>>> print(format_verdicts(verdicts("runs", "glyphs")))
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from analysis import batch_claims, composition_claims
from analysis.errors import AnalysisError
from analysis.findings import Finding, Kind, number
from analysis.frame import cells as read_cells
from analysis.panels import TOP1

KINDS: tuple[Kind, ...] = ("reproduced", "contradicted", "undecided", "no data")
WIDTH = 110  # characters of the table


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper, in our words, and the test that decides it.

    panel: the cells it is about: cached image embeddings, both towers trained ("vit"), or the
      kept negatives.
    """

    name: str
    sentence: str
    section: str
    panel: Literal["cached", "vit", "composition"]
    test: Callable[[Any], Finding]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim's finding on a study. `paper` is the same estimate on the paper's own numbers."""

    name: str
    claim: str
    section: str
    verdict: Kind
    estimate: float
    low: float
    high: float
    unit: str
    cells: int
    sentence: str
    paper: float


CLAIMS = (
    Claim(
        name="sigmoid ahead at small batch",
        sentence="With small batches the sigmoid loss is clearly better than the softmax loss.",
        section="4.1",
        panel="cached",
        test=batch_claims.ahead_at_small,
    ),
    Claim(
        name="gap closes with batch",
        sentence="As the batch grows, the gap between the losses closes.",
        section="4.1",
        panel="cached",
        test=batch_claims.gap_closes,
    ),
    Claim(
        name="losses level at large batch",
        sentence="With large batches the two losses are about level.",
        section="4.1",
        panel="cached",
        test=batch_claims.level_at_large,
    ),
    Claim(
        name="too large a batch hurts",
        sentence="At a fixed budget, a batch beyond the best one lowers the quality.",
        section="4.1, 4.2",
        panel="cached",
        test=batch_claims.too_large_hurts,
    ),
    Claim(
        name="quality saturates",
        sentence="Beyond a moderate batch size there is little left to gain.",
        section="4.1",
        panel="cached",
        test=batch_claims.saturates,
    ),
    Claim(
        name="dropping random negatives hurts",
        sentence="Fewer negatives, dropped at random, lower the quality.",
        section="4.8",
        panel="composition",
        test=composition_claims.random_hurts,
    ),
    Claim(
        name="easy negatives alone fail",
        sentence="Keeping only the easiest negatives does not work.",
        section="4.8",
        panel="composition",
        test=composition_claims.easy_fails,
    ),
    Claim(
        name="hard negatives nearly keep quality",
        sentence="Keeping only the hardest negatives nearly maintains the quality.",
        section="4.8",
        panel="composition",
        test=composition_claims.hard_keeps,
    ),
    Claim(
        name="bias rises as negatives fall",
        sentence="With fewer random negatives the learned bias becomes more positive.",
        section="4.8",
        panel="composition",
        test=composition_claims.bias_rises,
    ),
    Claim(
        name="positive logits rise",
        sentence="With fewer random negatives the logits of positives become more positive.",
        section="4.8",
        panel="composition",
        test=composition_claims.positives_rise,
    ),
    Claim(
        name="negative logits rise",
        sentence="With fewer random negatives the logits of negatives become more positive.",
        section="4.8",
        panel="composition",
        test=composition_claims.negatives_rise,
    ),
    Claim(
        name="hard: positive logits flat",
        sentence="With hard negatives the logits of positives stay mostly flat.",
        section="4.8",
        panel="composition",
        test=composition_claims.hard_is_flat,
    ),
    Claim(
        name="from scratch: sigmoid ahead",
        sentence="With both towers trained, sigmoid is ahead of softmax at small batches.",
        section="4.2",
        panel="vit",
        test=batch_claims.ahead_at_small,
    ),
)


def verdicts(
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
    cells = read_cells(root, study, planned=planned, records=records)
    return judge(cells, metric=metric)


def judge(cells: pd.DataFrame, *, metric: str = TOP1) -> list[Verdict]:
    """Every claim on a frame of cells, see `frame.cells`."""
    data: Mapping[str, Any] = {
        "cached": batch_claims.from_cells(cells, "cached", metric),
        "vit": batch_claims.from_cells(cells, "vit", metric),
        "composition": composition_claims.from_cells(cells, metric),
    }
    return [_verdict(claim, claim.test(data[claim.panel])) for claim in CLAIMS]


def _verdict(claim: Claim, finding: Finding) -> Verdict:
    return Verdict(
        name=claim.name,
        claim=claim.sentence,
        section=claim.section,
        paper=_paper(claim),
        **asdict(finding),
    )


def _paper(claim: Claim) -> float:
    if claim.panel == "composition":
        return math.nan  # the paper prints no numbers for Fig. 6
    try:
        return claim.test(batch_claims.from_paper(claim.panel)).estimate
    except AnalysisError:
        return math.nan


def format_verdicts(found: Iterable[Verdict]) -> str:
    """A table for a terminal: one line of numbers and one or two of words per claim."""
    head = ("claim", "section", "verdict", "estimate", "95 % interval", "paper", "cells")
    widths = (35, 9, 13, 10, 21, 8, 8)

    def row(items: Sequence[str]) -> str:
        left, right = items[:3], items[3:]
        text = "".join(item.ljust(width) for item, width in zip(left, widths[:3], strict=True))
        return text + "".join(i.rjust(w) for i, w in zip(right, widths[3:], strict=True))

    lines = [row(head), "-" * sum(widths)]
    total = dict.fromkeys(KINDS, 0)
    for one in found:
        total[one.verdict] += 1
        interval = "" if math.isnan(one.low) else f"[{number(one.low)}, {number(one.high)}]"
        numbers = [number(one.estimate), interval, number(one.paper), str(one.cells)]
        lines.append(row([one.name, one.section, one.verdict, *numbers]))
        lines += textwrap.wrap(one.sentence, WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines += ["", ", ".join(f"{count} {kind}" for kind, count in total.items() if count)]
    return "\n".join(lines)


def to_json(found: Iterable[Verdict]) -> str:
    """The verdicts as a JSON list; numbers that are not known are null."""
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(one).items()}
        for one in found
    ]
    return json.dumps(rows, indent=1)
