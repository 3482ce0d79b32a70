"""Tests of our own sentences about examples per step and pairs per example; see `analysis.maps`.

The paper grows both at once. Each sentence is held against every map of a study, one for each
bias that its cells start from: it must hold for all of them, because a small group changes the
prior odds of a pair too, and with them what b = -10 means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from analysis import maps
from analysis.claims.evidence import Evidence
from analysis.claims.finding import Finding, all_positive, found, no_data
from analysis.intervals import PooledMeans, by_group, pooled_means

Point = tuple[int, int]  # examples per step, pairs per example
UNIT = "points per doubling"


def pairs_help(evidence: Evidence) -> Finding:
    """At equal examples per step, quality rises with the pairs that an example meets."""
    return _test(evidence, _along_pairs, "of the pairs per example, at equal examples per step")


def examples_help(evidence: Evidence) -> Finding:
    """At equal pairs per example, quality rises with the examples per step."""
    return _test(evidence, _along_examples, "of the examples per step, at equal pairs per example")


def pairs_more_than_examples(evidence: Evidence) -> Finding:
    """The first slope is larger than the second."""

    def weights(points: set[Point]) -> dict[Point, float]:
        pairs, examples = _along_pairs(points), _along_examples(points)
        if not pairs or not examples:
            return {}
        return {p: pairs.get(p, 0.0) - examples.get(p, 0.0) for p in {*pairs, *examples}}

    return _test(evidence, weights, "more for pairs per example than for examples per step")


def _test(
    evidence: Evidence, weigh: Callable[[set[Point]], Mapping[Point, float]], what: str
) -> Finding:
    groups: dict[tuple[Any, Point], list[float]] = {}
    for start, panel in evidence.once("maps", lambda: maps.by_start(evidence.cells)).items():
        values = by_group(panel.done, list(maps.AXES), evidence.metric)
        groups |= {(start, (int(b), int(g))): found for (b, g), found in values.items()}
    means = pooled_means(groups, rounding=evidence.rounding)
    slopes = _slopes(means, weigh)
    if not slopes:
        return no_data("Needs sigmoid cells with groups of several sizes at several batch sizes.")
    verdict, binding = all_positive(*slopes.values())
    said = ", ".join(f"{slope.estimate:+.2f} from {_name(s)}" for s, slope in slopes.items())
    return found(
        verdict,
        binding,
        unit=UNIT,
        cells=sum(means.counts.values()),
        sentence=f"Points per doubling {what}: {said}",
        means=means,
        conditions=list(slopes.values()),
    )


def _slopes(
    means: PooledMeans, weigh: Callable[[set[Point]], Mapping[Point, float]]
) -> dict[Any, Any]:
    """By the start of the bias, the contrast that these weights make."""
    slopes = {}
    for start in dict.fromkeys(start for start, _ in means.means):
        weights = weigh({point for own, point in means.means if own == start})
        if weights:
            slopes[start] = means.contrast({(start, p): w for p, w in weights.items()})
    return slopes


def _along_pairs(points: set[Point]) -> dict[Point, float]:
    """Least-squares slope in log2 of the pairs per example, averaged over batch sizes."""
    return _mean_slope(points, along=1)


def _along_examples(points: set[Point]) -> dict[Point, float]:
    return _mean_slope(points, along=0)


def _mean_slope(points: set[Point], *, along: int) -> dict[Point, float]:
    lines: dict[int, list[Point]] = {}
    for point in sorted(points):
        lines.setdefault(point[1 - along], []).append(point)
    long = [line for line in lines.values() if len(line) > 1]
    weights: dict[Point, float] = {}
    for line in long:
        at = [math.log2(point[along]) for point in line]
        middle = sum(at) / len(at)
        spread = sum((x - middle) ** 2 for x in at) * len(long)
        weights |= {point: (x - middle) / spread for point, x in zip(line, at, strict=True)}
    return weights


def _name(start: Any) -> str:
    return "the prior odds" if isinstance(start, str) else f"b = {start:g}"
