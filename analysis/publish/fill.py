"""Placeholders in the text of a page, filled with numbers of verdicts, tables and snapshots.

    {gap closes with batch}                          6.71 [5.61, 7.80]
    {gap closes with batch | .1}                     6.7
    {-examples per step help | from b = -10}         0.60 [0.37, 0.84], a condition, its sign turned
    {quality saturates | #2 | .1}                    the second number with an interval in the
                                                     verdict's sentence
    {matched pairs help | at 262144}                 the same test at another budget
    {gap closes with batch | is reproduced}          reproduced; an error where it is not
    {decay ... | paper}                              on the paper's numbers
    {core hours | .1}                                a fact about the snapshot, see `sources.facts`
    {undecided claims | word}                        nine
    {plan/table-1.csv | batch_size=512, loss=sigmoid | hbm_gib | .1}
                                                     the only such row of a CSV under `results/`

Outside a study's own folder a placeholder begins with the study: `{emoji/gap closes with batch}`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from analysis.claims import Verdict, parse_intervals
from analysis.errors import AnalysisError
from analysis.publish.sources import Published

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
WORDS = (
    *("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number to print, and its interval where it has one."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __neg__(self) -> Number:
        return Number(value=-self.value, low=-self.high, high=-self.low)

    def text(self, style: str) -> str:
        """`style`: "" with the interval, ".2" two decimals alone, "word" or "Word"."""
        if style.lower() == "word":
            word = WORDS[int(self.value)] if self.value in range(len(WORDS)) else f"{self.value:g}"
            return word.capitalize() if style == "Word" else word
        if style:
            return f"{self.value:,{style}f}"
        if not math.isnan(self.low):
            return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:,}" if self.value % 1 == 0 else f"{self.value:.2f}"


def fill(text: str, published: Published, study: str | None = None) -> str:
    """The text with every placeholder filled.

    Args:
      study: whose claims and facts are meant where a placeholder names no study.

    Raises:
      AnalysisError: a placeholder names no claim, condition, row or fact, in one line.
    """
    return PLACEHOLDER.sub(lambda match: _resolve(match[1], published, study), text)


def _resolve(placeholder: str, published: Published, study: str | None) -> str:
    name, *options = (part.strip() for part in placeholder.split("|"))
    style = options.pop() if options and re.fullmatch(r"\.\d|[wW]ord", options[-1]) else ""
    negative, name = name.startswith("-"), name.removeprefix("-")
    try:
        if name.endswith(".csv"):
            found = _from_table(name, options, published)
        else:
            prefix, slash, rest = name.partition("/")
            if slash and prefix in published.studies:
                study, name = prefix, rest
            if study is None:
                raise AnalysisError(f"begins with no study; there are {published.studies}")
            found = _from_study(study, name, options, published)
    except AnalysisError as error:
        raise AnalysisError(f"{{{placeholder}}}: {error}") from None
    if isinstance(found, str):
        return found
    if math.isnan(found.value):
        raise AnalysisError(f"{{{placeholder}}} has no number on these records")
    return (-found if negative else found).text(style)


def _from_study(study: str, name: str, options: list[str], published: Published) -> Number | str:
    verdicts = published.verdicts(study)
    if name in verdicts:
        return _from_verdict(verdicts[name], *options)
    facts = published.facts(study)
    if name not in facts:
        raise AnalysisError(f"no claim or fact of {study} has this name; facts: {', '.join(facts)}")
    fact = facts[name]
    return fact if isinstance(fact, str) else Number(value=fact)


def _from_verdict(verdict: Verdict, part: str = "", *more: str) -> Number | str:
    if part.startswith("is "):
        if part != f"is {verdict.verdict}":
            raise AnalysisError(f"it is {verdict.verdict} on these records; write the text anew")
        return verdict.verdict
    if part in ("paper", "cells", "detectable"):
        return Number(value=getattr(verdict, part))
    if not part:
        return Number(value=verdict.estimate, low=verdict.low, high=verdict.high)
    if part.startswith("#"):
        printed = parse_intervals(verdict.sentence)
        if not part[1:].isdigit() or not 1 <= int(part[1:]) <= len(printed):
            raise AnalysisError(f"its sentence prints {len(printed)} numbers with an interval")
        value, low, high = printed[int(part[1:]) - 1]
        return Number(value=value, low=low, high=high)
    parts = {condition.name: condition for condition in verdict.conditions}
    budgets = {f"at {budget.examples}": budget for budget in verdict.budgets}
    if part not in parts and part not in budgets:
        known = ", ".join([*parts, *budgets])
        raise AnalysisError(f"its conditions and budgets are: {known or 'none'}")
    chosen = parts.get(part) or budgets[part]
    return Number(value=chosen.estimate, low=chosen.low, high=chosen.high)


def _from_table(path: str, options: list[str], published: Published) -> Number | str:
    if len(options) != 2:
        raise AnalysisError("write {FILE.csv | COLUMN=VALUE, ... | COLUMN}")
    where, column = options
    rows = published.table(path)
    conditions = [part.partition("=")[::2] for part in re.split(r",\s*(?=[\w.]+=)", where)]
    for name in (column, *(name for name, _ in conditions)):
        if name not in rows:
            raise AnalysisError(f"the table has no column {name!r}; it has {', '.join(rows)}")
    for name, value in conditions:
        rows = rows[rows[name] == value]
    if len(rows) != 1:
        raise AnalysisError(f"{len(rows)} rows of the table are so; name one")
    row = rows.iloc[0]
    try:
        interval = column == "value" and row.get("low") and row.get("high")
        ends = {end: float(row[end]) for end in ("low", "high")} if interval else {}
        return Number(value=float(row[column]), **ends)
    except ValueError:
        return str(row[column])
