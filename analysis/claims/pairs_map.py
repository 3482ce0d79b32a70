"""Tests of our own sentences about examples per step and pairs per example.

The paper grows both at once. Each sentence is held against every map of a study, one for each
bias that its cells start from: it must hold for all of them, because a small group changes the
prior odds of a pair too, and with them what b = -10 means.

At a fixed number of examples, more of them per step are fewer steps. A sentence about examples per
step rests on batch sizes with `FEWEST_STEPS` steps or more. Pairs per example are compared at one
batch size, so at equal steps, and rest on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.scope import FEWEST_STEPS, scope, sizes_with_steps, steps_by_size
from analysis.claims.verdict import Finding, found, intersection_union, no_data
from analysis.select import groups as maps
from analysis.stats.intervals import Interval, PooledMeans, by_group, pooled_means

Point = tuple[int, int]  # examples per step, pairs per example
UNIT = "points per doubling"
NEEDED = "Needs sigmoid cells with groups of several sizes at several batch sizes."


def pairs_help(evidence: Evidence) -> Finding:
    """At equal examples per step, quality rises with the pairs that an example meets."""
    return _test(evidence, _along_pairs, "of the pairs per example, at equal examples per step")


def examples_help(evidence: Evidence) -> Finding:
    """At equal pairs per example, quality rises with the examples per step."""
    what = "of the examples per step, at equal pairs per example"
    return _test(evidence, _along_examples, what, fewest_steps=FEWEST_STEPS)


def pairs_more_than_examples(evidence: Evidence) -> Finding:
    """The first slope is larger than the second."""

    def weights(points: set[Point]) -> dict[Point, float]:
        pairs, examples = _along_pairs(points), _along_examples(points)
        if not pairs or not examples:
            return {}
        return {p: pairs.get(p, 0.0) - examples.get(p, 0.0) for p in {*pairs, *examples}}

    what = "more for pairs per example than for examples per step"
    return _test(evidence, weights, what, fewest_steps=FEWEST_STEPS)


def _test(
    evidence: Evidence,
    weigh: Callable[[set[Point]], Mapping[Point, float]],
    what: str,
    *,
    fewest_steps: int = 0,
) -> Finding:
    """The slope of each map, on its batch sizes with this many steps or more."""
    panels = evidence.once("maps", lambda: maps.by_start(evidence.cells))
    if not panels:
        return no_data(NEEDED)
    done = pd.concat([panel.done for panel in panels.values()])
    steps = steps_by_size(done)
    short = {size for size, count in steps.items() if count < fewest_steps}
    groups: dict[tuple[Any, Point], list[float]] = {}
    for start, panel in panels.items():
        values = by_group(panel.done, list(maps.AXES), evidence.metric)
        groups |= {
            (start, (int(b), int(g))): qualities
            for (b, g), qualities in values.items()
            if b not in short
        }
    means = pooled_means(groups, rounding=evidence.rounding)
    slopes = _slopes(means, weigh)
    sizes = sorted({size for _, (size, _) in means.means})
    if not slopes and short:
        return Finding(
            verdict="undecided",
            unit=UNIT,
            sentence=f"Fewer than two batch sizes have {fewest_steps} steps or more: "
            f"{sizes_with_steps(sorted(steps), steps)} ({scope(done)}).",
            decide="a longer budget of examples",
        )
    if not slopes:
        return no_data(NEEDED)
    verdict, binding = intersection_union(*slopes.values())
    each = ", ".join(f"{slope} {name}" for name, slope in slopes.items())
    on = f"at {sizes_with_steps(sizes, steps)}"
    if short:
        left_out = sizes_with_steps(sorted(short), steps)
        on += f"; left out, with fewer than {fewest_steps} steps: {left_out}"
    return found(
        verdict,
        binding,
        unit=UNIT,
        cells=sum(means.counts.values()),
        sentence=f"Points per doubling {what}: {each}, {on}",
        means=means,
        scope=scope(done[~done["batch_size"].isin(short)]),
        conditions=slopes,
    )


def _slopes(
    means: PooledMeans, weigh: Callable[[set[Point]], Mapping[Point, float]]
) -> dict[str, Interval]:
    """The contrast that these weights make, by the start of the bias."""
    slopes = {}
    for start in dict.fromkeys(start for start, _ in means.means):
        weights = weigh({point for own, point in means.means if own == start})
        if weights:
            slopes[f"from {_name(start)}"] = means.contrast(
                {(start, p): w for p, w in weights.items()}
            )
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
