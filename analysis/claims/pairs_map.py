"""Our own claims about examples per step and pairs per example.

The paper grows both at once. Each claim is tested on every map of a study, one for each initial
bias: it must hold on all of them, because a small group also changes the prior odds of a pair, and
with them what b = -10 means.

At a fixed number of examples, more of them per step are fewer steps. A claim about examples per
step uses only batch sizes with `FEWEST_STEPS` steps or more, and has a second one beside it at
equal steps, where a larger step means more examples in all. Pairs per example are compared at one
batch size, so at equal steps, and use all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, weakest
from analysis.claims.scope import name_sizes, scope
from analysis.records.scores import Score
from analysis.select import pairs_map as maps
from analysis.select import panels
from analysis.select.deciding import FEWEST_STEPS, steps_by_size
from analysis.select.pairs_map import Equal
from analysis.stats.contrasts import Weights, combine, slope_weights
from analysis.stats.intervals import by_group

# Words of a sentence; without them the examples in all are equal.
AND_STEPS: dict[Equal, str] = {"examples": "", "steps": " and equal steps"}
AT_STEPS: dict[Equal, str] = {"examples": "", "steps": ", at equal steps"}
Point = tuple[int, int]  # examples per step, pairs per example
UNIT = "points per doubling"


def pairs_help(evidence: Evidence) -> Verdict | None:
    """At equal examples per step, quality rises with the pairs that an example meets."""
    name = "of the pairs per example, at equal examples per step"
    return _test(evidence, lambda points: _slope(points, axis=1), name)


def examples_help(evidence: Evidence, *, equal: Equal) -> Verdict | None:
    """At equal pairs per example, quality rises with the examples per step."""
    name = f"of the examples per step, at equal pairs per example{AND_STEPS[equal]}"
    return _test(
        evidence,
        lambda points: _slope(points, axis=0),
        name,
        equal=equal,
        fewest_steps=FEWEST_STEPS,
    )


def pairs_more_than_examples(evidence: Evidence, *, equal: Equal) -> Verdict | None:
    """The slope of the pairs is larger than that of the examples per step."""

    def difference(points: set[Point]) -> Weights:
        pairs, examples = _slope(points, axis=1), _slope(points, axis=0)
        return combine((1, pairs), (-1, examples)) if pairs and examples else {}

    name = f"more for pairs per example than for examples per step{AT_STEPS[equal]}"
    return _test(evidence, difference, name, equal=equal, fewest_steps=FEWEST_STEPS)


def _test(
    evidence: Evidence,
    weigh: Callable[[set[Point]], Weights],
    name: str,
    *,
    equal: Equal = "examples",
    fewest_steps: int = 0,
) -> Verdict | None:
    """Whether the contrast is above zero on each map, on batch sizes with this many steps."""
    by_start = _maps(evidence, equal)
    if not by_start:
        return None
    done = pd.concat([panel.done for panel in by_start.values()])
    steps = steps_by_size(done)
    short = sorted(size for size, count in steps.items() if count < fewest_steps)
    groups: dict[tuple[Any, Point], list[Score]] = {}
    for start, panel in by_start.items():
        for (b, g), values in by_group(panel.done, list(maps.AXES), evidence.metric).items():
            if b not in short:
                groups[start, (int(b), int(g))] = values
    means = evidence.means(groups)
    slopes = {}
    for start in dict.fromkeys(start for start, _ in groups):
        weights = weigh({point for other, point in groups if other == start})
        if weights:
            bias = "the prior odds" if isinstance(start, str) else f"b = {start:g}"
            slopes[f"from {bias}"] = means.contrast({(start, p): w for p, w in weights.items()})
    if not slopes:
        if not short:
            return None
        return Verdict(
            verdict="undecided",
            unit=UNIT,
            sentence=f"Fewer than two batch sizes have {fewest_steps} steps or more: "
            f"{name_sizes(sorted(steps), steps)} ({scope(done)}).",
            decide="a longer budget of examples",
        )
    used = done[~done["batch_size"].isin(short)]
    sentence = f"Points per doubling {name}: "
    sentence += ", ".join(f"{slope} {start}" for start, slope in slopes.items())
    sentence += f", at {name_sizes(sorted(set(used['batch_size'])), steps)}"
    if short:
        sentence += f"; {name_sizes(short, steps)} left out: fewer than {fewest_steps} steps"
    return conclude(
        slopes[weakest(slopes)],
        means,
        sentence,
        unit=UNIT,
        scope=scope(used),
        conditions=slopes,
    )


@functools.lru_cache(maxsize=4)
def _maps(evidence: Evidence, equal: Equal) -> dict[Any, panels.Panel]:
    return maps.by_start(evidence.cells, equal=equal)


def _slope(points: set[Point], *, axis: int) -> Weights:
    """The least-squares slope in log2 along one axis of the map, averaged over the other."""
    lines: dict[int, list[Point]] = {}
    for point in sorted(points):
        lines.setdefault(point[1 - axis], []).append(point)
    long = [line for line in lines.values() if len(line) > 1]
    return combine(
        *((1 / len(long), slope_weights({p: math.log2(p[axis]) for p in line})) for line in long)
    )


MAP = "sigmoid with loss.pairs.kind=groups of several sizes at several batch_size"

CLAIMS = (
    Claim(
        name="pairs per example help",
        sentence="At equal examples per step, quality rises with the pairs that an example meets.",
        section=OURS,
        figure="pairs_map",
        needs=MAP,
        test=pairs_help,
    ),
    Claim(
        name="examples per step help",
        sentence="At equal pairs per example and equal examples in all, larger steps are better.",
        section=OURS,
        figure="pairs_map",
        needs=MAP,
        test=functools.partial(examples_help, equal="examples"),
    ),
    Claim(
        name="pairs matter more than examples",
        sentence="A doubling of pairs per example gains more than one of examples per step.",
        section=OURS,
        figure="pairs_map",
        needs=MAP,
        test=functools.partial(pairs_more_than_examples, equal="examples"),
    ),
    Claim(
        name="at equal steps: examples per step help",
        sentence="At equal pairs per example and equal steps, larger steps are better.",
        section=OURS,
        figure="pairs_map",
        needs=f"{MAP}, with equal steps",
        test=functools.partial(examples_help, equal="steps"),
    ),
    Claim(
        name="at equal steps: pairs matter more",
        sentence="At equal steps, a doubling of pairs per example gains more than one of examples "
        "per step, and with them of all examples.",
        section=OURS,
        figure="pairs_map",
        needs=f"{MAP}, with equal steps",
        test=functools.partial(pairs_more_than_examples, equal="steps"),
    ),
)
