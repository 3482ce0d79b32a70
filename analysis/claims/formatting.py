"""Verdicts as a table for a terminal and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.claims.verdict import Condition, Kind, format_number

KINDS: tuple[Kind, ...] = ("reproduced", "contradicted", "undecided", "no data")
OURS = "ours"  # the section of claims that are not the paper's
WIDTH = 110  # characters of the table


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim's finding on a study. `paper` is the same estimate on the paper's own numbers.

    decide: what would decide it, where it is undecided or has no data.
    conditions: every quantity that the verdict rests on, with its own interval.
    """

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
    decide: str
    conditions: tuple[Condition, ...]
    paper: float


def format_verdicts(found: Iterable[Verdict]) -> str:
    """A table for a terminal: one line of numbers and one or two of words per claim."""
    head = ("claim", "section", "verdict", "estimate", "interval", "paper", "cells")
    widths = (36, 9, 13, 10, 20, 8, 8)

    def row(items: Sequence[str]) -> str:
        left, right = items[:3], items[3:]
        text = "".join(item.ljust(width) for item, width in zip(left, widths[:3], strict=True))
        return text + "".join(i.rjust(w) for i, w in zip(right, widths[3:], strict=True))

    lines = [row(head), "-" * sum(widths)]
    found = list(found)
    lacking = []
    for one in found:
        if one.verdict == "no data":
            lacking.append(one)
            continue
        interval = (
            "" if math.isnan(one.low) else f"[{format_number(one.low)}, {format_number(one.high)}]"
        )
        numbers = [format_number(one.estimate), interval, format_number(one.paper), str(one.cells)]
        lines.append(row([one.name, one.section, one.verdict, *numbers]))
        lines += _wrapped(one.sentence)
        if one.decide:
            lines += _wrapped(f"What would decide it: {one.decide}.")
    for one in lacking:
        lines.append(row([one.name, one.section, one.verdict, *[""] * 4]).rstrip())
        lines += _wrapped(f"{one.sentence} {one.decide.capitalize()}.")
    paper = _total(one for one in found if one.section != OURS)
    ours = _total(one for one in found if one.section == OURS)
    lines += ["", "; ours: ".join(part for part in (paper, ours) if part)]
    return "\n".join(lines)


def count_verdicts(verdicts: Iterable[Verdict]) -> list[tuple[Kind, int]]:
    """How many there are of each kind, those that there are."""
    counts = Counter(one.verdict for one in verdicts)
    return [(kind, counts[kind]) for kind in KINDS if counts[kind]]


def _total(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in count_verdicts(verdicts))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def to_json(found: Iterable[Verdict]) -> str:
    """The verdicts as a JSON list; numbers that are not known are null."""
    return json.dumps([_without_nan(asdict(one)) for one in found], indent=1)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
