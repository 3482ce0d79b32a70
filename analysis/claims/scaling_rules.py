"""Our own claims about settings that are tuned at one batch size and carried to others by a rule.

A rule transfers if at every batch size, for both losses, it loses at most `LITTLE` to the learning
rate that was tuned there. Such contrasts of three seeds find 1.1 to 1.5 points with 80 % power in
the study on glyphs, so a rule that loses nothing can be shown to lose less than two. Batch sizes
with fewer than `FEWEST_STEPS` steps decide nothing; the sentence has their numbers too.

Only the rate was tuned at each batch size: another beta2 or decay may do better than what is
called tuned there, and then loses less than nothing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, weakest
from analysis.claims.scope import name_sizes
from analysis.records.scores import Score
from analysis.select.deciding import FEWEST_STEPS
from analysis.select.scaling_rules import (
    HALF_LIFE,
    KEPT,
    OTHER_HALF_LIFE,
    TIME_SCALE,
    TUNED,
    Rule,
    transfers,
)
from analysis.stats.contrasts import combine
from analysis.stats.intervals import GroupMeans, Interval, by_group

LITTLE = 2.0  # points
Key = tuple[str, Rule, int, int]  # loss, rule, batch size, examples


def scores_by_rule(cells: pd.DataFrame, metric: str) -> tuple[dict[Key, list[Score]], list[int]]:
    """The scores of each rule where cells with the rate tuned there have finished too, and the
    batch sizes that rules start from.

    Where the cells of a rule are those tuned there, its scores are theirs, the same list.
    """
    found: dict[Key, list[Score]] = {}
    by_loss = transfers(cells, metric)
    for loss, one in by_loss.items():
        scores = by_group(one.cells, ["rule", "batch_size", "examples"], metric)
        for (rule, size, examples), own in scores.items():
            tuned = scores.get((TUNED, size, examples))
            if tuned is not None:
                same = {score.cells for score in own} == {score.cells for score in tuned}
                found[loss, rule, int(size), int(examples)] = tuned if same else own
    return found, sorted({one.at for one in by_loss.values()})


def points_lost(means: GroupMeans, scores: Mapping[Key, list[Score]]) -> dict[Key, Interval]:
    """What each rule loses to the rate tuned there; exactly zero where it is that rate."""
    lost = {}
    for key, own in scores.items():
        loss, rule, size, examples = key
        tuned = (loss, TUNED, size, examples)
        if rule != TUNED:
            other = tuned if own is scores[tuned] else key
            lost[key] = means.contrast(combine((1, {tuned: 1}), (-1, {other: 1})))
    return lost


def _carried(matches: Callable[[Rule], bool]) -> Callable[[Evidence], Verdict | None]:
    """The test of the rules that match, where they were run at all points of other rules."""

    def test(evidence: Evidence) -> Verdict | None:
        scores, starts, means = _read(evidence)
        needed = {
            (loss, size, examples)
            for (loss, _, size, examples), own in scores.items()
            if _decides(size, examples) and own is not scores[loss, TUNED, size, examples]
        }
        lost = points_lost(means, scores)
        lost = {key: lost[key] for key in sorted(lost, key=_order) if matches(key[1])}
        deciding = {key: one for key, one in lost.items() if _decides(*key[2:])}
        if not needed or needed - {(key[0], *key[2:]) for key in deciding}:
            return None
        if all(scores[key] is scores[key[0], TUNED, key[2], key[3]] for key in deciding):
            return None  # it was never run apart from tuning
        return _judge(deciding, {k: v for k, v in lost.items() if k not in deciding}, starts, means)

    return test


def _judge(
    deciding: Mapping[Key, Interval],
    short: Mapping[Key, Interval],
    starts: Sequence[int],
    means: GroupMeans,
) -> Verdict:
    names = _names([*deciding, *short])
    conditions = {names[key]: (-one).shift(LITTLE) for key, one in deciding.items()}
    worst = weakest(conditions)
    at, sizes = starts[0], [key[2] for key in deciding]
    reach = [
        f"{factor:.0f} times {word}"
        for factor, word in ((at / min(sizes), "smaller"), (max(sizes) / at, "larger"))
        if factor > 1
    ]
    sentence = f"Tuned at B = {' or '.join(map(str, starts))} and carried by this rule, settings "
    sentence += f"lose to the rate tuned there {_list(deciding, names)} points"
    if means.has_interval:
        bound = max(one.high for one in deciding.values())
        sentence += f"; so they transfer within {bound:.1f} points to batches "
        sentence += " and ".join(reach)
    if short:
        sentence += f"; with fewer than {FEWEST_STEPS} steps, which decides nothing, they lose "
        sentence += _list(short, names)
    return conclude(
        next(one for key, one in deciding.items() if names[key] == worst),
        means,
        sentence,
        scope=_scope(deciding),
        conditions=conditions,
    )


def _list(lost: Mapping[Key, Interval], names: Mapping[Key, str]) -> str:
    return ", ".join(f"{one} at {names[key]}" for key, one in lost.items())


def _names(keys: Sequence[Key]) -> dict[Key, str]:
    """Loss and batch size, and the budget where they have several."""
    several = Counter((key[0], key[2]) for key in keys)
    return {
        (loss, rule, size, examples): f"B = {size} ({loss}"
        + (f", {examples:,} examples)" if several[loss, size] > 1 else ")")
        for loss, rule, size, examples in keys
    }


def _scope(keys: Iterable[Key]) -> str:
    by_budget: dict[int, set[int]] = {}
    for _, _, size, examples in keys:
        by_budget.setdefault(examples, set()).add(size)
    return ", ".join(
        f"{examples:,} examples at {name_sizes(sorted(sizes))}"
        for examples, sizes in sorted(by_budget.items())
    )


def _order(key: Key) -> tuple[str, int, int]:
    loss, _, size, examples = key
    return loss, size, examples


def _decides(size: int, examples: int) -> bool:
    return examples // size >= FEWEST_STEPS


@functools.lru_cache(maxsize=2)
def _read(evidence: Evidence) -> tuple[dict[Key, list[Score]], list[int], GroupMeans]:
    scores, starts = scores_by_rule(evidence.cells, evidence.metric)
    return scores, starts, evidence.means(scores)


def _claim(name: str, sentence: str, needs: str, matches: Callable[[Rule], bool]) -> Claim:
    return Claim(
        name=name,
        sentence=sentence,
        section=OURS,
        figure="scaling_rules",
        needs=f"a search for the rate at several batch_size, and {needs}",
        test=_carried(matches),
    )


def _rate(matches: Callable[[Rule], bool]) -> Callable[[Rule], bool]:
    return lambda rule: rule.exponent is not None and not rule.changed and matches(rule)


CLAIMS = (
    _claim(
        "one rate serves all batch sizes",
        "The rate tuned at one batch size serves others unchanged, as the paper has it.",
        "its best rate at one of them run at the others",
        _rate(lambda rule: rule.exponent == 0),
    ),
    _claim(
        "rate by the root of the batch",
        "The rate tuned at one batch size serves others in proportion to the root of B.",
        "its best rate at one of them run at the others, times the root of the batch sizes' ratio",
        _rate(lambda rule: rule.exponent == 0.5),
    ),
    _claim(
        "rate in proportion to the batch",
        "The rate tuned at one batch size serves others in proportion to B.",
        "its best rate at one of them run at the others, times the batch sizes' ratio",
        _rate(lambda rule: rule.exponent == 1),
    ),
    _claim(
        "rate by a fitted power",
        "The rate tuned at one batch size serves others by the power of B that fits a search.",
        "its best rate at one of them run at the others by another power of B",
        _rate(lambda rule: rule.fitted),
    ),
    _claim(
        "beta2 by half-life in examples",
        "At tuned rates, beta2 with the same half-life in examples is as good as the same beta2.",
        "the best rates with optimizer.b2_half_life_examples of one batch size's b2",
        lambda rule: (rule.b2, rule.decay) == (HALF_LIFE, KEPT),
    ),
    _claim(
        "beta2 by another half-life",
        "At tuned rates, another half-life of beta2 in examples is as good as the same beta2.",
        "the best rates with another optimizer.b2_half_life_examples",
        lambda rule: (rule.b2, rule.decay) == (OTHER_HALF_LIFE, KEPT),
    ),
    _claim(
        "decay by time scale in examples",
        "At tuned rates, decay with the same time scale in examples is as good as the same decay.",
        "the best rates with optimizer.weight_decay_time_examples of one batch size's decay",
        lambda rule: (rule.b2, rule.decay) == (KEPT, TIME_SCALE),
    ),
    _claim(
        "rate, beta2 and decay by rules",
        "Rate by the root of B, beta2 by half-life and decay by time scale serve other batches.",
        "all three settings by these rules",
        lambda rule: (rule.exponent, rule.b2, rule.decay) == (0.5, HALF_LIFE, TIME_SCALE),
    ),
)
