"""Our own claims about false negatives: pairs of equal captions or classes that count as negatives.

They become more frequent with the batch. At one batch size runs with and without them take equal
steps, so what they cost there is not mistaken for too few steps, and every batch size counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.claim import (
    OURS,
    Claim,
    Evidence,
    OneSided,
    Verdict,
    all_above,
    any_above,
    conclude,
    weakest,
    withhold,
)
from analysis.claims.scope import name_sizes, scope
from analysis.select import same_captions
from analysis.select.deciding import steps_by_size
from analysis.select.same_captions import NEGATIVE, WAYS
from analysis.stats.contrasts import combine, quarter_of_rise
from analysis.stats.intervals import GroupMeans, Interval, by_group

NAMES = {
    "masked": "equal captions left out",
    "positive": "equal captions as positives",
    "masked by class": "equal classes left out",
    "positive by class": "equal classes as positives",
}


def cost_grows(evidence: Evidence) -> Verdict | None:
    """What is gained without false negatives is more at the largest batch than at the smallest.

    One way to do without them must show it.
    """
    data = _read(evidence)
    if data is None:
        return None
    means, ways, sizes, words = data
    first, last = sizes[0], sizes[-1]
    growth = {
        NAMES[way]: means.contrast(combine((1, _gain(way, last)), (-1, _gain(way, first))))
        for way in ways
    }
    texts = [
        f"with {NAMES[way]} {means.contrast(_gain(way, last))} points at "
        f"B = {last} and {means.contrast(_gain(way, first))} at B = {first}"
        for way in ways
    ]
    best = max(growth, key=lambda name: growth[name].estimate)
    return conclude(
        growth[best],
        means,
        f"Gained by doing without false negatives: {'; '.join(texts)}",
        scope=words,
        conditions=growth,
        p_values=any_above(growth.values()),
    )


def explain_the_stop(evidence: Evidence) -> Verdict | None:
    """Where sigmoid stops gaining from the batch, it goes on gaining without false negatives.

    It stops at the last batch size if that gains no more than a quarter of the rise over the one
    before. Without false negatives it must gain more than that. One way must show it.
    """
    data = _read(evidence)
    if data is None:
        return None
    means, ways, sizes, words = data
    before, last = sizes[-2:]
    quality = {size: means.means[size, NEGATIVE] for size in sizes}
    little = {(size, NEGATIVE): weight for size, weight in quarter_of_rise(quality).items()}

    def gain(way: str) -> dict[tuple[int, str], float]:
        return {(last, way): 1.0, (before, way): -1.0}

    parts: dict[str, dict[str, Interval]] = {
        way: {
            f"{NAMES[way]}: gain minus a quarter of the rise": means.contrast(
                combine((1, gain(way)), (-1, little))
            ),
            f"{NAMES[way]}: gain minus that with false negatives": means.contrast(
                combine((1, gain(way)), (-1, gain(NEGATIVE)))
            ),
        }
        for way in ways
    }
    conditions = {name: part for of_way in parts.values() for name, part in of_way.items()}
    tests: list[OneSided] = [all_above(of_way.values()) for of_way in parts.values()]
    best = min(ways, key=lambda way: all_above(parts[way].values()).above)
    own = means.contrast(gain(NEGATIVE))
    gains = ", ".join(f"{means.contrast(gain(way))} with {NAMES[way]}" for way in ways)
    verdict = conclude(
        parts[best][weakest(parts[best])],
        means,
        f"From {name_sizes([before])} to {last} sigmoid gains {own} points with false negatives, "
        f"and {gains}; a quarter of the rise is {means.contrast(little).estimate:.2f}",
        scope=words,
        conditions=conditions,
        p_values=any_above(tests),
    )
    if means.contrast(combine((1, gain(NEGATIVE)), (-1, little))).estimate > 0:
        return withhold(
            verdict,
            because=f"At B = {last} sigmoid still gains, so it has not stopped.",
            decide="larger batch sizes",
        )
    return verdict


def _read(evidence: Evidence) -> tuple[GroupMeans, Sequence[str], list[int], str] | None:
    """Means by (batch size, what equal captions are), the ways to do without false negatives, the
    batch sizes that have them all, and the scope in words."""
    done = same_captions.by_size(evidence.cells).done
    groups = by_group(done, list(same_captions.AXES), evidence.metric)
    ways = [way for way in WAYS if any(kind == way for _, kind in groups)]
    sizes = sorted(
        int(size)
        for size in {size for size, _ in groups}
        if all((size, way) in groups for way in (NEGATIVE, *ways))
    )
    if not ways or len(sizes) < 2:
        return None
    used = done[done["batch_size"].isin(sizes)]
    steps = steps_by_size(used)
    words = (
        f"{scope(used)}: {', '.join(f'{steps[size]:,}' for size in sizes if size in steps)} steps"
    )
    return evidence.means(groups), ways, sizes, words


def _gain(way: str, size: int) -> dict[tuple[int, str], float]:
    return {(size, way): 1.0, (size, NEGATIVE): -1.0}


NEEDS = "sigmoid with loss.same_caption=masked or positive at several batch_size, and negative"

CLAIMS = (
    Claim(
        name="false negatives cost more in a large batch",
        sentence="Leaving out pairs with equal captions or classes, or taking them as positives, "
        "gains more the larger the batch.",
        section=OURS,
        figure="same_captions",
        needs=NEEDS,
        test=cost_grows,
    ),
    Claim(
        name="false negatives stop the gain",
        sentence="Where sigmoid stops gaining from the batch, false negatives are the cause.",
        section=OURS,
        figure="same_captions",
        needs=NEEDS,
        test=explain_the_stop,
    ),
)
