"""All rows of a wandb run, by one scan for each group of metrics that were logged together.

`scan_history(keys=...)` gives the rows that have every one of its keys, so a group whose metrics
were not always logged together would lose rows. The server tells how often each key was logged
(`history_keys`): metrics of one beginning ("train", "eval") and the same count are taken for a
group, and rows are merged by step. Where that brings less of a metric than was logged, or the
server tells no counts, all keys are read in one scan, which is complete by itself and heavier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from analysis.wandb.runs import KEPT

PAGE = 1000  # rows of one request
EVERY = ("_step", "_timestamp", *KEPT, "pairs_seen")  # that each row of ours has

Patience = Callable[[Callable[[], None]], None]
Rows = dict[int, dict[str, Any]]  # by step


def rows(run: Any, patient: Patience) -> list[dict[str, Any]]:
    """Every row of a `wandb.Api` run, in order.

    Args:
      patient: calls what it is given, and calls it again where the server asks for patience.
    """
    found: Rows = {}
    counts = _logged(run)
    for group in _groups(counts):
        for step, row in _scan(run, [*EVERY, *group], patient).items():
            found.setdefault(step, {}).update(row)
    have = Counter(key for row in found.values() for key in row)
    if not counts or any(have[key] < count for key, count in counts.items()):
        found = _scan(run, None, patient)
    return [found[step] for step in sorted(found)]


def _logged(run: Any) -> dict[str, int]:
    """How often each metric was logged; empty where the server does not tell."""
    try:
        return {
            key: sum(int(kind["count"]) for kind in about["typeCounts"])
            for key, about in run.history_keys["keys"].items()
            if "/" in key and not key.startswith("_")
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _groups(counts: dict[str, int]) -> list[list[str]]:
    """Metrics of one beginning and the same count."""
    found: dict[tuple[str, int], list[str]] = {}
    for key, count in counts.items():
        found.setdefault((key.partition("/")[0], count), []).append(key)
    return list(found.values())


def _scan(run: Any, keys: list[str] | None, patient: Patience) -> Rows:
    """The rows that have all of these keys, or all rows, by step."""
    found: Rows = {}

    def go_on() -> None:
        start = max(found, default=-1) + 1
        # One by one: what came before it broke off counts.
        for row in run.scan_history(keys=keys, page_size=PAGE, min_step=start):
            found[row["_step"]] = dict(row)

    patient(go_on)
    return found
