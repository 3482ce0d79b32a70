"""Tests of the paper's claims about batch size and loss, on one batch-size panel (Fig. 2).

"Small" and "large" batches are the smallest and the largest quarter of the grid, at least one
size. Differences are sigmoid minus softmax, paired by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis import panels
from analysis.claims.evidence import Evidence
from analysis.claims.finding import (
    POINTS,
    TOLERANCE,
    Finding,
    Kind,
    all_positive,
    found,
    no_data,
    side,
)
from analysis.intervals import (
    Interval,
    PooledMeans,
    by_group,
    paired_differences,
    pooled_means,
)
from analysis.varying import with_fields

ENOUGH = 32_768  # the batch size that the paper says is enough
Image = Literal["cached", "vit"]


@dataclass(frozen=True, kw_only=True)
class BatchData:
    """Quality by (loss, batch size), and its paired differences by batch size."""

    quality: PooledMeans
    differences: PooledMeans

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
    return from_cells(done, evidence.metric, rounding=evidence.rounding)


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


def from_cells(done: pd.DataFrame, metric: str, *, rounding: float = 0.0) -> BatchData:
    """Of the finished cells of one panel."""
    pairs = paired_differences(done, metric)
    groups = by_group(done, ["loss.kind", "batch_size"], metric)
    gaps = by_group(pairs, ["batch_size"], "difference")
    return BatchData(
        quality=pooled_means(groups, rounding=rounding),
        differences=pooled_means(gaps, rounding=2 * rounding),
    )


def ahead_at_small(data: BatchData) -> Finding:
    """The mean difference over the small batches is above zero."""
    sizes = data.sizes()
    if not sizes:
        return no_data("No batch size has a finished sigmoid and softmax cell of one seed.")
    small = sizes[: quarter(sizes)]
    gap = data.differences.contrast(_mean(small))
    return found(
        side(gap),
        gap,
        unit=POINTS,
        cells=2 * _count(data, small),
        sentence=f"At {_at(small)} sigmoid is {_from_softmax(gap)}",
        means=data.differences,
    )


def gap_closes(data: BatchData) -> Finding:
    """The difference at the small batches is larger than at the large ones."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a pair of finished cells.")
    k = quarter(sizes)
    small, large = sizes[:k], sizes[-k:]
    change = data.differences.contrast(
        _mean(small) | {g: -w for g, w in _mean(large).items()},
    )
    return found(
        side(change),
        change,
        unit=POINTS,
        cells=2 * _count(data, [*small, *large]),
        sentence=f"Sigmoid's lead is {change.estimate:+.2f} points larger at {_at(small)} "
        f"than at {_at(large)}",
        means=data.differences,
    )


def level_at_large(data: BatchData) -> Finding:
    """The mean difference over the large batches is within the tolerance of zero."""
    sizes = data.sizes()
    if len(sizes) < 2:
        return no_data("Fewer than two batch sizes have a pair of finished cells.")
    large = sizes[-quarter(sizes) :]
    gap = data.differences.contrast(_mean(large))
    within = (gap.negative().above(-TOLERANCE), gap.above(-TOLERANCE))
    verdict, _ = all_positive(*within)
    return found(
        verdict,
        gap,
        unit=POINTS,
        cells=2 * _count(data, large),
        sentence=f"At {_at(large)} sigmoid is {_from_softmax(gap)}; level means "
        f"within {TOLERANCE:g}",
        means=data.differences,
        conditions=within,
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
        side(lead),
        lead,
        unit=POINTS,
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"Of the smaller batches B = {best} is best; at the same budget it gains "
        f"{lead.estimate:+.2f} points over the largest, B = {largest}",
        means=data.quality,
    )


def saturates(data: BatchData) -> Finding:
    """From some batch on, no larger one gains more than the tolerance.

    That batch is to be at most the paper's 32k where the grid holds it and goes beyond, else
    below the grid's largest. Its interval runs over the batches that simultaneous intervals of
    all gains leave possible; it ends at the largest batch when a gain beyond the tolerance
    cannot be ruled out before.
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
    batch = Interval(estimate, *([first("low"), first("high")] if data.quality.known else NONE))
    verdict: Kind = "undecided"
    if batch.known:
        verdict = "reproduced" if batch.high <= by else verdict
        verdict = "contradicted" if batch.low > by else verdict
    return found(
        verdict,
        batch,
        unit="batch size",
        cells=sum(data.quality.counts[("sigmoid", size)] for size in sizes),
        sentence=f"From B = {batch.estimate:.0f} on no larger batch gains more than "
        f"{TOLERANCE:g} point; it is to be at most {by}, {scale}",
        means=data.quality,
        # As many seeds as let a gain of half the tolerance be told from the tolerance.
        conditions=[Interval(TOLERANCE / 2, TOLERANCE / 2 - max(halves), TOLERANCE)],
    )


NONE = (float("nan"), float("nan"))


def enough(sizes: Sequence[int], *, at: int) -> tuple[int, str]:
    """The batch size that is to be enough, and why: the paper's 32k, or the grid's `at`-th."""
    if ENOUGH in sizes[:-1]:
        return ENOUGH, "the paper's 32k"
    return sizes[at], "on this grid, which has not the paper's 32k and sizes beyond it"


def quarter(sizes: Sequence[int]) -> int:
    """How many batch sizes count as small, and as large."""
    return max(1, round(len(sizes) / 4))


def _step(data: BatchData, size: int, minus: int, critical: float) -> Interval:
    """Sigmoid quality at one batch size minus another, one of several that hold at once."""
    weights = {("sigmoid", size): 1.0, ("sigmoid", minus): -1.0}
    return data.quality.contrast(weights, critical=critical)


def _from_softmax(gap: Interval) -> str:
    where = "ahead of" if gap.estimate >= 0 else "behind"
    return f"{abs(gap.estimate):.2f} points {where} softmax"


def _mean(sizes: Sequence[int]) -> dict[int, float]:
    return dict.fromkeys(sizes, 1 / len(sizes))


def _count(data: BatchData, sizes: Sequence[int]) -> int:
    return sum(data.differences.counts[size] for size in sizes)


def _at(sizes: Sequence[int]) -> str:
    return f"B = {', '.join(str(size) for size in sizes)}"
