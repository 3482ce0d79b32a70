"""Tests of the paper's claims about batch size and loss, on one batch-size panel (Fig. 2).

"Small" and "large" batches are the smallest and the largest quarter of the grid, at least one
size. Differences are sigmoid minus softmax, paired by seed. Batch sizes at which neither loss has
learned much (see `FLOOR`) enter no difference: near zero all losses are level.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.rates import Tuning, at_tuned_rates, rate_not_tuned
from analysis.claims.scope import scope, sizes_with_steps, steps_by_size
from analysis.claims.verdict import (
    POINTS,
    TOLERANCE,
    Finding,
    Kind,
    found,
    intersection_union,
    no_data,
    verdict_of,
    withheld,
)
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import (
    Interval,
    PooledMeans,
    by_group,
    paired_differences,
    pooled_means,
)

ENOUGH = 32_768  # the batch size that the paper says is enough
FLOOR = 0.25  # of the panel's best quality: a batch size where both losses are below it is left out
PLATEAU = 3  # batch sizes that it takes to see that quality no longer rises
Image = Literal["cached", "vit"]


@dataclass(frozen=True, kw_only=True)
class BatchData:
    """Quality by (loss, batch size), and its paired differences by batch size.

    Attributes:
      floor: the batch sizes that have no difference because neither loss has learned much.
      scope: budget and batch sizes in words; steps: of a run, by batch size.
      tuning: what is known of the learning rates at given batch sizes.
    """

    quality: PooledMeans
    differences: PooledMeans
    floor: tuple[int, ...] = ()
    scope: str = ""
    steps: dict[int, int] = field(default_factory=dict)
    tuning: Callable[[Sequence[int]], Tuning | None] = lambda sizes: None

    def sizes(self, loss: str | None = None) -> list[int]:
        """Batch sizes with this loss, or with a pair of both."""
        if loss is None:
            return sorted(self.differences.means)
        return sorted(size for kind, size in self.quality.means if kind == loss)


def on(image: Image, test: Callable[[BatchData], Finding]) -> Callable[[Evidence], Finding]:
    """The test on the panel with this image tower: "cached" is SigLiT, "vit" is from scratch."""
    return lambda evidence: test(
        evidence.once(("batch", image), lambda: from_evidence(evidence, image))
    )


def from_evidence(evidence: Evidence, image: Image) -> BatchData:
    """The finished cells of the panel, see `panels.batch_sizes`, at its longest budget."""
    done = panels.batch_sizes(longest_budget(evidence.cells, image), image=image).done
    pairs = by_group(paired_differences(done, evidence.metric), ["batch_size"], "difference")
    quality = pooled_means(
        by_group(done, ["loss.kind", "batch_size"], evidence.metric), rounding=evidence.rounding
    )
    floor = _floor(quality, pairs)
    gaps = {size: values for size, values in pairs.items() if size not in floor}
    return BatchData(
        quality=quality,
        differences=pooled_means(gaps, rounding=2 * evidence.rounding),
        floor=floor,
        scope=scope(done),
        steps=steps_by_size(done),
        # Printed numbers come without their rates.
        tuning=lambda sizes: None if evidence.rounding else rate_not_tuned(evidence, done, sizes),
    )


def _floor(quality: PooledMeans, pairs: Collection[int]) -> tuple[int, ...]:
    """Batch sizes with a pair where the better loss is below `FLOOR` of the panel's best."""
    best = {
        size: max(mean for (_, other), mean in quality.means.items() if other == size)
        for size in pairs
    }
    least = FLOOR * max(quality.means.values(), default=0.0)
    return tuple(sorted(size for size, mean in best.items() if mean < least))


def longest_budget(cells: pd.DataFrame, image: Image) -> pd.DataFrame:
    """Without this panel's cells of shorter budgets, where a study has several.

    As in the paper's Fig. 2 the longest budget is meant: of those with both losses at half of
    all batch sizes or more, so that a few long runs beside a panel are not taken for it.
    """
    pool = with_fields(cells, ["budget.examples", "model.image.kind"])
    pool = pool[pool["model.image.kind"] == image]
    budget = pool["budget.examples"].astype(float).fillna(-1.0)
    done = pool["status"] == "done"
    sizes = {
        length: set.intersection(
            *(
                set(pool["batch_size"][done & (budget == length) & (pool["loss.kind"] == loss)])
                for loss in ("sigmoid", "softmax")
            )
        )
        for length in sorted(set(budget))
    }
    every = set[int]().union(*sizes.values())
    whole = [length for length, both in sizes.items() if both and 2 * len(both) >= len(every)]
    if not whole:
        return cells
    return cells.drop(index=pool.index[budget != whole[-1]])


def ahead_at_small(data: BatchData) -> Finding:
    """The mean difference over the small batches is above zero."""
    sizes = data.sizes()
    if not sizes:
        return no_data("No batch size has a finished sigmoid and softmax cell of one seed.")
    small = sizes[: quarter(sizes)]
    gap = data.differences.contrast(_mean(small))
    return _gap_finding(data, verdict_of(gap), gap, small, f"At {_at(small)} {_lead(gap)}")


def gap_closes(data: BatchData) -> Finding:
    """The difference at the small batches is larger than at the large ones."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return _too_few(data)
    k = quarter(sizes)
    small, large = sizes[:k], sizes[-k:]
    change = data.differences.contrast(
        _mean(small) | {g: -w for g, w in _mean(large).items()},
    )
    return _gap_finding(
        data,
        verdict_of(change),
        change,
        [*small, *large],
        f"Sigmoid's lead over softmax at {_at(small)} minus its lead at {_at(large)} is "
        f"{change} points",
    )


def level_at_large(data: BatchData) -> Finding:
    """The mean difference over the large batches is within the tolerance of zero."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return _too_few(data)
    large = sizes[-quarter(sizes) :]
    gap = data.differences.contrast(_mean(large))
    within = {
        "tolerance minus the lead": (-gap).shift(TOLERANCE),
        "the lead plus the tolerance": gap.shift(TOLERANCE),
    }
    verdict, _ = intersection_union(*within.values())
    sentence = f"At {_at(large)} {_lead(gap)}; level means within {TOLERANCE:g}"
    return _gap_finding(data, verdict, gap, large, sentence, conditions=within)


def _gap_finding(
    data: BatchData,
    verdict: Kind,
    gap: Interval,
    sizes: Sequence[int],
    sentence: str,
    *,
    conditions: dict[str, Interval] | None = None,
) -> Finding:
    """A comparison of the losses at these batch sizes: undecided unless both rates were tuned."""
    if data.floor:
        sentence += f"; left out, as neither loss has learned much there: {_at(data.floor)}"
    finding = found(
        verdict,
        gap,
        unit=POINTS,
        cells=2 * sum(data.differences.counts[size] for size in sizes),
        sentence=sentence,
        means=data.differences,
        scope=data.scope,
        conditions=conditions,
    )
    tuning = data.tuning(sizes)
    return at_tuned_rates(finding, tuning) if tuning else finding


def _too_few(data: BatchData) -> Finding:
    """Fewer than two batch sizes are left to compare the losses at."""
    if not data.floor or not data.sizes():
        return no_data("Fewer than two batch sizes have a pair of finished cells.")
    return Finding(
        verdict="undecided",
        unit=POINTS,
        sentence=f"Only at {_at(data.sizes())} have the losses learned enough to be compared; at "
        f"{_at(data.floor)} both are below {FLOOR:.0%} of the best quality ({data.scope}).",
        decide="a longer budget, or batch sizes at which both losses learn",
    )


def too_large_hurts(data: BatchData) -> Finding:
    """The best smaller batch beats the largest one.

    The best of several means is too good by selection. So every smaller batch is compared with
    the largest by intervals that hold at once: the largest of their lower ends bounds the best
    one's true lead, whichever it is.
    """
    sizes = data.sizes("sigmoid")
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a finished sigmoid cell.")
    *smaller, largest = sizes
    critical = data.quality.critical(comparisons=len(smaller), among=len(sizes))
    leads = [_step(data, size, largest, critical) for size in smaller]
    lead = Interval(*(max(ends) for ends in zip(*leads, strict=True)))
    best = smaller[max(range(len(leads)), key=lambda i: leads[i].estimate)]
    return found(
        verdict_of(lead),
        lead,
        unit=POINTS,
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"Of the smaller batches {sizes_with_steps([best], data.steps)} is best; it gains "
        f"{lead} points over the largest, {sizes_with_steps([largest], data.steps)}",
        means=data.quality,
        scope=data.scope,
    )


def saturates(data: BatchData) -> Finding:
    """From some batch on, no larger one gains more than the tolerance.

    That batch is to be at most the paper's 32k where the grid holds it and goes beyond, else
    below the grid's largest. Its interval runs over the batches that simultaneous intervals of
    all gains leave possible; it ends at the largest batch when a gain beyond the tolerance
    cannot be ruled out before. Two batch sizes show no plateau, whatever their qualities.
    """
    sizes = data.sizes("sigmoid")
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a finished sigmoid cell.")
    many = len(sizes) * (len(sizes) - 1) // 2
    critical = data.quality.critical(comparisons=many, among=len(sizes))
    by, scale = enough(sizes, at=len(sizes) - 2)
    halves: list[float] = []

    def first(end: str) -> float:
        for i, size in enumerate(sizes[:-1]):
            gains = [_step(data, more, size, critical) for more in sizes[i + 1 :]]
            halves.extend(gain.high - gain.estimate for gain in gains)
            if max(getattr(gain, end) for gain in gains) <= TOLERANCE:
                return float(size)
        return float(sizes[-1])

    estimate = first("estimate")
    batch = Interval(
        estimate, *([first("low"), first("high")] if data.quality.has_interval else NONE)
    )
    verdict: Kind = "undecided"
    if batch.has_interval:
        verdict = "reproduced" if batch.high <= by else verdict
        verdict = "contradicted" if batch.low > by else verdict
    finding = found(
        verdict,
        batch,
        unit="batch size",
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"From B = {batch:.0f} on, no larger batch up to "
        f"{sizes_with_steps(sizes[-1:], data.steps).removeprefix('B = ')} gains more than "
        f"{TOLERANCE:g} point; reproduced means at most {by}, {scale}",
        means=data.quality,
        scope=data.scope,
        # As many seeds as let a gain of half the tolerance be told from the tolerance.
        to_decide=Interval(TOLERANCE / 2, TOLERANCE / 2 - max(halves), TOLERANCE),
    )
    if len(sizes) >= PLATEAU:
        return finding
    return withheld(
        finding,
        because=f"{len(sizes)} batch sizes cannot show a plateau.",
        decide=f"{PLATEAU} batch sizes or more",
    )


NONE = (float("nan"), float("nan"))


def enough(sizes: Sequence[int], *, at: int) -> tuple[int, str]:
    """The batch size that is to be enough, and why: the paper's 32k, or the grid's `at`-th."""
    if ENOUGH in sizes[:-1]:
        return ENOUGH, "the paper's 32k"
    return sizes[at], "as this grid does not reach beyond the paper's 32k"


def quarter(sizes: Sequence[int]) -> int:
    """How many batch sizes count as small, and as large."""
    return max(1, round(len(sizes) / 4))


def _step(data: BatchData, size: int, minus: int, critical: float) -> Interval:
    """Sigmoid quality at one batch size minus another, one of several that hold at once."""
    weights = {("sigmoid", size): 1.0, ("sigmoid", minus): -1.0}
    return data.quality.contrast(weights, critical=critical)


def _lead(gap: Interval) -> str:
    return f"sigmoid minus softmax is {gap} points"


def _mean(sizes: Sequence[int]) -> dict[int, float]:
    return dict.fromkeys(sizes, 1 / len(sizes))


def _at(sizes: Sequence[int]) -> str:
    return f"B = {', '.join(str(size) for size in sizes)}"
