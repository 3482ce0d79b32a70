"""Test of the claim that a large batch wins only when it is trained long (Sec. 4.1, Fig. 3)."""

from __future__ import annotations

from analysis import panels
from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, Finding, all_positive, found, no_data
from analysis.intervals import by_group, pooled_means
from analysis.varying import with_fields


def long_training_for_large(evidence: Evidence) -> Finding:
    """A small batch wins at the shortest budget, a large one at the longest (sigmoid, SigLiT).

    Which is which: see `panels.small_and_large`.
    """
    cells = with_fields(evidence.cells, ["budget.examples", "model.image.kind"])
    groups: dict[tuple[int, int], list[float]] = {}
    for budget, same in cells.groupby("budget.examples"):
        done = panels.batch_sizes(same, image="cached").done
        done = done[done["loss.kind"] == "sigmoid"]
        for size, values in by_group(done, ["batch_size"], evidence.metric).items():
            groups[(int(budget), int(size))] = values
    budgets = sorted({budget for budget, _ in groups})
    sizes = [{size for b, size in groups if b == budget} for budget in budgets]
    pair = panels.small_and_large(sizes)
    if len(budgets) < 2 or pair is None:
        return no_data("Needs two batch sizes, each at two budgets of examples.")
    small, large = pair
    means = pooled_means(groups, rounding=evidence.rounding)
    short, long = budgets[0], budgets[-1]
    behind = means.contrast({(short, small): 1.0, (short, large): -1.0})
    ahead = means.contrast({(long, large): 1.0, (long, small): -1.0})
    verdict, binding = all_positive(behind, ahead)
    used = [(budget, size) for budget in (short, long) for size in (small, large)]
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts[group] for group in used),
        sentence=f"B = {large} is {-behind.estimate:+.2f} points from B = {small} after "
        f"{short:,} examples and {ahead.estimate:+.2f} after {long:,}; the lesser of the small "
        f"batch's lead first and the large one's last is {binding.estimate:.2f}",
        means=means,
        conditions=(behind, ahead),
    )
