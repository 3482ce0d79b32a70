"""Tests about hard negatives at matched pairs (Sec. 4.8, Fig. 6, "hard, matched pairs").

Keeping a tenth of the pairs and training ten times as long meets as many pairs as the whole
batch does. It also sees ten times the examples, so the gain is held against two runs: the
unmasked one with as many pairs (the paper's), and the unmasked one with as many examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.verdict import POINTS, Finding, found, no_data, verdict_of
from analysis.select.fields import keys, same_fields, with_fields
from analysis.select.panels import NEAR
from analysis.stats.intervals import pooled_means

Same = Literal["pairs_seen", "examples_seen"]
WHAT = {"pairs_seen": "pairs", "examples_seen": "examples"}


def hard_gains(same: Same) -> Callable[[Evidence], Finding]:
    """Hard negatives against the unmasked batch at equal totals of `same`."""
    return lambda evidence: _test(evidence, same)


def _test(evidence: Evidence, same: Same) -> Finding:
    fields = ["loss.pairs.kind", "loss.pairs.keep", "loss.pairs.per_positive"]
    cells = with_fields(evidence.cells, fields)
    done = cells[(cells["status"] == "done") & (cells["loss.kind"] == "sigmoid")]
    if evidence.metric not in done:
        done = done.iloc[:0]
    done = done[done[evidence.metric].notna()] if len(done) else done
    hard = done[(done["loss.pairs.kind"] == "negatives") & (done["loss.pairs.keep"] == "hard")]
    whole = done[done["loss.pairs.kind"] == "all"]
    groups, seen = _gains(hard, whole, evidence.metric, same)
    if not groups:
        return no_data(
            "Needs hard negatives trained until they met as many pairs as the unmasked batch"
            + (", and the unmasked batch at as many examples." if same == "examples_seen" else ".")
        )
    means = pooled_means(groups)
    gain = means.contrast(dict.fromkeys(means.means, 1 / len(means.means)))
    ratios = ", ".join(f"1:{ratio:g}" for _, ratio in sorted(means.means, reverse=True))
    return found(
        verdict_of(gain),
        gain,
        unit=POINTS,
        cells=2 * sum(means.counts.values()),
        sentence=f"Hard negatives at matched pairs ({ratios}, {_examples(a for a, _ in seen)}) "
        f"minus the whole batch at as many {WHAT[same]} ({_examples(b for _, b in seen)}) is "
        f"{gain} points",
        means=means,
        scope=f"B = {', '.join(str(size) for size in sorted({size for size, _ in means.means}))}",
    )


def _gains(
    hard: pd.DataFrame, whole: pd.DataFrame, metric: str, same: Same
) -> tuple[dict[tuple[int, float], list[float]], set[tuple[int, int]]]:
    """Differences by (batch size, negatives per positive), one per seed.

    Matched cells only: as many pairs as an unmasked one, and so more examples.

    Returns: the differences, and the examples seen of the hard and the whole batch's cells.
    """
    if hard.empty or whole.empty:
        return {}, set()
    fields = [*same_fields(whole, (), ignoring=("budget.", "loss.pairs.")), "seed"]
    columns = ["pairs_seen", same, metric, "examples_seen"]
    whole_of: dict[Any, list[list[float]]] = {}
    for key, numbers in zip(keys(whole, fields), _numbers(whole, columns), strict=True):
        whole_of.setdefault(key, []).append(numbers)
    gains: dict[tuple[int, float], list[float]] = {}
    seen = set()
    groups = zip(hard["batch_size"], hard["loss.pairs.per_positive"], strict=True)
    for key, group, (pairs, total, quality, examples) in zip(
        keys(hard, fields), groups, _numbers(hard, columns), strict=True
    ):
        mine = whole_of.get(key, [])
        if any(_near(of[0], pairs) for of in mine):
            equal = [of for of in mine if _near(of[1], total)]
            if equal:
                gain = quality - sum(of[2] for of in equal) / len(equal)
                gains.setdefault((int(group[0]), float(group[1])), []).append(gain)
                seen |= {(int(examples), int(of[3])) for of in equal}
    return gains, seen


def _examples(counts: Iterable[int]) -> str:
    return " or ".join(f"{count:,}" for count in sorted(set(counts))) + " examples"


def _numbers(cells: pd.DataFrame, columns: list[str]) -> list[list[float]]:
    return [[float(value) for value in row] for row in keys(cells, columns)]


def _near(value: float, wanted: float) -> bool:
    return abs(value / wanted - 1) <= NEAR
