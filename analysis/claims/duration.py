"""Claims about training duration and batch size (Sec. 4.1, Fig. 3), on SigLiT sigmoid cells."""

from __future__ import annotations

import functools
import itertools

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
)
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.contrasts import largest, smallest
from analysis.stats.intervals import GroupMeans, Interval, by_group, group_means


def long_training_for_large(evidence: Evidence) -> Verdict | None:
    """A small batch wins at the shortest budget, a large one at the longest.

    The two batch sizes are chosen without a look at quality, see `panels.small_and_large`.
    """
    means, budgets = quality_by_budget(evidence)
    pair = panels.small_and_large(_sizes(means, budgets))
    if len(budgets) < 2 or pair is None:
        return None
    small, large = pair
    groups = itertools.product((budgets[0], budgets[-1]), pair)
    return _crossing(
        means,
        budgets,
        pair,
        f"B = {large} ({large / small:g} times B = {small}) minus B = {small} is ",
        cells=sum(means.counts[group] for group in groups),
    )


def best_batch_grows(evidence: Evidence) -> Verdict | None:
    """Some batch is behind a smaller one at the shortest budget and ahead of it at the longest.

    The clearest of all pairs is too clear by selection, so all pairs are compared by simultaneous
    intervals.
    """
    means, budgets = quality_by_budget(evidence)
    sizes = _sizes(means, budgets)
    shared = sorted(set.intersection(*sizes)) if sizes else []
    pairs = list(itertools.combinations(shared, 2))
    if len(budgets) < 2 or not pairs:
        return None
    leads = {pair: _leads(means, budgets, pair).values() for pair in pairs}
    comparisons = 2 * len(pairs)
    least = {pair: smallest(_leads(means, budgets, pair, comparisons).values()) for pair in pairs}
    small, large = max(pairs, key=lambda pair: least[pair].estimate)
    groups = itertools.product((budgets[0], budgets[-1]), shared)
    return _crossing(
        means,
        budgets,
        (small, large),
        f"Of {len(pairs)} pairs of batch sizes the clearest is B = {large} minus B = {small}: ",
        cells=sum(means.counts[group] for group in groups),
        comparisons=comparisons,
        clearest=largest(least.values()),
        p_values=any_above(all_above(both) for both in leads.values()),
    )


@functools.lru_cache(maxsize=2)
def quality_by_budget(evidence: Evidence) -> tuple[GroupMeans, list[int]]:
    """Quality by (budget, batch size), and the budgets in examples, rising."""
    cells = with_fields(evidence.cells, ["budget.examples", "model.image.kind"])
    groups = {}
    for budget, same in cells.groupby("budget.examples"):
        done = panels.one_configuration(same, image="cached").done
        done = done[done["loss.kind"] == "sigmoid"]
        for size, values in by_group(done, ["batch_size"], evidence.metric).items():
            groups[int(budget), int(size)] = values
    means = group_means(groups, rounding=evidence.rounding)
    return means, sorted({budget for budget, _ in groups})


def _sizes(means: GroupMeans, budgets: list[int]) -> list[set[int]]:
    """The batch sizes at each budget."""
    return [{size for other, size in means.means if other == budget} for budget in budgets]


def _leads(
    means: GroupMeans, budgets: list[int], pair: tuple[int, int], comparisons: int = 1
) -> dict[str, Interval]:
    """The small batch's lead at the shortest budget, and the large one's at the longest."""
    (small, large), short, long = pair, budgets[0], budgets[-1]
    return {
        "small minus large, shortest budget": means.contrast(
            {(short, small): 1.0, (short, large): -1.0}, comparisons=comparisons
        ),
        "large minus small, longest budget": means.contrast(
            {(long, large): 1.0, (long, small): -1.0}, comparisons=comparisons
        ),
    }


def _crossing(
    means: GroupMeans,
    budgets: list[int],
    pair: tuple[int, int],
    sentence: str,
    *,
    cells: int,
    comparisons: int = 1,
    clearest: Interval | None = None,
    p_values: OneSided | None = None,
) -> Verdict:
    """Whether the large batch overtakes the small one.

    `clearest` and `p_values`: where the pair was chosen of many.
    """
    leads = _leads(means, budgets, pair, comparisons)
    behind, ahead = leads.values()
    large, short, long = pair[1], budgets[0], budgets[-1]
    return conclude(
        clearest or leads[weakest(leads)],
        means,
        f"{sentence}{-behind} points after {short:,} examples ({short // large:,} steps at B = "
        f"{large}) and {ahead} after {long:,} ({long // large:,} steps)",
        cells=cells,
        conditions=leads,
        p_values=p_values,
    )


CLAIMS = (
    Claim(
        name="large batch needs long training",
        sentence="A large batch loses to a small one in short training and beats it in long "
        "training.",
        section="4.1",
        needs="sigmoid at two batch sizes 32 times apart, each at a short and a long "
        "budget.examples, model.image.kind=cached",
        test=long_training_for_large,
    ),
    Claim(
        name="best batch grows with the budget",
        sentence="Some batch loses to a smaller one in short training and beats it in long "
        "training.",
        section=OURS,
        needs="sigmoid at two batch sizes, each at a short and a long budget.examples, "
        "model.image.kind=cached",
        test=best_batch_grows,
    ),
)
