"""Verdicts before and now: what became of each claim when a study was run again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from analysis.claims import Verdict
from analysis.publish.summary import ORDER, estimate, markdown, scope_of, why_open

HEAD = ("claim", "before", "now", "estimate before", "estimate now", "reason")


class Change(NamedTuple):
    """A claim's verdicts before and now, in words, and why they differ."""

    claim: str
    before: str
    now: str
    estimate_before: str
    estimate_now: str
    reason: str


def compare(before: Iterable[Verdict], now: Iterable[Verdict]) -> list[Change]:
    """Every claim that has data before or now, those first whose verdict changed."""
    old, new = ({verdict.name: verdict for verdict in each} for each in (before, now))
    names = [name for name in {**new, **old} if _tested(old.get(name)) or _tested(new.get(name))]
    changes = [_change(name, old.get(name), new.get(name)) for name in names]
    return sorted(changes, key=lambda change: change.before == change.now)


def format_changes(changes: Iterable[Change]) -> str:
    """A Markdown table, and a line that counts the changes."""
    changes = list(changes)
    count = sum(change.before != change.now for change in changes)
    table = markdown([HEAD, *changes])
    return f"{table}\n\n{count} of {len(changes)} verdicts changed"


def _change(name: str, old: Verdict | None, new: Verdict | None) -> Change:
    before, now = (one.verdict if one and _tested(one) else "no data" for one in (old, new))
    was, now_is = (estimate(one) if one and _tested(one) else "" for one in (old, new))
    return Change(name, before, now, was, now_is, _reason(old, new))


def _reason(old: Verdict | None, new: Verdict | None) -> str:
    if not old or not _tested(old):
        return "had no cells" if old else "a new claim"
    if not new or not _tested(new):
        return "has no cells" if new else "no longer a claim"
    reasons = []
    if (was := scope_of(old)) != (now := scope_of(new)):
        reasons.append(f"on {now or 'other cells'}; before on {was or 'other cells'}")
    if old.verdict != new.verdict and old.verdict == "undecided":
        reasons.append(f"was open: {why_open(old)}")
    if new.verdict == "undecided":
        reasons.append(f"open: {why_open(new)}")
    return "; ".join(reasons)


def _tested(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.verdict in ORDER
