"""The panel of batch sizes that claims are tested on, and what of it may decide them.

Batch sizes with too few steps, or at which little was learned, decide nothing, see
`select.deciding`; sentences name them.

A verdict holds for the budget that it names, that of `panels.batch_sizes`. The same test at the
study's other budgets is in `Verdict.budgets`; a decided one that differs is in the sentence too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from analysis.claims.claim import POINTS, AtBudget, Evidence, Verdict
from analysis.claims.rates import check_rates
from analysis.claims.scope import name_sizes, scope
from analysis.select import multilingual, panels
from analysis.select.deciding import FEWEST_STEPS, FLOOR, steps_by_size, too_poor, too_short
from analysis.stats.intervals import (
    GroupMeans,
    Interval,
    by_group,
    group_means,
    paired_differences,
)

# SigLiT, both towers from scratch, and sigmoid's mean recall over languages with either.
Image = Literal["cached", "vit", "languages"]


@dataclass(frozen=True, kw_only=True)
class BatchPanel:
    """Quality of sigmoid, and sigmoid minus softmax, by batch size, where they may decide.

    Attributes:
      examples: the budget; None if it is not one.
      steps: of a run, by batch size, also of those left out.
      short: batch sizes left out because of too few steps.
      poor, poor_gaps: left out of quality, and of the gaps, because little was learned there.
      scope: budget, steps and batch sizes in words.
      check_rates: adds to a verdict what is known of the learning rates at these batch sizes, given
        what a better rate may gain, in points.
    """

    quality: GroupMeans
    gaps: GroupMeans
    examples: int | None = None
    steps: Mapping[int, int] = field(default_factory=dict)
    short: Sequence[int] = ()
    poor: Sequence[int] = ()
    poor_gaps: Sequence[int] = ()
    scope: str = ""
    check_rates: Callable[[Verdict, Collection[int], float], Verdict] = (
        lambda verdict, sizes, tolerance: verdict
    )

    def left_out(self, *, gaps: bool) -> str:
        """Which batch sizes decide nothing, and why, to follow a sentence."""
        words = ""
        if self.short:
            words += f"; {name_sizes(self.short, self.steps)} left out: fewer than {FEWEST_STEPS} "
            words += "steps"
        if poor := self.poor_gaps if gaps else self.poor:
            low = "both losses are" if gaps else "sigmoid is"
            words += f"; {name_sizes(poor)} left out: {low} below {FLOOR:.0%} of the best quality"
        return words


def on(
    image: Image, test: Callable[[BatchPanel], Verdict | None]
) -> Callable[[Evidence], Verdict | None]:
    """The test on the panel with this image tower, and for comparison at the other budgets."""

    def judge(evidence: Evidence) -> Verdict | None:
        panel, *others = batch_panels(evidence, image)
        verdict = test(panel)
        return verdict and _with_budgets(verdict, {one.examples: test(one) for one in others})

    return judge


def _with_budgets(verdict: Verdict, others: Mapping[int | None, Verdict | None]) -> Verdict:
    budgets, sentence = [], verdict.sentence
    for examples, other in others.items():
        if other is None or examples is None:
            continue
        numbers = Interval(other.estimate, other.low, other.high)
        budgets.append(
            AtBudget(
                examples=examples,
                verdict=other.verdict,
                estimate=numbers.estimate,
                low=numbers.low,
                high=numbers.high,
            )
        )
        if other.verdict not in (verdict.verdict, "undecided"):
            value = f"{numbers:+.2f} points" if other.unit == POINTS else f"B = {numbers:.0f}"
            sentence += f" After {examples:,} examples it is {other.verdict}: {value}."
    return replace(verdict, sentence=sentence, budgets=tuple(budgets))


@functools.lru_cache(maxsize=4)  # for all claims on one study, and on the paper's numbers
def batch_panels(evidence: Evidence, image: Image) -> list[BatchPanel]:
    """The finished cells of `panels.batch_sizes`, or of `multilingual.by_batch_size`; then those of
    the other budgets, rising."""
    if image == "languages":
        by = multilingual.by_budget(evidence.cells)
    else:
        by = panels.by_budget(evidence.cells, image=image)
    chosen = panels.longest_budget({budget: panel.cells for budget, panel in by.items()})
    if chosen is None and image == "languages":
        panel = multilingual.by_batch_size(evidence.cells)
    elif chosen is None:
        panel = panels.batch_sizes(evidence.cells, image=image)
    else:
        panel = by[chosen]
    if image == "languages":
        evidence = replace(evidence, metric=multilingual.mean_recall(panel.done))
    if chosen is None:
        return [batch_panel(evidence, panel.done)]
    return [
        batch_panel(evidence, by[budget].done, budget)
        for budget in (chosen, *sorted(set(by) - {chosen}))
    ]


def batch_panel(evidence: Evidence, done: pd.DataFrame, examples: int | None = None) -> BatchPanel:
    """The panel of these finished cells, of one budget, by the metric of the evidence."""
    every = by_group(done, ["loss.kind", "batch_size"], evidence.metric)
    means = group_means(every).means
    by_size = {
        size: [mean for (_, other), mean in means.items() if other == size] for _, size in means
    }
    low = too_poor({size: max(values) for size, values in by_size.items()})
    sigmoid = {size: mean for (loss, size), mean in means.items() if loss == "sigmoid"}
    poor = too_poor(sigmoid)
    steps = {size: count for size, count in steps_by_size(done).items() if size in by_size}
    short = too_short(steps)
    gaps = by_group(paired_differences(done, evidence.metric), ["batch_size"], "difference")
    deciding = done[~done["batch_size"].isin(short)]
    return BatchPanel(
        quality=evidence.means(
            {
                size: values
                for (loss, size), values in every.items()
                if loss == "sigmoid" and size not in {*short, *poor}
            }
        ),
        gaps=evidence.means(
            {size: values for size, values in gaps.items() if size not in {*short, *low}},
            differences=True,
        ),
        examples=examples,
        steps=steps,
        short=short,
        poor=[size for size in poor if size not in short],
        poor_gaps=[size for size in low if size in gaps and size not in short],
        scope=scope(deciding if len(deciding) else done),
        check_rates=lambda verdict, sizes, tolerance: check_rates(
            verdict, evidence, done, sizes, tolerance=tolerance
        ),
    )


def too_few(panel: BatchPanel, sizes: Sequence[int], *, gaps: bool) -> Verdict | None:
    """Of too few batch sizes to compare: no data, unless some were left out."""
    left_out = panel.left_out(gaps=gaps).removeprefix("; ")
    if not left_out:
        return None
    kept = f"only {name_sizes(sizes)} may decide" if sizes else "no batch size may decide"
    return Verdict(
        verdict="undecided",
        unit=POINTS,
        sentence=f"{left_out}; {kept} ({panel.scope}).",
        decide=f"a longer budget, with {FEWEST_STEPS} steps at more batch sizes",
        withheld=True,
    )
