"""The verdicts on all published studies as Markdown tables: the paper's claims, then our own."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from analysis.claims import OURS, Verdict, format_number
from analysis.publish.sources import Published

HEAD = ("claim", "section", "paper", "ours", "verdict", "study, budget, batch sizes", "why open")
# The end of a verdict's sentence: what it was tested on, and after it why it is withheld.
_SCOPE = re.compile(r"\((?:([^()]*); )?95 % intervals[^()]*\)\.?\s*(.*)$", re.DOTALL)
ORDER = ("reproduced", "contradicted", "undecided")


def verdict_table(published: Published, *, ours: bool) -> str:
    """One row for each claim and study that has data for it, the decided ones first."""
    tested = [
        (study, verdict)
        for study in published.studies
        for verdict in published.verdicts(study).values()
        if (verdict.section == OURS) == ours and verdict.verdict in ORDER
    ]
    tested.sort(key=lambda row: ORDER.index(row[1].verdict))  # stable: by section within
    rows = [HEAD, *(_row(study, verdict) for study, verdict in tested)]
    if ours:  # without section and paper
        rows = [(row[0], *row[3:]) for row in rows]
    return markdown(rows, right=set() if ours else {2})


def describe_studies(published: Published) -> str:
    """A line for each published study: what it is, and how its verdicts on the paper came out."""
    return "\n".join(_describe(study, published.facts(study)) for study in published.studies)


def untested(published: Published) -> str:
    """The paper's claims for which no published study has cells."""
    names: dict[str, bool] = {}
    for study in published.studies:
        for verdict in published.verdicts(study).values():
            if verdict.section == OURS:
                continue
            names[verdict.name] = names.get(verdict.name, True) and verdict.verdict == "no data"
    return ", ".join(name for name, absent in names.items() if absent) or "none"


def scope_of(verdict: Verdict) -> str:
    """Budget and batch sizes that a verdict was tested on, as its sentence has them."""
    match = _SCOPE.search(verdict.sentence)
    return (match[1] or "") if match else ""


def why_open(verdict: Verdict) -> str:
    """One line: why an undecided claim is undecided."""
    if verdict.verdict != "undecided":
        return ""
    match = _SCOPE.search(verdict.sentence)
    if verdict.withheld and match and match[2]:
        return match[2].rstrip(".")
    return verdict.decide


def estimate(verdict: Verdict) -> str:
    """An estimate with interval and unit."""
    if math.isnan(verdict.estimate):
        return ""
    if verdict.unit == "batch size":
        return f"B = {verdict.estimate:.0f} [{verdict.low:.0f}, {verdict.high:.0f}]"
    text = f"{verdict.estimate:.2f}"
    if not math.isnan(verdict.low):
        text += f" [{verdict.low:.2f}, {verdict.high:.2f}]"
    return f"{text} {verdict.unit}".strip()


def _describe(study: str, facts: Mapping[str, str | int | float]) -> str:
    kinds = ", ".join(f"{facts[f'{kind} claims']} {kind}" for kind in ORDER)
    return (
        f"- [{study}]({study}/report.html): {facts['cells']} runs, {facts['core hours']:.1f} core "
        f"hours, {facts['code']}. Of {facts['claims']} claims of the paper {kinds}."
    )


def _row(study: str, verdict: Verdict) -> tuple[str, ...]:
    where = ", ".join(part for part in (study, scope_of(verdict)) if part)
    return (
        f"{verdict.claim.rstrip('.')} (*{verdict.name}*)",
        verdict.section,
        format_number(verdict.paper),
        estimate(verdict),
        f"**{verdict.verdict}**" if verdict.verdict == "contradicted" else verdict.verdict,
        where,
        why_open(verdict),
    )


def markdown(rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table whose first row is its head; `right` are columns of numbers."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
