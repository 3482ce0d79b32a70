"""Tests of the paper's claims about batch composition (Sec. 4.8, Fig. 6), on masked sigmoid cells.

All are linear in the group means, so each has an exact interval under the pooled variance.
A slope is the least-squares change of a mean per tenfold fewer negatives, unmasked batch included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.scope import scope
from analysis.claims.verdict import POINTS, Finding, found, intersection_union, no_data, verdict_of
from analysis.select import panels
from analysis.stats.intervals import PooledMeans, by_group, pooled_means

QUARTER = 0.25  # what counts as a small part of random's change, and as a large loss
SLOPE = "per tenfold fewer negatives"
Group = tuple[str, float]  # what is kept, and negatives per positive
Weights = Mapping[Group, float]


@dataclass(frozen=True, kw_only=True)
class CompositionData:
    """Means by (keep, negatives per positive); `unmasked` is the group of the whole batch.

    scope: budget and batch size in words.
    """

    quality: PooledMeans
    bias: PooledMeans
    positives: PooledMeans
    negatives: PooledMeans
    unmasked: Group
    scope: str = ""


def on_panel(test: Callable[[CompositionData], Finding]) -> Callable[[Evidence], Finding]:
    """The test on the study's masked cells."""
    return lambda evidence: test(
        evidence.once("composition", lambda: from_cells(evidence.cells, evidence.metric))
    )


def from_cells(cells: pd.DataFrame, metric: str) -> CompositionData:
    """The finished cells of the panel, see `panels.compositions`."""
    done = panels.compositions(cells).done
    keep, ratio = panels.AXES_PAIRS
    whole = float(done["batch_size"].iloc[0] - 1) if len(done) else math.nan
    done = done.assign(**{ratio: done[ratio].astype(float).where(done[keep] != "all", whole)})

    def means(column: str) -> PooledMeans:
        return pooled_means(by_group(done, [keep, ratio], column))

    return CompositionData(
        quality=means(metric),
        bias=means("train/b"),
        positives=means("train/pos_logit_mean"),
        negatives=means("train/neg_logit_mean"),
        unmasked=("all", whole),
        scope=scope(done),
    )


def random_hurts(data: CompositionData) -> Finding:
    """Quality lost by dropping random negatives, mean over the ratios, is above zero."""
    means, random = data.quality, _groups(data.quality, "random")
    if data.unmasked not in means.means or not random:
        return no_data("Needs the unmasked batch and random negatives dropped.")
    loss = means.contrast(_loss(data, random))
    return found(
        verdict_of(loss),
        loss,
        unit=POINTS,
        cells=_cells(means, [data.unmasked, *random]),
        sentence=f"Dropping random negatives costs {loss:.2f} points, mean over {_ratios(random)}",
        means=means,
        scope=data.scope,
    )


def easy_fails(data: CompositionData) -> Finding:
    """Easy negatives alone are worse than as many random ones, and lose over a quarter."""
    means, easy = data.quality, _groups(data.quality, "easy")
    both = _shared(data.quality, "easy", "random")
    if data.unmasked not in means.means or not both:
        return no_data("Needs the unmasked batch, and easy and random negatives at one ratio.")
    randoms, easies = [("random", r) for r in both], [("easy", r) for r in both]
    behind = means.contrast(_sum(_mean(randoms), _mean(easies, -1)))
    large = means.contrast(_sum({data.unmasked: 1 - QUARTER}, _mean(easy, -1)))
    verdict, _ = intersection_union(behind, large)
    lost = 1 - _average(means, easy) / means.means[data.unmasked]
    kept = f"{1 - QUARTER:.0%}"
    return found(
        verdict,
        behind,
        unit=POINTS,
        cells=_cells(means, [data.unmasked, *easy, *randoms]),
        sentence=f"Easy negatives alone lose {lost:.0%} of the unmasked quality; {kept} of it minus"
        f" theirs is {large} points, and as many random ones minus easy ones "
        f"{behind}",
        means=means,
        scope=data.scope,
        conditions={
            f"{kept} of the unmasked quality minus easy": large,
            "random minus easy": behind,
        },
    )


def hard_keeps(data: CompositionData) -> Finding:
    """The hardest negatives alone lose less than a quarter of what random ones lose."""
    means, both = data.quality, _shared(data.quality, "hard", "random")
    if data.unmasked not in means.means or not both:
        return no_data("Needs the unmasked batch, and hard and random negatives at one ratio.")
    hard, random = [("hard", r) for r in both], [("random", r) for r in both]
    random_loss, hard_loss = _loss(data, random), _loss(data, hard)
    margin = means.contrast(_sum(_scaled(random_loss, QUARTER), _scaled(hard_loss, -1)))
    lost = [f"{means.contrast(weights):.2f}" for weights in (hard_loss, random_loss)]
    return found(
        verdict_of(margin),
        margin,
        unit=POINTS,
        cells=_cells(means, [data.unmasked, *hard, *random]),
        sentence=f"Hard negatives alone lose {lost[0]} points where random ones lose {lost[1]}; a "
        f"quarter of random's loss minus hard's is {margin}",
        means=means,
        scope=data.scope,
    )


def rises(data: CompositionData, *, of: str) -> Finding:
    """A mean rises as random negatives are dropped. `of`: bias, positives or negatives."""
    means: PooledMeans = getattr(data, of)
    random = _groups(means, "random")
    groups = [g for g in (data.unmasked, *random) if g in means.means]
    if len(groups) < 2 or not random:
        return no_data(
            "Needs random negatives dropped, at two ratios or beside the unmasked batch."
        )
    slope = means.contrast(_slope(groups))
    what = {"bias": "The learned bias", "positives": "The mean logit of positives"}
    return found(
        verdict_of(slope),
        slope,
        unit=SLOPE,
        cells=_cells(means, groups),
        sentence=f"{what.get(of, 'The mean logit of negatives')} changes by "
        f"{slope} per tenfold fewer random negatives",
        means=means,
        scope=data.scope,
    )


def hard_is_flat(data: CompositionData) -> Finding:
    """With hard negatives positive logits change by less than a quarter of random's change."""
    means, both = data.positives, _shared(data.positives, "hard", "random")
    if data.unmasked not in means.means or not both:
        return no_data("Needs the unmasked batch, and hard and random negatives at one ratio.")
    hard = _slope([data.unmasked, *(("hard", r) for r in both)])
    random = _slope([data.unmasked, *(("random", r) for r in both)])
    allowed = _scaled(random, QUARTER)
    below = means.contrast(_sum(allowed, _scaled(hard, -1)))
    above = means.contrast(_sum(allowed, hard))
    verdict, binding = intersection_union(below, above)
    slopes = [f"{means.contrast(weights)}" for weights in (hard, random)]
    return found(
        verdict,
        binding,
        unit=SLOPE,
        cells=_cells(means, {*hard, *random}),
        sentence=f"Per tenfold fewer negatives positive logits change by {slopes[0]} with hard "
        f"ones and by {slopes[1]} with random ones; a quarter of random's change minus the size of "
        f"hard's is {binding}",
        means=means,
        scope=data.scope,
        conditions={"a quarter of random's minus hard's": below, "their sum": above},
    )


bias_rises = partial(rises, of="bias")
positives_rise = partial(rises, of="positives")
negatives_rise = partial(rises, of="negatives")


def _groups(means: PooledMeans, keep: str) -> list[Group]:
    return sorted(group for group in means.means if group[0] == keep)


def _shared(means: PooledMeans, *keeps: str) -> list[float]:
    """Ratios at which all of these were measured."""
    ratios = [{ratio for _, ratio in _groups(means, keep)} for keep in keeps]
    return sorted(set.intersection(*ratios))


def _mean(groups: Iterable[Group], factor: float = 1.0) -> dict[Group, float]:
    groups = list(groups)
    return dict.fromkeys(groups, factor / len(groups))


def _loss(data: CompositionData, groups: Iterable[Group]) -> dict[Group, float]:
    return _sum({data.unmasked: 1.0}, _mean(groups, -1))


def _slope(groups: Iterable[Group]) -> dict[Group, float]:
    """Weights of the least-squares slope against -log10(negatives per positive)."""
    x = {group: -math.log10(group[1]) for group in groups}
    middle = sum(x.values()) / len(x)
    spread = sum((value - middle) ** 2 for value in x.values())
    return {group: (value - middle) / spread for group, value in x.items()}


def _sum(*parts: Weights) -> dict[Group, float]:
    total: dict[Group, float] = {}
    for part in parts:
        for group, weight in part.items():
            total[group] = total.get(group, 0.0) + weight
    return total


def _scaled(weights: Weights, factor: float) -> dict[Group, float]:
    return {group: factor * weight for group, weight in weights.items()}


def _average(means: PooledMeans, groups: list[Group]) -> float:
    return sum(means.means[group] for group in groups) / len(groups)


def _cells(means: PooledMeans, groups: Iterable[Group]) -> int:
    return sum(means.counts[group] for group in set(groups))


def _ratios(groups: Iterable[Group]) -> str:
    return ", ".join(f"1:{ratio:g}" for _, ratio in sorted(groups, reverse=True))
