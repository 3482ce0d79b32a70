"""Claims about training duration and batch size (Sec. 4.1, Fig. 3), on SigLiT sigmoid cells.

Budgets and batch sizes are those of `select.duration`, chosen without a look at who wins. If the
largest of these batch sizes is the best at the shorter budget too, none is too large for it: then
nothing can be seen of a batch that needs long training, and the claims stay open.
"""

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
    withhold,
)
from analysis.select import panels
from analysis.select.deciding import FEWEST_STEPS
from analysis.select.duration import LongAndShort, long_and_short
from analysis.stats.contrasts import largest, smallest
from analysis.stats.intervals import GroupMeans, Interval, by_group


def long_training_for_large(evidence: Evidence) -> Verdict | None:
    """The small batch wins at the shorter budget, the large one at the longer."""
    if (compared := compare_budgets(evidence)) is None:
        return None
    means, at = compared
    pair = (at.small, at.large)
    return _crossing(
        means,
        at,
        pair,
        f"B = {at.large} ({at.large / at.small:g} times B = {at.small}) minus B = {at.small} is ",
    )


def best_batch_grows(evidence: Evidence) -> Verdict | None:
    """Some batch is behind a smaller one at the shorter budget and ahead of it at the longer.

    The clearest of all pairs is too clear by selection, so all pairs are compared by simultaneous
    intervals.
    """
    if (compared := compare_budgets(evidence)) is None:
        return None
    means, at = compared
    pairs = list(itertools.combinations(at.sizes, 2))
    leads = {pair: _leads(means, at, pair).values() for pair in pairs}
    comparisons = 2 * len(pairs)
    least = {pair: smallest(_leads(means, at, pair, comparisons).values()) for pair in pairs}
    small, large = max(pairs, key=lambda pair: least[pair].estimate)
    return _crossing(
        means,
        at,
        (small, large),
        f"Of {len(pairs)} pairs of batch sizes the clearest is B = {large} minus B = {small}: ",
        comparisons=comparisons,
        clearest=largest(least.values()),
        p_values=any_above(all_above(both) for both in leads.values()),
    )


@functools.lru_cache(maxsize=2)
def compare_budgets(evidence: Evidence) -> tuple[GroupMeans, LongAndShort] | None:
    """Sigmoid's quality by (budget, batch size) at two budgets."""
    by_budget = panels.by_budget(evidence.cells, image="cached")
    at = long_and_short(by_budget, evidence.metric)
    if at is None:
        return None
    groups = {}
    for budget in (at.short, at.long):
        done = by_budget[budget].done
        done = done[(done["loss.kind"] == "sigmoid") & done["batch_size"].isin(at.sizes)]
        for size, values in by_group(done, ["batch_size"], evidence.metric).items():
            groups[budget, int(size)] = values
    if len(groups) < 2 * len(at.sizes):
        return None
    return evidence.means(groups), at


def _leads(
    means: GroupMeans, at: LongAndShort, pair: tuple[int, int], comparisons: int = 1
) -> dict[str, Interval]:
    """The small batch's lead at the shorter budget, and the large one's at the longer."""
    small, large = pair
    return {
        "small minus large, shorter budget": means.contrast(
            {(at.short, small): 1.0, (at.short, large): -1.0}, comparisons=comparisons
        ),
        "large minus small, longer budget": means.contrast(
            {(at.long, large): 1.0, (at.long, small): -1.0}, comparisons=comparisons
        ),
    }


def _crossing(
    means: GroupMeans,
    at: LongAndShort,
    pair: tuple[int, int],
    sentence: str,
    *,
    comparisons: int = 1,
    clearest: Interval | None = None,
    p_values: OneSided | None = None,
) -> Verdict:
    """Whether the large batch overtakes the small one.

    `clearest` and `p_values`: where the pair was chosen of many.
    """
    leads = _leads(means, at, pair, comparisons)
    behind, ahead = leads.values()
    large, sizes = pair[1], f"B = {at.sizes[0]} to {at.sizes[-1]}"
    verdict = conclude(
        clearest or leads[weakest(leads)],
        means,
        f"{sentence}{-behind} points after {at.short:,} examples ({at.short // large:,} steps at "
        f"B = {large}) and {ahead} after {at.long:,} ({at.long // large:,} steps); {sizes} have "
        f"{FEWEST_STEPS} steps or more at both budgets",
        conditions=leads,
        p_values=p_values,
    )
    best = max(at.sizes, key=lambda size: means.means[at.short, size])
    if best != at.sizes[-1] or verdict.verdict == "reproduced":
        return verdict
    return withhold(
        verdict,
        because=f"After the shorter budget the best is the largest of these, {best}: none is too "
        "large for it.",
        decide=f"larger batch sizes with {FEWEST_STEPS} steps or more at both budgets",
    )


CLAIMS = (
    Claim(
        name="large batch needs long training",
        sentence="A large batch loses to a small one in short training and beats it in long "
        "training.",
        section="4.1",
        figure="fig_3",
        needs="sigmoid at two batch sizes 32 times apart, each at a short and a long "
        "budget.examples, model.image.kind=cached",
        test=long_training_for_large,
    ),
    Claim(
        name="best batch grows with the budget",
        sentence="Some batch loses to a smaller one in short training and beats it in long "
        "training.",
        section=OURS,
        figure="quality_by_budget",
        needs="sigmoid at two batch sizes, each at a short and a long budget.examples, "
        "model.image.kind=cached",
        test=best_batch_grows,
    ),
)
