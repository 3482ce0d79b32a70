"""Claims about batch composition (Sec. 4.8, Fig. 6), on masked sigmoid cells.

All are linear in the group means, so each has an exact interval under the pooled variance.
A slope is the least-squares change of a mean per tenfold fewer negatives, unmasked batch included.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.claims.claim import Claim, Evidence, Verdict, conclude, weakest
from analysis.claims.scope import scope
from analysis.select import panels
from analysis.stats.contrasts import QUARTER, Weights, combine, mean_weights, slope_weights
from analysis.stats.intervals import GroupMeans, by_group

SLOPE = "per tenfold fewer negatives"
Group = tuple[str, float]  # what is kept, and negatives per positive


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Means by (keep, negatives per positive).

    Attributes:
      unmasked: the group of the whole batch.
      scope: budget and batch size in words.
    """

    quality: GroupMeans
    bias: GroupMeans
    positives: GroupMeans
    negatives: GroupMeans
    unmasked: Group
    scope: str

    def groups(self, means: GroupMeans, *keeps: str) -> list[list[Group]]:
        """For each way to keep negatives its groups in `means`, at the ratios that all ways have.

        Empty without the unmasked batch, which every test compares with.
        """
        if self.unmasked not in means.means:
            return []
        ratios = [{ratio for kept, ratio in means.means if kept == keep} for keep in keeps]
        shared = sorted(set.intersection(*ratios))
        return [[(keep, ratio) for ratio in shared] for keep in keeps if shared]

    def loss(self, groups: Iterable[Group]) -> Weights:
        """The unmasked batch minus the mean of these groups."""
        return combine((1, {self.unmasked: 1.0}), (-1, mean_weights(groups)))

    def slope(self, groups: Iterable[Group]) -> Weights:
        return slope_weights({g: -math.log10(g[1]) for g in (self.unmasked, *groups)})


@functools.lru_cache(maxsize=2)
def composition(evidence: Evidence) -> Composition:
    """The finished cells of the panel, see `panels.compositions`."""
    done = panels.compositions(evidence.cells).done
    keep, ratio = panels.AXES_PAIRS
    whole = float(done["batch_size"].iloc[0] - 1) if len(done) else math.nan
    done = done.assign(**{ratio: done[ratio].astype(float).where(done[keep] != "all", whole)})
    quality, bias, positives, negatives = (
        evidence.means(by_group(done, [keep, ratio], column))
        for column in (
            evidence.metric,
            "train/b",
            "train/pos_logit_mean",
            "train/neg_logit_mean",
        )
    )
    return Composition(
        quality=quality,
        bias=bias,
        positives=positives,
        negatives=negatives,
        unmasked=("all", whole),
        scope=scope(done),
    )


def random_hurts(evidence: Evidence) -> Verdict | None:
    """Quality lost by dropping random negatives, mean over the ratios, is above zero."""
    data = composition(evidence)
    if not (groups := data.groups(data.quality, "random")):
        return None
    (random,) = groups
    loss = data.quality.contrast(data.loss(random))
    ratios = ", ".join(f"1:{ratio:g}" for _, ratio in reversed(random))
    return conclude(
        loss,
        data.quality,
        f"Dropping random negatives costs {loss:.2f} points, on average over {ratios}",
        scope=data.scope,
    )


def easy_fails(evidence: Evidence) -> Verdict | None:
    """Easy negatives alone are worse than as many random ones, and lose over a quarter."""
    data = composition(evidence)
    if not (groups := data.groups(data.quality, "easy", "random")):
        return None
    shared, random = groups
    (easy,) = data.groups(data.quality, "easy")
    means = data.quality
    kept = f"{1 - QUARTER:.0%} of the unmasked quality"
    margins = {
        f"{kept} minus easy": means.contrast(
            combine((1 - QUARTER, {data.unmasked: 1.0}), (-1, mean_weights(easy)))
        ),
        "random minus easy": means.contrast(
            combine((1, mean_weights(random)), (-1, mean_weights(shared)))
        ),
    }
    large, behind = margins.values()
    lost = means.contrast(data.loss(easy)).estimate / means.means[data.unmasked]
    return conclude(
        margins[weakest(margins)],
        means,
        f"Easy negatives alone lose {lost:.0%} of the unmasked quality; {kept} minus theirs is "
        f"{large} points, and that of as many random ones minus theirs is {behind}",
        scope=data.scope,
        conditions=margins,
    )


def hard_keeps(evidence: Evidence) -> Verdict | None:
    """The hardest negatives alone lose less than a quarter of what random ones lose."""
    data = composition(evidence)
    if not (groups := data.groups(data.quality, "hard", "random")):
        return None
    hard, random = groups
    margin = data.quality.contrast(combine((QUARTER, data.loss(random)), (-1, data.loss(hard))))
    by_hard, by_random = (data.quality.contrast(data.loss(group)) for group in groups)
    return conclude(
        margin,
        data.quality,
        f"Hard negatives alone lose {by_hard:.2f} points where random ones lose {by_random:.2f}; a "
        f"quarter of random's loss minus hard's is {margin}",
        scope=data.scope,
    )


def rises(column: str, name: str) -> Callable[[Evidence], Verdict | None]:
    """The test that a mean ("bias", "positives" or "negatives") rises as negatives are dropped."""

    def test(evidence: Evidence) -> Verdict | None:
        data = composition(evidence)
        means: GroupMeans = getattr(data, column)
        if not (groups := data.groups(means, "random")):
            return None
        (random,) = groups
        slope = means.contrast(data.slope(random))
        return conclude(
            slope,
            means,
            f"{name} changes by {slope} per tenfold fewer random negatives",
            unit=SLOPE,
            scope=data.scope,
        )

    return test


def hard_is_flat(evidence: Evidence) -> Verdict | None:
    """With hard negatives positive logits change by less than a quarter of random's change."""
    data = composition(evidence)
    means = data.positives
    if not (groups := data.groups(means, "hard", "random")):
        return None
    hard, random = (data.slope(group) for group in groups)
    margins = {
        "a quarter of random's minus hard's": means.contrast(
            combine((QUARTER, random), (-1, hard))
        ),
        "their sum": means.contrast(combine((QUARTER, random), (1, hard))),
    }
    margin = margins[weakest(margins)]
    return conclude(
        margin,
        means,
        f"Per tenfold fewer negatives positive logits change by {means.contrast(hard)} with hard "
        f"ones and by {means.contrast(random)} with random ones; a quarter of random's change "
        f"minus the size of hard's is {margin}",
        unit=SLOPE,
        scope=data.scope,
        conditions=margins,
    )


MASKED = "loss.pairs.kind=negatives at several per_positive and all pairs, at one batch_size"

CLAIMS = (
    Claim(
        name="dropping random negatives hurts",
        sentence="Fewer negatives, dropped at random, lower the quality.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=random",
        test=random_hurts,
    ),
    Claim(
        name="easy negatives alone fail",
        sentence="Keeping only the easiest negatives does not work.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=easy and random",
        test=easy_fails,
    ),
    Claim(
        name="hard negatives nearly keep quality",
        sentence="Keeping only the hardest negatives nearly maintains the quality.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=hard and random",
        test=hard_keeps,
    ),
    Claim(
        name="bias rises as negatives fall",
        sentence="With fewer random negatives the learned bias becomes more positive.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=random",
        test=rises("bias", "The learned bias"),
    ),
    Claim(
        name="positive logits rise",
        sentence="With fewer random negatives the logits of positives become more positive.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=random",
        test=rises("positives", "The mean logit of positives"),
    ),
    Claim(
        name="negative logits rise",
        sentence="With fewer random negatives the logits of negatives become more positive.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=random",
        test=rises("negatives", "The mean logit of negatives"),
    ),
    Claim(
        name="hard: positive logits flat",
        sentence="With hard negatives the logits of positives stay mostly flat.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=hard and random",
        test=hard_is_flat,
    ),
)
