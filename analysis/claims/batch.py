"""Claims about batch size and loss (Sec. 4.1 and 4.2, Fig. 2), on one panel of batch sizes.

"Small" and "large" batches are the smallest and the largest quarter of the panel's sizes, at least
one size. Differences are sigmoid minus softmax, paired by seed. Batch sizes at which neither loss
has learned much (see `FLOOR`) enter no difference: near zero all losses are level.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from analysis.claims.claim import (
    POINTS,
    TOLERANCE,
    Claim,
    Evidence,
    Verdict,
    all_above,
    any_above,
    conclude,
    withhold,
)
from analysis.claims.rates import check_rates
from analysis.claims.scope import name_sizes, scope
from analysis.select import panels
from analysis.select.deciding import steps_by_size
from analysis.stats.contrasts import combine, largest, mean_weights
from analysis.stats.intervals import (
    GroupMeans,
    Interval,
    by_group,
    group_means,
    paired_differences,
)

ENOUGH = 32_768  # the batch size that the paper calls sufficient
FLOOR = 0.25  # of the panel's best quality: a batch size where both losses are below is left out
PLATEAU = 3  # batch sizes that it takes to see that quality no longer rises
Image = Literal["cached", "vit"]  # SigLiT, and both towers from scratch


@dataclass(frozen=True, kw_only=True)
class BatchPanel:
    """Quality by (loss, batch size), and sigmoid minus softmax by batch size.

    Attributes:
      floor: batch sizes without a difference, because neither loss has learned much there.
      scope: budget and batch sizes in words.
      steps: of a run, by batch size.
      check_rates: adds to a verdict what is known of the learning rates at these batch sizes.
    """

    quality: GroupMeans
    gaps: GroupMeans
    floor: tuple[int, ...] = ()
    scope: str = ""
    steps: dict[int, int] = field(default_factory=dict)
    check_rates: Callable[[Verdict, Collection[int]], Verdict] = lambda verdict, sizes: verdict

    @property
    def sizes(self) -> list[int]:
        """Batch sizes with both losses."""
        return sorted(self.gaps.means)

    @property
    def sigmoid_sizes(self) -> list[int]:
        return sorted(size for loss, size in self.quality.means if loss == "sigmoid")


def on(
    image: Image, test: Callable[[BatchPanel], Verdict | None]
) -> Callable[[Evidence], Verdict | None]:
    """The test on the panel with this image tower."""
    return lambda evidence: test(batch_panel(evidence, image))


@functools.lru_cache(maxsize=4)  # for all claims on one study, and on the paper's numbers
def batch_panel(evidence: Evidence, image: Image) -> BatchPanel:
    """The finished cells of the panel, see `panels.batch_sizes`."""
    done = panels.batch_sizes(evidence.cells, image=image).done
    quality = group_means(
        by_group(done, ["loss.kind", "batch_size"], evidence.metric), rounding=evidence.rounding
    )
    gaps = by_group(paired_differences(done, evidence.metric), ["batch_size"], "difference")
    least = FLOOR * max(quality.means.values(), default=0.0)
    floor = sorted(
        size
        for size in gaps
        if max(mean for (_, other), mean in quality.means.items() if other == size) < least
    )
    return BatchPanel(
        quality=quality,
        gaps=group_means(
            {size: values for size, values in gaps.items() if size not in floor},
            rounding=2 * evidence.rounding,
        ),
        floor=tuple(floor),
        scope=scope(done),
        steps=steps_by_size(done),
        check_rates=lambda verdict, sizes: check_rates(verdict, evidence, done, sizes),
    )


def ahead_at_small(panel: BatchPanel) -> Verdict | None:
    """The mean difference over the small batches is above zero."""
    if not panel.sizes:
        return None
    small = panel.sizes[: quarter(panel.sizes)]
    gap = panel.gaps.contrast(mean_weights(small))
    return _compare(
        panel, gap, small, f"At {name_sizes(small)} sigmoid minus softmax is {gap} points"
    )


def gap_closes(panel: BatchPanel) -> Verdict | None:
    """The difference at the small batches is larger than at the large ones."""
    if len(panel.sizes) < 2:
        return _too_few(panel)
    k = quarter(panel.sizes)
    small, large = panel.sizes[:k], panel.sizes[-k:]
    change = panel.gaps.contrast(combine((1, mean_weights(small)), (-1, mean_weights(large))))
    return _compare(
        panel,
        change,
        [*small, *large],
        f"Sigmoid's lead over softmax at {name_sizes(small)} minus its lead at "
        f"{name_sizes(large)} is {change} points",
    )


def level_at_large(panel: BatchPanel) -> Verdict | None:
    """The mean difference over the large batches is within the tolerance of zero."""
    if len(panel.sizes) < 2:
        return _too_few(panel)
    large = panel.sizes[-quarter(panel.sizes) :]
    gap = panel.gaps.contrast(mean_weights(large))
    return _compare(
        panel,
        gap,
        large,
        f"At {name_sizes(large)} sigmoid minus softmax is {gap} points; level means within "
        f"{TOLERANCE:g} point",
        conditions={
            "tolerance minus the lead": (-gap).shift(TOLERANCE),
            "the lead plus the tolerance": gap.shift(TOLERANCE),
        },
    )


def _compare(
    panel: BatchPanel,
    gap: Interval,
    sizes: Sequence[int],
    sentence: str,
    conditions: dict[str, Interval] | None = None,
) -> Verdict:
    """A comparison of the losses at these batch sizes: undecided unless both rates were tuned."""
    if panel.floor:
        sentence += f"; {name_sizes(panel.floor)} left out: neither loss has learned much there"
    verdict = conclude(
        gap,
        panel.gaps,
        sentence,
        cells=2 * sum(panel.gaps.counts[size] for size in sizes),
        scope=panel.scope,
        conditions=conditions,
    )
    return panel.check_rates(verdict, set(sizes))


def _too_few(panel: BatchPanel) -> Verdict | None:
    """Of fewer than two batch sizes: no data, unless the floor removed some."""
    if not panel.floor or not panel.sizes:
        return None
    return Verdict(
        verdict="undecided",
        unit=POINTS,
        sentence=f"The losses can be compared at {name_sizes(panel.sizes)} only: at "
        f"{name_sizes(panel.floor)} both are below {FLOOR:.0%} of the best quality "
        f"({panel.scope}).",
        decide="a longer budget, or batch sizes at which both losses learn",
    )


def too_large_hurts(panel: BatchPanel) -> Verdict | None:
    """The best smaller batch beats the largest one.

    The best of several means is too good by selection, so every smaller batch is compared with the
    largest one by simultaneous intervals.
    """
    sizes = panel.sigmoid_sizes
    if len(sizes) < 2:
        return None
    *smaller, last = sizes
    leads = {size: _gain(panel, size, last, len(smaller)) for size in smaller}
    lead = largest(leads.values())
    best = max(smaller, key=lambda size: leads[size].estimate)
    return conclude(
        lead,
        panel.quality,
        f"The best smaller batch size, {name_sizes([best], panel.steps)}, is {lead} points better "
        f"than the largest, {name_sizes([last], panel.steps)}",
        cells=sum(panel.quality.counts[("sigmoid", size)] for size in sizes),
        scope=panel.scope,
        conditions={f"lead of B = {size}": _gain(panel, size, last) for size in smaller},
        p_values=any_above(_gain(panel, size, last) for size in smaller),
    )


def saturates(panel: BatchPanel) -> Verdict | None:
    """From some batch size on, no larger one gains more than the tolerance.

    That size must be at most the paper's 32k where the grid holds it and goes beyond, else below
    the grid's largest. Its interval covers the sizes that simultaneous intervals of all gains leave
    possible, up to the largest where a gain beyond the tolerance cannot be ruled out before. Two
    batch sizes show no plateau, whatever their qualities.
    """
    sizes = panel.sigmoid_sizes
    if len(sizes) < 2:
        return None
    comparisons = len(sizes) * (len(sizes) - 1) // 2
    limit, reason = enough(sizes, at=len(sizes) - 2)
    gains = {
        size: [_gain(panel, more, size, comparisons) for more in sizes[i + 1 :]]
        for i, size in enumerate(sizes[:-1])
    }

    def first(end: str) -> float:
        """The smallest size beyond which no gain, by this end of its interval, is too large."""
        flat = (s for s, more in gains.items() if max(getattr(g, end) for g in more) <= TOLERANCE)
        return float(next(flat, sizes[-1]))

    size = Interval(first("estimate"))
    if panel.quality.has_interval:
        size = Interval(size.estimate, first("low"), first("high"))
    margins = {
        at: {
            f"{TOLERANCE:g} minus the gain from B = {at} to {more}": (
                -_gain(panel, more, at)
            ).shift(TOLERANCE)
            for more in sizes
            if more > at
        }
        for at in sizes[:-1]
        if at <= limit
    }
    result = conclude(
        size,
        panel.quality,
        f"From B = {size:.0f} on, no larger batch up to "
        f"{name_sizes(sizes[-1:], panel.steps).removeprefix('B = ')} gains more than "
        f"{TOLERANCE:g} point; reproduced means at most {limit}, {reason}",
        unit="batch size",
        effect_unit=POINTS,
        cells=sum(panel.quality.counts[("sigmoid", size)] for size in sizes),
        scope=panel.scope,
        conditions={name: part for of in margins.values() for name, part in of.items()},
        p_values=any_above(all_above(of.values()) for of in margins.values()),
    )
    if len(sizes) >= PLATEAU:
        return result
    return withhold(
        result,
        because=f"{len(sizes)} batch sizes cannot show a plateau.",
        decide=f"{PLATEAU} batch sizes or more",
    )


def enough(sizes: Sequence[int], *, at: int) -> tuple[int, str]:
    """The batch size that must be enough, and why: the paper's 32k, or the grid's `at`-th."""
    if ENOUGH in sizes[:-1]:
        return ENOUGH, "the paper's 32k"
    return sizes[at], "because this grid does not go beyond the paper's 32k"


def quarter(sizes: Sequence[int]) -> int:
    """How many batch sizes count as small, and as large."""
    return max(1, round(len(sizes) / 4))


def _gain(panel: BatchPanel, size: int, other: int, comparisons: int = 1) -> Interval:
    """Sigmoid quality at one batch size minus another, as one of several `comparisons`."""
    weights = {("sigmoid", size): 1.0, ("sigmoid", other): -1.0}
    return panel.quality.contrast(weights, comparisons=comparisons)


SIGLIT = "sigmoid and softmax by batch_size with model.image.kind=cached, two seeds"
SIGLIP = "sigmoid and softmax by batch_size with model.image.kind=vit, two seeds"

CLAIMS = (
    Claim(
        name="sigmoid ahead at small batch",
        sentence="With small batches the sigmoid loss is clearly better than the softmax loss.",
        section="4.1",
        needs=SIGLIT,
        test=on("cached", ahead_at_small),
    ),
    Claim(
        name="gap closes with batch",
        sentence="The gap between the losses closes as the batch grows.",
        section="4.1",
        needs=SIGLIT,
        test=on("cached", gap_closes),
    ),
    Claim(
        name="losses level at large batch",
        sentence="With large batches the two losses are about level.",
        section="4.1",
        needs=SIGLIT,
        test=on("cached", level_at_large),
    ),
    Claim(
        name="quality saturates",
        sentence="Batch sizes above 32k gain little.",
        section="4.1",
        needs=SIGLIT,
        test=on("cached", saturates),
    ),
    Claim(
        name="too large a batch hurts",
        sentence="At a fixed budget, a batch beyond the best one lowers the quality.",
        section="4.1, 4.2",
        needs=SIGLIT,
        test=on("cached", too_large_hurts),
    ),
    Claim(
        name="from scratch: sigmoid ahead",
        sentence="With both towers trained, sigmoid is ahead of softmax at small batches.",
        section="4.2",
        needs=SIGLIP,
        test=on("vit", ahead_at_small),
    ),
    Claim(
        name="from scratch: gap closes",
        sentence="With both towers trained, the gap between the losses closes as the batch grows.",
        section="4.2",
        needs=SIGLIP,
        test=on("vit", gap_closes),
    ),
    Claim(
        name="from scratch: saturates",
        sentence="With both towers trained, batch sizes above 32k gain little.",
        section="4.2",
        needs=SIGLIP,
        test=on("vit", saturates),
    ),
    Claim(
        name="from scratch: too large hurts",
        sentence="With both towers trained, a batch beyond the best one lowers the quality.",
        section="4.2",
        needs=SIGLIP,
        test=on("vit", too_large_hurts),
    ),
)
