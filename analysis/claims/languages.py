"""Claims on the batch size in many languages (Sec. 4.3, Table 9), and on what languages cost.

Cells: see `select.multilingual`. Recall is text-to-image recall@1, by language or its mean over
them. Batch sizes that may decide are those of `batch_panel`, by the mean.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pandas as pd

from analysis.claims.batch_panel import BatchPanel, batch_panel, on, too_few
from analysis.claims.claim import (
    OURS,
    RATE,
    TOLERANCE,
    Claim,
    Evidence,
    Verdict,
    any_above,
    conclude,
    holm,
    weakest,
    withhold,
)
from analysis.claims.plateau import enough, too_large_hurts
from analysis.claims.scope import name_sizes, scope
from analysis.select import multilingual
from analysis.select.deciding import FEWEST_STEPS, steps_by_size, too_short
from analysis.select.multilingual import BY_WEB, ENGLISH, UNIFORM
from analysis.stats.contrasts import largest
from analysis.stats.intervals import Interval, by_group, paired_differences

LEAD = "eval/multilingual_retrieval/english_minus_mean"


def no_gain_past_enough(panel: BatchPanel) -> Verdict | None:
    """No batch beyond the paper's 32k gains more than the tolerance in mean recall.

    In a grid without 32k the size a quarter of the way up takes its place, as in the paper's grid.
    """
    means, sizes = panel.quality, sorted(panel.quality.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=False)
    base, reason, larger = _beyond(sizes)
    gains = {size: means.contrast({size: 1.0, base: -1.0}) for size in larger}
    margins = {
        f"{TOLERANCE:g} minus the gain at B = {size}": (-gain).shift(TOLERANCE)
        for size, gain in gains.items()
    }
    best = larger[list(margins).index(weakest(margins))]
    return conclude(
        gains[best],
        means,
        f"Beyond B = {base}, {reason}, the clearest gain is {gains[best]} points, at B = {best}; "
        f"at the largest size, B = {sizes[-1]}, it is {gains[sizes[-1]]}; no gain means below "
        f"{TOLERANCE:g} point{panel.left_out(gaps=False)}",
        scope=panel.scope,
        conditions=margins,
    )


def english_stays(evidence: Evidence) -> Verdict | None:
    """Beyond the paper's 32k zero-shot accuracy changes by no more than the tolerance."""
    panel = batch_panel(evidence, _recall(evidence)[0])
    means, sizes = panel.quality, sorted(panel.quality.means)
    if len(sizes) < 2:
        return too_few(panel, sizes, gaps=False)
    base, reason, larger = _beyond(sizes)
    recall = _recall(evidence)[2]
    changes = {size: means.contrast({size: 1.0, base: -1.0}) for size in larger}
    margins = {
        f"{TOLERANCE:g} {name} the change at B = {size}": part.shift(TOLERANCE)
        for size, change in changes.items()
        for name, part in (("minus", -change), ("plus", change))
    }
    furthest = larger[list(margins).index(weakest(margins)) // 2]
    verdict = conclude(
        changes[furthest],
        means,
        f"From B = {base}, {reason}, zero-shot accuracy in English changes most clearly at "
        f"B = {furthest}, by {changes[furthest]} points; to stay means within {TOLERANCE:g} point"
        f"{panel.left_out(gaps=False)}",
        scope=panel.scope,
        conditions=margins,
    )
    known = {base, larger[-1]} <= {*recall.quality.means}
    return _unless_rising(verdict, recall, base, larger[-1]) if known else verdict


def english_keeps_more(evidence: Evidence) -> Verdict | None:
    """From 32k to the largest batch, recall in English changes for the better by more than the
    mean over languages."""
    done, recall, panel = _recall(evidence)
    sizes = sorted(panel.quality.means)
    if len(sizes) < 2 or not {"en", "avg"} <= {*recall}:
        return too_few(panel, sizes, gaps=False) if "en" in recall else None
    base, _, larger = _beyond(sizes)
    last = larger[-1]
    leads = done.assign(**{LEAD: done[recall["en"]] - done[recall["avg"]]})
    leads = leads[leads["batch_size"].isin(sizes)]
    means = evidence.means(by_group(leads, ["batch_size"], LEAD), differences=True)
    change = {last: 1.0, base: -1.0}
    english, mean = (
        evidence.means(by_group(done, ["batch_size"], recall[name])).contrast(change)
        for name in ("en", "avg")
    )
    more = means.contrast(change)
    verdict = conclude(
        more,
        means,
        f"From B = {base} to {last} recall in English changes by {english} points and the mean "
        f"over languages by {mean}, a difference of {more}{panel.left_out(gaps=False)}",
        scope=panel.scope,
    )
    return _unless_rising(verdict, panel, base, last)


def some_lose(evidence: Evidence) -> Verdict | None:
    """In at least one language recall is lower at the largest batch than at 32k, by more than the
    tolerance."""
    done, recall, panel = _recall(evidence)
    sizes = sorted(panel.quality.means)
    languages = [language for language in recall if language != "avg"]
    if len(sizes) < 2 or not languages:
        return too_few(panel, sizes, gaps=False) if languages else None
    base, _, larger = _beyond(sizes)
    last = larger[-1]
    means = evidence.means(
        {
            (language, size): scores
            for language in languages
            for size, scores in by_group(done, ["batch_size"], recall[language]).items()
            if size in (base, last)
        }
    )

    def loss(language: str, comparisons: int = 1) -> Interval:
        weights = {(language, base): 1.0, (language, last): -1.0}
        return means.contrast(weights, comparisons=comparisons)

    losses = {
        name: loss(name) for name in languages if {(name, base), (name, last)} <= {*means.means}
    }
    if not losses:
        return None
    falls = {name: one.shift(-TOLERANCE) for name, one in losses.items()}
    rises = {name: (-one).shift(-TOLERANCE) for name, one in losses.items()}
    lost, gained = _clear(falls), _clear(rises)
    most = max(losses, key=lambda name: losses[name].estimate)
    fall = loss(most, len(losses))
    worst = f"falls most in {most}, by {fall:.2f} points"
    if fall.estimate <= 0:
        worst = f"rises least in {most}, by {-fall:.2f} points"
    names = f" ({', '.join(lost)})" if lost else ""
    verdict = conclude(
        largest(loss(name, len(losses)) for name in losses),
        means,
        f"From B = {base} to {last} recall falls by clearly more than {TOLERANCE:g} point in "
        f"{len(lost)} of {len(losses)} languages{names} and rises by more than that in "
        f"{len(gained)}, adjusted by Holm; it {worst}{panel.left_out(gaps=False)}",
        scope=panel.scope,
        conditions={f"loss in {name} minus {TOLERANCE:g}": one for name, one in falls.items()},
        p_values=any_above(falls.values()),
    )
    return _unless_rising(verdict, panel, base, last)


def _clear(parts: dict[str, Interval]) -> list[str]:
    """Those that are above zero, adjusted by Holm for their number."""
    p_values = holm(parts.values())
    return [
        name
        for (name, part), p in zip(parts.items(), p_values, strict=True)
        if part.estimate > 0 and p <= RATE
    ]


def _unless_rising(verdict: Verdict, panel: BatchPanel, base: int, last: int) -> Verdict:
    """Withheld where the mean over languages has not stopped rising: then `base` is not enough,
    and nothing beyond the best batch has been seen."""
    rise = panel.quality.contrast({last: 1.0, base: -1.0})
    if rise.estimate <= TOLERANCE:
        return verdict
    return withhold(
        verdict,
        because=f"The mean over languages still rises by {rise:.2f} points, so B = {base} is not "
        "enough here and the largest batch is not too large.",
        decide=f"larger batch sizes with {FEWEST_STEPS} steps or more, so a longer budget",
    )


def languages_cost_english(evidence: Evidence) -> Verdict | None:
    """At equal examples recall in English is higher without other languages, at every batch size.

    Cells of one seed are paired.
    """
    done = multilingual.by_mix(evidence.cells).done
    english = multilingual.recall_by_language(done).get("en")
    if english is None:
        return None
    short = too_short(steps_by_size(done))
    groups = {
        (mix, size): scores
        for mix in (UNIFORM, BY_WEB)
        for size, scores in by_group(
            paired_differences(done, english, levels=(ENGLISH, mix), axis="data.split"),
            ["batch_size"],
            "difference",
        ).items()
        if size not in short
    }
    means = evidence.means(groups, differences=True)
    costs = {size: means.contrast({(mix, size): 1.0}) for mix, size in groups if mix == UNIFORM}
    if not costs:
        return None
    least = min(costs, key=lambda size: costs[size].estimate)
    by_web = [f"{means.contrast({key: 1.0})} at {key[1]}" for key in groups if key[0] == BY_WEB]
    words = f"; by their share of the web they cost {', '.join(by_web)}" if by_web else ""
    words += f"; {name_sizes(short)} left out: too few steps" if short else ""
    return conclude(
        costs[least],
        means,
        "English alone minus 36 languages, equally frequent, is "
        f"{', '.join(f'{cost} points at B = {size}' for size, cost in costs.items())} in English "
        f"recall{words}",
        scope=scope(done[done["batch_size"].isin(costs)]),
        conditions={f"cost at B = {size}": cost for size, cost in costs.items()},
    )


@functools.lru_cache(maxsize=2)
def _recall(evidence: Evidence) -> tuple[pd.DataFrame, dict[str, str], BatchPanel]:
    """The cells of `multilingual.by_batch_size`, their metrics by language, and the panel of the
    mean, which says which batch sizes may decide."""
    done = multilingual.by_batch_size(evidence.cells).done
    recall = dict(multilingual.recall_by_language(done))
    mean = replace(evidence, metric=multilingual.mean_recall(done))
    return done, recall, batch_panel(mean, done)


def _beyond(sizes: list[int]) -> tuple[int, str, list[int]]:
    """The batch size that must be enough, why, and the larger ones."""
    base, reason = enough(sizes, at=(len(sizes) - 1) // 4)
    return base, reason, [size for size in sizes if size > base]


SIGMOID = "sigmoid by batch_size with an eval of kind multilingual"
CLAIMS = (
    Claim(
        name="languages gain nothing past 32k",
        sentence="Multilingual retrieval does not gain from batch sizes above 32k.",
        section="4.3",
        figure="fig_2",
        needs=SIGMOID,
        test=on("languages", no_gain_past_enough),
    ),
    Claim(
        name="languages: too large hurts",
        sentence="A batch beyond the best one lowers multilingual retrieval.",
        section="4.3",
        figure="fig_2",
        needs=SIGMOID,
        test=on("languages", too_large_hurts),
    ),
    Claim(
        name="languages: English zero-shot stays",
        sentence="In many languages, batch sizes above 32k leave zero-shot accuracy in English as "
        "it is.",
        section="4.3",
        needs=f"{SIGMOID} and one of kind zero_shot",
        test=english_stays,
    ),
    Claim(
        name="languages: some lose",
        sentence="In some languages retrieval at the largest batch is more than a point worse than "
        "at 32k.",
        section=OURS,
        figure="languages",
        needs=SIGMOID,
        test=some_lose,
    ),
    Claim(
        name="languages: English keeps more",
        sentence="Beyond 32k, retrieval in English fares better than the mean over languages.",
        section=OURS,
        figure="languages",
        needs=SIGMOID,
        test=english_keeps_more,
    ),
    Claim(
        name="languages cost English",
        sentence="At equal examples, training in 36 languages costs retrieval in English.",
        section=OURS,
        figure="language_mix",
        needs=f"{SIGMOID}, data.split=train and train_en, equal in the rest",
        test=languages_cost_english,
    ),
)
