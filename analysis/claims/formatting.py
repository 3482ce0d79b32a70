"""Verdicts as text for a terminal, as a frame and as JSON."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, get_args

import pandas as pd

from analysis.claims.claim import OURS, AtBudget, Condition, Kind, Verdict

WIDTH = 110  # characters of a line
_INTERVAL = re.compile(r"([+-]?\d[\d.]*) \[(-?\d[\d.]*), (-?\d[\d.]*)\]")


def format_verdicts(verdicts: Iterable[Verdict]) -> str:
    """Text for a terminal: per claim a line of numbers and its sentence; claims without data last.

    "p" is of the claim, "adjusted" the one that decides, see `claim.adjust`. The last line counts
    the verdicts on the paper's claims and on our own.
    """
    columns = "{:35}{:9}{:13}{:>8}{:>16}{:>8}{:>9}{:>6}{:>6}"
    names = ("claim", "section", "verdict", "estimate", "interval", "p", "adjusted", "paper")
    head = columns.format(*names, "cells")
    lines = [head, "-" * len(head)]
    verdicts = sorted(verdicts, key=lambda verdict: verdict.verdict == "no data")
    for v in verdicts:
        low, high = (
            f"{end:.2g}" if abs(end) < 1 else format_number(end) for end in (v.low, v.high)
        )
        interval = f"[{low}, {high}]"
        numbers = (
            format_number(v.estimate),
            "" if math.isnan(v.low) else interval,
            format_p(v.p),
            "-" if v.withheld else format_p(v.adjusted_p),
            format_number(v.paper) if v.verdict != "no data" else "",
            v.cells or "",
        )
        lines.append(columns.format(v.name, v.section, v.verdict, *numbers).rstrip())
        for text in (v.sentence, f"What would decide it: {v.decide}." if v.decide else ""):
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    papers = count_verdicts(v for v in verdicts if v.section != OURS)
    ours = count_verdicts(v for v in verdicts if v.section == OURS)
    totals = (", ".join(f"{n} {kind}" for kind, n in counts) for counts in (papers, ours) if counts)
    return "\n".join([*lines, "", "; ours: ".join(totals)])


def to_frame(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """One row per claim, by its name; the columns are the other fields of `Verdict`, lists apart.

    >>> to_frame(judge_study("runs", "glyphs"))[["verdict", "estimate", "low", "high", "unit"]]
    """
    rows = [asdict(verdict) for verdict in verdicts]
    return (
        pd.DataFrame(rows, columns=list(Verdict.__dataclass_fields__))
        .set_index("name")
        .drop(columns=["conditions", "budgets", "evidence"])
    )


def to_json(verdicts: Iterable[Verdict]) -> str:
    """A JSON list; unknown numbers are null."""
    return json.dumps([_without_nan(asdict(verdict)) for verdict in verdicts], indent=1)


def from_json(text: str) -> list[Verdict]:
    """The inverse of `to_json`; fields that this version does not know are left out.

    Raises:
      ValueError, TypeError: it is not such a list.
    """
    kinds = {"conditions": Condition, "budgets": AtBudget}
    verdicts = []
    for values in json.loads(text):
        known = {name: values[name] for name in Verdict.__dataclass_fields__ if name in values}
        for name, kind in kinds.items():
            known[name] = tuple(kind(**_with_nan(each)) for each in known.get(name, ()))
        known["evidence"] = tuple(known.get("evidence", ()))
        verdicts.append(Verdict(**_with_nan(known)))
    return verdicts


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def count_verdicts(verdicts: Iterable[Verdict]) -> list[tuple[Kind, int]]:
    """The number of verdicts of each kind that occurs."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    return [(kind, counts[kind]) for kind in get_args(Kind) if counts[kind]]


def parse_intervals(text: str) -> list[tuple[float, float, float]]:
    """Every number in a text with an interval behind it, as `Interval` formats them."""
    return [(float(a), float(b), float(c)) for a, b, c in _INTERVAL.findall(text)]


def format_p(value: float) -> str:
    """A p-value with two digits, "<0.0001" below that; empty where it is unknown."""
    if math.isnan(value):
        return ""
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def format_number(value: float) -> str:
    """Three digits, or a whole number; empty where the number is unknown."""
    if math.isnan(value):
        return ""
    value = round(value, 9) + 0.0  # no 8.5e-15, no -0
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
