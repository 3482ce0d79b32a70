"""Claims about batch size and loss (Sec. 4.1 and 4.2, Fig. 2), on one panel of batch sizes.

"Small" and "large" batches are the smallest and the largest quarter of the panel's sizes, at least
one size. Differences are sigmoid minus softmax, paired by seed. What counts as level or as little
is a quarter of the effect that the claim is about.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.batch_panel import BatchPanel, on, too_few
from analysis.claims.claim import Claim, Verdict, conclude, withhold
from analysis.claims.plateau import saturates, too_large_hurts
from analysis.claims.scope import name_sizes
from analysis.stats.contrasts import QUARTER, combine, mean_weights
from analysis.stats.intervals import Interval


def ahead_at_small(panel: BatchPanel) -> Verdict | None:
    """The mean difference over the small batches is above zero."""
    sizes = sorted(panel.gaps.means)
    if not sizes:
        return too_few(panel, sizes, gaps=True)
    small = sizes[: quarter(sizes)]
    gap = panel.gaps.contrast(mean_weights(small))
    return _compare(
        panel, gap, small, f"At {name_sizes(small)} sigmoid minus softmax is {gap} points"
    )


def gap_closes(panel: BatchPanel) -> Verdict | None:
    """The difference at the small batches is larger than at the large ones."""
    sizes = sorted(panel.gaps.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=True)
    k = quarter(sizes)
    small, large = sizes[:k], sizes[-k:]
    change = panel.gaps.contrast(combine((1, mean_weights(small)), (-1, mean_weights(large))))
    return _compare(
        panel,
        change,
        [*small, *large],
        f"Sigmoid's lead over softmax at {name_sizes(small)} minus its lead at "
        f"{name_sizes(large)} is {change} points",
    )


def level_at_large(panel: BatchPanel) -> Verdict | None:
    """At the large batches the difference is within a quarter of that at the small ones.

    Both are contrasts of the same means, so no ratio is formed.
    """
    sizes = sorted(panel.gaps.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=True)
    k = quarter(sizes)
    small, large = sizes[:k], sizes[-k:]
    lead, gap = (panel.gaps.contrast(mean_weights(own)) for own in (small, large))
    ahead = QUARTER if lead.estimate >= 0 else -QUARTER  # whichever loss leads at small batches
    margin = combine((ahead, mean_weights(small)))
    verdict = _compare(
        panel,
        gap,
        [*small, *large],
        f"At {name_sizes(large)} sigmoid minus softmax is {gap} points, at {name_sizes(small)} "
        f"{lead}; level means within a quarter of that",
        conditions={
            f"a quarter of the lead at small batches {name} that at large ones": (
                panel.gaps.contrast(combine((1, margin), (sign, mean_weights(large))))
            )
            for name, sign in (("minus", -1), ("plus", 1))
        },
        effect=QUARTER * lead.estimate,
    )
    if lead.low <= 0 <= lead.high:
        return withhold(
            verdict,
            because="At small batches neither loss leads, so a quarter of the lead is no measure.",
            decide="batch sizes at which one loss leads",
        )
    if max(panel.short, default=0) > large[-1] and abs(gap.estimate) > QUARTER * abs(lead.estimate):
        return withhold(
            verdict,
            because="The larger batch sizes were left out, so a lead here does not contradict it.",
            decide="larger batch sizes with 500 steps or more, so a longer budget",
        )
    return verdict


def _compare(
    panel: BatchPanel,
    gap: Interval,
    sizes: Sequence[int],
    sentence: str,
    conditions: dict[str, Interval] | None = None,
    effect: float | None = None,
) -> Verdict:
    """A comparison of the losses at these batch sizes: undecided unless both rates were tuned.

    A better rate may gain up to a quarter of the effect, in points; None is the estimate.
    """
    verdict = conclude(
        gap,
        panel.gaps,
        f"{sentence}{panel.left_out(gaps=True)}",
        scope=panel.scope,
        conditions=conditions,
    )
    effect = gap.estimate if effect is None else effect
    return panel.check_rates(verdict, set(sizes), QUARTER * abs(effect))


def quarter(sizes: Sequence[int]) -> int:
    """How many batch sizes count as small, and as large."""
    return max(1, round(len(sizes) / 4))


SIGLIT = "sigmoid and softmax by batch_size with model.image.kind=cached, two seeds"
SIGLIP = "sigmoid and softmax by batch_size with model.image.kind=vit, two seeds"

CLAIMS = (
    Claim(
        name="sigmoid ahead at small batch",
        sentence="With small batches the sigmoid loss is clearly better than the softmax loss.",
        section="4.1",
        figure="batch_size",
        needs=SIGLIT,
        test=on("cached", ahead_at_small),
    ),
    Claim(
        name="gap closes with batch",
        sentence="The gap between the losses closes as the batch grows.",
        section="4.1",
        figure="batch_size",
        needs=SIGLIT,
        test=on("cached", gap_closes),
    ),
    Claim(
        name="losses level at large batch",
        sentence="With large batches the two losses are about level.",
        section="4.1",
        figure="batch_size",
        needs=SIGLIT,
        test=on("cached", level_at_large),
    ),
    Claim(
        name="quality saturates",
        sentence="Batch sizes above 32k gain little.",
        section="4.1",
        figure="saturation",
        needs=SIGLIT,
        test=on("cached", saturates),
    ),
    Claim(
        name="too large a batch hurts",
        sentence="At a fixed budget, a batch beyond the best one lowers the quality.",
        section="4.1, 4.2",
        figure="batch_size",
        needs=SIGLIT,
        test=on("cached", too_large_hurts),
    ),
    Claim(
        name="from scratch: sigmoid ahead",
        sentence="With both towers trained, sigmoid is ahead of softmax at small batches.",
        section="4.2",
        figure="from_scratch",
        needs=SIGLIP,
        test=on("vit", ahead_at_small),
    ),
    Claim(
        name="from scratch: gap closes",
        sentence="With both towers trained, the gap between the losses closes as the batch grows.",
        section="4.2",
        figure="from_scratch",
        needs=SIGLIP,
        test=on("vit", gap_closes),
    ),
    Claim(
        name="from scratch: saturates",
        sentence="With both towers trained, batch sizes above 32k gain little.",
        section="4.2",
        figure="from_scratch",
        needs=SIGLIP,
        test=on("vit", saturates),
    ),
    Claim(
        name="from scratch: too large hurts",
        sentence="With both towers trained, a batch beyond the best one lowers the quality.",
        section="4.2",
        figure="from_scratch",
        needs=SIGLIP,
        test=on("vit", too_large_hurts),
    ),
)
