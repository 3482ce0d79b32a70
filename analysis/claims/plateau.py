"""Whether quality stops rising with the batch size, and falls again (Sec. 4.1 and 4.2, Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis.claims.batch_panel import BatchPanel, too_few
from analysis.claims.claim import (
    POINTS,
    OneSided,
    Verdict,
    all_above,
    any_above,
    conclude,
    withhold,
)
from analysis.claims.scope import name_sizes
from analysis.select.deciding import FEWEST_STEPS
from analysis.stats.contrasts import Weights, combine, largest, quarter_of_rise
from analysis.stats.intervals import GroupMeans, Interval

ENOUGH = 32_768  # the batch size that the paper calls sufficient
BEYOND = 2  # batch sizes beyond the first of a plateau that it takes to see one


def too_large_hurts(panel: BatchPanel) -> Verdict | None:
    """The best smaller batch beats the largest one.

    The best of several means is too good by selection, so every smaller batch is compared with the
    largest one by simultaneous intervals. The claim is contradicted on a plateau: no smaller batch
    leads by a quarter of the rise, and the largest has not gained that over the two before it.
    """
    means, sizes = panel.quality, sorted(panel.quality.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=False)
    *smaller, last = sizes
    leads = {size: _change(last, size) for size in smaller}
    lead = largest(means.contrast(w, comparisons=len(smaller)) for w in leads.values())
    nearest = max(smaller, key=means.means.__getitem__)
    conditions = {f"lead of B = {size}": means.contrast(w) for size, w in leads.items()}
    hurts = any_above(conditions.values())
    little = quarter_of_rise(means.means)
    excesses = [means.contrast(combine((1, w), (-1, little))) for w in leads.values()]
    excesses += [
        means.contrast(combine((-1, leads[size]), (-1, little))) for size in smaller[-BEYOND:]
    ]
    level = any_above(excesses).below if len(smaller) >= BEYOND else 1.0
    verdict = conclude(
        lead,
        means,
        f"The best smaller batch size, {name_sizes([nearest], panel.steps)}, is {lead} points "
        f"better than the largest, {name_sizes([last], panel.steps)}; a quarter of the rise up to "
        f"the best is {_estimate(means, little):.2f}{panel.left_out(gaps=False)}",
        scope=panel.scope,
        conditions=conditions,
        p_values=OneSided(hurts.above, level if hurts.verdict != "reproduced" else 1.0),
    )
    if verdict.verdict != "undecided" or means.means[last] <= means.means[nearest]:
        return verdict
    return withhold(
        verdict,
        because=f"The largest batch size that may decide, {last}, is the best: none is beyond it.",
        decide=f"larger batch sizes with {FEWEST_STEPS} steps or more, so a longer budget",
    )


def saturates(panel: BatchPanel) -> Verdict | None:
    """From the paper's 32k on quality is on a plateau, where the grid holds it and two beyond.

    Else from the batch size on that has two beyond it. On a plateau no larger batch gains more than
    a quarter of the rise, and the next two lose no more than that. A clear loss is a fall, which
    leaves the claim open.

    The reported size is the smallest beyond which none gains more. Its interval comes from two
    sequences of tests, from the largest size down and from the smallest up, each until the first
    that fails, so they need no adjustment for their number.
    """
    means, sizes = panel.quality, sorted(panel.quality.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=False)
    limit, reason = enough(sizes, at=max(0, len(sizes) - 1 - BEYOND), beyond=BEYOND)
    little = quarter_of_rise(means.means)

    def margins(at: int, *, sign: int = -1, comparisons: int = 1) -> dict[int, Interval]:
        """A quarter of the rise minus (-1) or plus (1) the gain to each larger size."""
        return {
            more: means.contrast(
                combine((1, little), (sign, _change(at, more))), comparisons=comparisons
            )
            for more in sizes
            if more > at
        }

    gains, falls = margins(limit), dict(list(margins(limit, sign=1).items())[:BEYOND])
    conditions = {
        f"a quarter of the rise minus the gain to B = {more}": one for more, one in gains.items()
    } | {f"a quarter of the rise plus the gain to B = {more}": one for more, one in falls.items()}
    size = _saturation_size(means, sizes, margins)
    changes = ", ".join(
        f"{means.contrast(_change(limit, more))} at {more}" for more in sizes if more > limit
    )
    tolerance = f"{_estimate(means, little):.2f}"
    last = name_sizes(sizes[-1:], panel.steps).removeprefix("B = ")
    result = conclude(
        size,
        means,
        f"From B = {size:.0f} on, no larger batch up to {last} gains more than {tolerance} points, "
        f"a quarter of the rise. Reproduced means a plateau from B = {limit} on, {reason}; "
        f"from there quality changes by {changes}{panel.left_out(gaps=False)}",
        unit="batch size",
        effect_unit=POINTS,
        scope=panel.scope,
        conditions=conditions,
        p_values=OneSided(all_above(conditions.values()).above, all_above(gains.values()).below),
    )
    if len(sizes) <= BEYOND:
        return withhold(
            result,
            because=f"{len(sizes)} batch sizes cannot show a plateau.",
            decide=f"{BEYOND + 1} batch sizes or more, with {FEWEST_STEPS} steps or more",
        )
    lost = [more for more, margin in falls.items() if margin.high < 0]
    if lost and result.verdict != "contradicted":
        return withhold(
            result,
            because=f"At {name_sizes(lost)} quality has fallen again, which is no plateau.",
            decide="a longer budget",
        )
    return result


def _saturation_size(
    means: GroupMeans, sizes: Sequence[int], margins: Callable[..., dict[int, Interval]]
) -> Interval:
    """The smallest size beyond which no gain is too large; without intervals no ends."""
    margin = {size: list(margins(size).values()) for size in sizes[:-1]}
    flat = (size for size, each in margin.items() if min(m.estimate for m in each) >= 0)
    estimate = float(next(flat, sizes[-1]))
    if not means.has_interval:
        return Interval(estimate, cells=means.every_cell)
    high = sizes[-1]
    for size in reversed(sizes[:-1]):
        if min(one.low for one in margin[size]) < 0:
            break
        high = size
    for low in sizes[:-1]:
        own = margins(low, comparisons=len(margin[low]))
        if min(one.high for one in own.values()) >= 0:
            break
    else:
        low = sizes[-1]
    return Interval(estimate, float(low), float(high), cells=means.every_cell)


def enough(sizes: Sequence[int], *, at: int, beyond: int = 1) -> tuple[int, str]:
    """The batch size that must be enough, and why: the paper's 32k, or the grid's `at`-th.

    Args:
      beyond: how many sizes must be beyond 32k.
    """
    if ENOUGH in sizes[:-beyond]:
        return ENOUGH, "the paper's 32k"
    return sizes[at], "because this grid does not go beyond the paper's 32k"


def _change(at: int, other: int) -> Weights:
    """Sigmoid quality at the other batch size minus that at this one."""
    return {other: 1.0, at: -1.0}


def _estimate(means: GroupMeans, weights: Mapping[Any, float]) -> float:
    return means.contrast(weights).estimate
