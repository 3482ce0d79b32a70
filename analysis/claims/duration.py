"""Tests of claims about training duration and batch size (Sec. 4.1, Fig. 3)."""

from __future__ import annotations

import itertools

from analysis.claims.evidence import Evidence
from analysis.claims.verdict import POINTS, Finding, found, intersection_union, no_data, verdict_of
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import Interval, PooledMeans, by_group, pooled_means

NEEDED = "Needs two batch sizes, each at two budgets of examples."


def long_training_for_large(evidence: Evidence) -> Finding:
    """A small batch wins at the shortest budget, a large one at the longest (sigmoid, SigLiT).

    Which is which: see `panels.small_and_large`.
    """
    means, budgets, sizes = _by_budget(evidence)
    pair = panels.small_and_large(sizes)
    if len(budgets) < 2 or pair is None:
        return no_data(NEEDED)
    small, large = pair
    short, long = budgets[0], budgets[-1]
    behind, ahead = _crossing(means, budgets, small, large)
    verdict, binding = intersection_union(behind, ahead)
    used = [(budget, size) for budget in (short, long) for size in (small, large)]
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts[group] for group in used),
        sentence=f"B = {large} ({large / small:g} times B = {small}) minus B = {small} is "
        f"{_both(behind, ahead, large, short, long)}",
        means=means,
        conditions=_conditions(behind, ahead),
    )


def best_batch_grows(evidence: Evidence) -> Finding:
    """Some batch is behind a smaller one at the shortest budget and ahead of it at the longest.

    The clearest of all pairs is too clear by selection, so all are compared by intervals that
    hold at once; the largest of their lower ends bounds the best one's crossing.
    """
    means, budgets, sizes = _by_budget(evidence)
    shared = sorted(set.intersection(*sizes)) if sizes else []
    pairs = list(itertools.combinations(shared, 2))
    if len(budgets) < 2 or not pairs:
        return no_data(NEEDED)
    critical = means.critical(comparisons=2 * len(pairs))
    crossings = {pair: _crossing(means, budgets, *pair, critical=critical) for pair in pairs}
    least = {
        pair: Interval(*(min(ends) for ends in zip(*both, strict=True)))
        for pair, both in crossings.items()
    }
    clearest = Interval(*(max(ends) for ends in zip(*least.values(), strict=True)))
    small, large = max(pairs, key=lambda pair: least[pair].estimate)
    behind, ahead = crossings[small, large]
    return found(
        verdict_of(clearest),
        clearest,
        unit=POINTS,
        cells=sum(means.counts[b, size] for b in (budgets[0], budgets[-1]) for size in shared),
        sentence=f"Of {len(pairs)} pairs of batch sizes the clearest is B = {large} minus B = "
        f"{small}, {_both(behind, ahead, large, budgets[0], budgets[-1])}",
        means=means,
        conditions=_conditions(behind, ahead),
    )


def _both(behind: Interval, ahead: Interval, large: int, short: int, long: int) -> str:
    """The large batch minus the small one at both budgets, with the steps that it has there."""
    return (
        f"{-behind} points after {short:,} examples ({short // large:,} steps of "
        f"it) and {ahead} after {long:,} ({long // large:,} steps)"
    )


def _conditions(behind: Interval, ahead: Interval) -> dict[str, Interval]:
    return {
        "small minus large, shortest budget": behind,
        "large minus small, longest budget": ahead,
    }


def _by_budget(evidence: Evidence) -> tuple[PooledMeans, list[int], list[set[int]]]:
    """Quality by (budget, batch size) of sigmoid, SigLiT; the budgets; and the sizes of each."""

    def made() -> tuple[PooledMeans, list[int], list[set[int]]]:
        cells = with_fields(evidence.cells, ["budget.examples", "model.image.kind"])
        groups: dict[tuple[int, int], list[float]] = {}
        for budget, same in cells.groupby("budget.examples"):
            done = panels.batch_sizes(same, image="cached").done
            done = done[done["loss.kind"] == "sigmoid"]
            for size, values in by_group(done, ["batch_size"], evidence.metric).items():
                groups[(int(budget), int(size))] = values
        budgets = sorted({budget for budget, _ in groups})
        sizes = [{size for b, size in groups if b == budget} for budget in budgets]
        return pooled_means(groups, rounding=evidence.rounding), budgets, sizes

    found_before: tuple[PooledMeans, list[int], list[set[int]]] = evidence.once("budgets", made)
    return found_before


def _crossing(
    means: PooledMeans,
    budgets: list[int],
    small: int,
    large: int,
    critical: float | None = None,
) -> tuple[Interval, Interval]:
    """The small batch's lead at the shortest budget, and the large one's at the longest."""
    short, long = budgets[0], budgets[-1]
    return (
        means.contrast({(short, small): 1.0, (short, large): -1.0}, critical=critical),
        means.contrast({(long, large): 1.0, (long, small): -1.0}, critical=critical),
    )
