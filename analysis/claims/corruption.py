"""The claim that sigmoid withstands corrupted data better (Sec. 4.10, Fig. 7), and why it fails.

A lead is sigmoid minus softmax, paired by seed. Parts of the data are corrupted, all with one
probability p, either once for good ("fixed") or anew at each visit ("redrawn"): the paper does not
say which, so where a study has both, a claim must hold for both.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pandas as pd

from analysis.claims.claim import (
    OURS,
    POINTS,
    TOLERANCE,
    Claim,
    Evidence,
    Verdict,
    conclude,
    weakest,
)
from analysis.claims.rates import check_rates
from analysis.claims.scope import scope
from analysis.records.scores import Score
from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.rate_rule import RATE
from analysis.select.tried_rates import VALIDATION
from analysis.stats.contrasts import Weights, combine, mean_weights, slope_weights
from analysis.stats.intervals import GroupMeans, by_group, paired_differences
from analysis.stats.spikes import ENDS

PARTS = ("data.corruption.image", "data.corruption.text", "data.corruption.alignment")
RESAMPLED = "data.corruption.resample_each_epoch"
# The five panels of Fig. 7: which of the parts are corrupted.
CORRUPTIONS = {
    "image": (True, False, False),
    "text": (False, True, False),
    "batch": (False, False, True),
    "image & text": (True, True, False),
    "image, text & batch": (True, True, True),
}
CLEAN = "nothing"
BY = ["corrupted", "redrawn", "p"]
CLEAN_KEY = (CLEAN, False, 0.0)
SCENES = "glyph-scenes"  # their examples have no classes
RETRIEVAL = "eval/retrieval/test_font/image_to_text_r1"


def more_robust(evidence: Evidence) -> Verdict | None:
    """For each corruption sigmoid is ahead at the highest probability, and its lead grows with it.

    At every batch size that has corrupted cells. All corruptions of a batch size share their clean
    cells, which are one group of the pool: a mean of their slopes has the standard error that this
    covariance gives.
    """
    cells = _robustness_panel(evidence)
    leads = evidence.means(_leads(cells, ["batch_size", *BY], evidence.metric), differences=True)
    sizes = sorted({size for size, *_ in leads.means})
    slopes: dict[int, dict[str, Weights]] = {}
    tops = {}
    for size, corrupted, redrawn in itertools.product(sizes, CORRUPTIONS, (False, True)):
        p = {key: key[3] for key in sorted(leads.means) if key[:3] == (size, corrupted, redrawn)}
        at = f" at B = {size}" if len(sizes) > 1 else ""
        if p:
            last = max(p, key=lambda key: key[3])
            tops[_name(*last[1:]) + at] = leads.contrast({last: 1.0})
            if (clean := (size, *CLEAN_KEY)) in leads.means:
                p[clean] = 0.0
            if len(p) > 1:
                own = slopes.setdefault(size, {})
                own[f"{corrupted} ({_how(redrawn)}){at}"] = slope_weights(p)
    if not slopes:
        return None
    changes = {name: leads.contrast(w) for own in slopes.values() for name, w in own.items()}
    means = {
        size: leads.contrast(combine(*((1 / len(own), weights) for weights in own.values())))
        for size, own in slopes.items()
    }
    low, high = (choose(tops, key=lambda name: tops[name].estimate) for choose in (min, max))
    conditions = {f"change of the lead per unit of p, {name}": c for name, c in changes.items()}
    conditions |= {f"lead with {name}": top for name, top in tops.items()}
    weak = weakest(conditions)
    sentence = "Per unit of p, sigmoid's lead changes by "
    if len(sizes) == 1:
        sentence += ", ".join(f"{change} with {name}" for name, change in changes.items())
        sentence += f"; by {means[sizes[0]]} on average"
    else:
        sentence += ", ".join(f"{mean} at B = {size}" for size, mean in means.items())
        low_change, high_change = (
            choose(changes, key=lambda name: changes[name].estimate) for choose in (min, max)
        )
        sentence += f" on average over {len(changes)} corruptions, from {changes[low_change]} with "
        sentence += f"{low_change} to {changes[high_change]} with {high_change}"
    sentence += f". At the highest p its lead is from {tops[low]} with {low} "
    sentence += f"to {tops[high]} with {high}"
    if missing := [name for name in CORRUPTIONS if not any(k[1] == name for k in leads.means)]:
        sentence += f"; there are no cells with {', or '.join(missing)}, corrupted"
    verdict = conclude(
        conditions[weak],
        leads,
        sentence,
        unit=POINTS if weak.startswith("lead") else "points per unit of p",
        scope=scope(cells),
        conditions=conditions,
    )
    return _check_clean_rates(verdict, cells, evidence)


def _robustness_panel(evidence: Evidence) -> pd.DataFrame:
    """Clean and corrupted cells that are equal in the rest; each loss has its own settings at each
    batch size."""
    cells = measured(evidence, evidence.metric)
    own, axes = ("loss.", "optimizer."), (*BY, "loss.kind")
    free = ("data.corruption.", "batch_size", *own)
    corrupted = cells[cells["p"] > 0]
    fields = same_fields(cells, axes, ignoring=free)
    chosen = most_complete(corrupted, fields, ("batch_size", *axes))
    cells = _alike(cells, chosen, ignoring=free)
    cells = cells[cells["batch_size"].isin(chosen["batch_size"])]
    settings = [name for name in same_fields(cells, ()) if name.startswith(own)]
    parts = [most_complete(c, settings, BY) for _, c in cells.groupby(["batch_size", "loss.kind"])]
    return pd.concat([cells.iloc[:0], *parts])


def more_robust_where_level(evidence: Evidence) -> Verdict | None:
    """The lead grows with corruption at the batch sizes at which the losses are level without.

    Level: the clean lead is within the tolerance of zero. The paper trains at such a batch size.
    """
    cells = _robustness_panel(evidence)
    leads = evidence.means(_leads(cells, ["batch_size", *BY], evidence.metric), differences=True)
    clean = {size: (size, *CLEAN_KEY) for size, *_ in leads.means}
    level = {
        size: lead
        for size, key in sorted(clean.items())
        if key in leads.means and abs((lead := leads.contrast({key: 1.0})).estimate) <= TOLERANCE
    }
    changes = {
        f"{_name(*key[1:])} at B = {key[0]}": leads.contrast({key: 1.0, clean[key[0]]: -1.0})
        for key in leads.means
        if key[0] in level and key != clean[key[0]]
    }
    if not changes:
        return None
    low, high = (choose(changes, key=lambda name: changes[name].estimate) for choose in (min, max))
    names = ", ".join(f"{lead} points at B = {size}" for size, lead in level.items())
    cells = cells[cells["batch_size"].isin(level)]
    verdict = conclude(
        changes[weakest(changes)],
        leads,
        f"Without corruption sigmoid's lead is {names}. With it the lead changes by {changes[low]} "
        f"points ({low}) to {changes[high]} ({high}), and rises with "
        f"{sum(change.estimate > 0 for change in changes.values())} of {len(changes)} corruptions",
        scope=scope(cells),
        conditions=changes,
    )
    return _check_clean_rates(verdict, cells, evidence)


def more_robust_at_best_rates(evidence: Evidence) -> Verdict | None:
    """The lead grows with corruption, at the best rate tried for each loss and corruption.

    The rate is chosen by accuracy on the validation font where that was measured, so that the
    choice does not flatter the quality. Needs two rates at least, all else equal, batch size and
    data included: of several such settings the one with most corruptions and rates counts.
    """
    cells = measured(evidence, evidence.metric)
    level = [*BY, "loss.kind"]
    cells = _alike(cells, cells[cells["p"] > 0], ignoring=(RATE, "data.corruption."))
    setting = same_fields(cells, (), ignoring=("loss.", RATE, "data.corruption."))
    key = pd.Series(row_keys(cells, setting), index=cells.index, dtype=object)
    tried = cells.groupby([key, *(cells[name] for name in level)])[RATE].transform("nunique")
    cells = most_complete(cells[tried >= 2], setting, [*level, RATE])
    judge = VALIDATION if VALIDATION in cells else evidence.metric
    quality = cells.groupby([*level, RATE])[judge].transform("mean")
    best = cells[quality == quality.groupby([cells[name] for name in level]).transform("max")]
    means = evidence.means(_leads(best, BY, evidence.metric), differences=True)
    if CLEAN_KEY not in means.means or len(means.means) < 2:
        return None
    rates = cells.groupby(level)[RATE].nunique().min()
    whose = f"At the best of {rates} rates for each loss and corruption, sigmoid's lead"
    return _all_grow(means, whose, cells)


def more_robust_on_scenes(evidence: Evidence) -> Verdict | None:
    """The lead grows with corruption where examples are scenes of two glyphs.

    Judged by retrieval, whatever the metric of the other claims is: scenes have no classes.
    """
    cells = measured(evidence, RETRIEVAL)
    cells = cells[cells["data.dataset"] == SCENES]
    means = evidence.means(_leads(cells, BY, RETRIEVAL), differences=True)
    if CLEAN_KEY not in means.means or len(means.means) < 2:
        return None
    verdict = _all_grow(means, "On scenes of two glyphs sigmoid's lead in retrieval", cells)
    return _check_clean_rates(verdict, cells, evidence)


def more_examples_help(evidence: Evidence) -> Verdict | None:
    """Corruption moves the lead further towards sigmoid with more distinct examples than with
    fewer, on the mean over all corruptions that two data sets share."""
    cells = measured(evidence, evidence.metric)
    sizes = cells.groupby("data.dataset")["dataset_examples"].max().dropna()
    if sizes.nunique() < 2:
        return None
    few, many = sizes.idxmin(), sizes.idxmax()
    cells = _alike(cells, cells[cells["data.dataset"] == few], ignoring=("data.",))
    leads = _leads(cells, ["data.dataset", *BY], evidence.metric)
    means = evidence.means(leads, differences=True)
    levels = {data: {key[1:] for key in means.means if key[0] == data} for data in (few, many)}
    shared = sorted((levels[few] & levels[many]) - {CLEAN_KEY})
    if not shared or not all(CLEAN_KEY in level for level in levels.values()):
        return None
    moved = {
        data: combine(
            (1, mean_weights((data, *key) for key in shared)), (-1, {(data, *CLEAN_KEY): 1.0})
        )
        for data in (few, many)
    }
    weights = combine((1, moved[many]), (-1, moved[few]))
    change = means.contrast(weights)
    verdict = conclude(
        change,
        means,
        f"With {int(sizes[many]):,} distinct examples corruption moves sigmoid's lead by "
        f"{change} points more than with {int(sizes[few]):,}, on the mean over {len(shared)} "
        "corruptions",
        scope=scope(cells),
    )
    return _check_clean_rates(verdict, cells, evidence)


@functools.lru_cache(maxsize=4)
def measured(evidence: Evidence, metric: str) -> pd.DataFrame:
    """The finished cells that have the metric and all pairs.

    Returns: with columns corrupted (one of `CORRUPTIONS`, or `CLEAN`), redrawn and p. Cells whose
      parts are corrupted with several probabilities, or for a part of the run, are left out.
    """
    fields = [*PARTS, ENDS, RATE, RESAMPLED, "loss.pairs.kind", "data.dataset"]
    cells = with_fields(evidence.cells, [*fields, "dataset_examples", metric])
    shares = cells[list(PARTS)].astype(float).fillna(0.0)
    p = shares.max(axis=1)
    names = {parts: name for name, parts in CORRUPTIONS.items()} | {(False,) * 3: CLEAN}
    corrupted = [names.get(tuple(row)) for row in (shares > 0).to_numpy().tolist()]
    redrawn = cells[RESAMPLED].fillna(False).astype(bool) & (p > 0)
    one_p = ((shares == 0) | shares.eq(p, axis=0)).all(axis=1)
    all_pairs = (cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")
    done = (cells["status"] == "done") & cells[metric].notna()
    cells = cells.assign(corrupted=corrupted, redrawn=redrawn, p=p)
    return cells[one_p & all_pairs & done & cells[ENDS].isna() & cells["corrupted"].notna()]


def _leads(cells: pd.DataFrame, by: list[str], metric: str) -> dict[Any, list[Score]]:
    """Sigmoid minus softmax of each seed, by the values of some columns."""
    return by_group(paired_differences(cells, metric, by=by), by, "difference")


def _alike(
    cells: pd.DataFrame, reference: pd.DataFrame, *, ignoring: tuple[str, ...]
) -> pd.DataFrame:
    """The cells that equal one of the reference in seed and in every field that is not ignored."""
    fields = [*same_fields(cells, (), ignoring=ignoring), "seed"]
    wanted = set(row_keys(reference, fields))
    return cells[pd.Series(row_keys(cells, fields), index=cells.index, dtype=object).isin(wanted)]


def _all_grow(means: GroupMeans, whose: str, cells: pd.DataFrame) -> Verdict:
    """Whether every lead is above that of the clean cells."""
    conditions = {
        _name(*key): means.contrast({key: 1.0, CLEAN_KEY: -1.0})
        for key in means.means
        if key != CLEAN_KEY
    }
    parts = "; ".join(f"{change} with {name}" for name, change in conditions.items())
    return conclude(
        conditions[weakest(conditions)],
        means,
        f"{whose} changes by {parts}",
        scope=scope(cells),
        conditions=conditions,
    )


def _name(corrupted: str, redrawn: bool, p: float) -> str:
    return f"{corrupted} at p = {p:g} ({_how(redrawn)})"


def _how(redrawn: bool) -> str:
    return "redrawn" if redrawn else "fixed"


def _check_clean_rates(verdict: Verdict, cells: pd.DataFrame, evidence: Evidence) -> Verdict:
    """With corruption few rates were tried, see `more_robust_at_best_rates`; without, more were."""
    clean = cells[cells["p"] == 0]
    return check_rates(verdict, evidence, clean, set(clean["batch_size"]))


CLAIMS = (
    Claim(
        name="corrupted data",
        sentence="The more of the data is corrupted, whatever part, the larger is sigmoid's lead.",
        section="4.10",
        figure="fig_7",
        needs="both losses without data.corruption and with images, texts, pairs corrupted, alone "
        "and together, two seeds",
        test=more_robust,
    ),
    Claim(
        name="corrupted: where level",
        sentence="Where the losses are level without corruption, sigmoid's lead grows with it.",
        section=OURS,
        figure="fig_7",
        needs="both losses with and without data.corruption at a batch size at which they are "
        "within one point without it",
        test=more_robust_where_level,
    ),
    Claim(
        name="corrupted: at the best rate too",
        sentence="With the best rate for each loss and corruption, sigmoid's lead grows with it.",
        section=OURS,
        needs="both losses at several optimizer.learning_rate with and without data.corruption",
        test=more_robust_at_best_rates,
    ),
    Claim(
        name="corrupted: distinct examples help",
        sentence="With more distinct examples, corruption moves the lead further to sigmoid.",
        section=OURS,
        needs="both losses with and without data.corruption on two data.dataset, equal in the rest",
        test=more_examples_help,
    ),
    Claim(
        name="corrupted: on scenes of two",
        sentence="Where examples are scenes of two glyphs, sigmoid's lead grows with corruption.",
        section=OURS,
        needs=f"both losses with and without data.corruption, data.dataset={SCENES}",
        test=more_robust_on_scenes,
    ),
)
