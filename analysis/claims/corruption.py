"""The claim that sigmoid withstands corrupted data better (Sec. 4.10, Fig. 7), and why it fails.

A lead is sigmoid minus softmax, paired by seed. Parts of the data are corrupted, all with one
probability p, either once for good ("fixed") or anew at each visit ("redrawn"): the paper does not
say which, so where a study has both, a claim must hold for both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from analysis.claims.claim import OURS, POINTS, Claim, Evidence, Verdict, conclude
from analysis.claims.rates import VALIDATION, check_rates
from analysis.claims.scope import scope
from analysis.select.fields import most_complete, row_keys, same_fields, with_fields
from analysis.select.rate_rule import RATE
from analysis.stats.contrasts import combine, mean_weights, slope_weights
from analysis.stats.intervals import Interval, PooledMeans, pooled_means

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
SCENES = "glyph-scenes"  # their examples have no classes
RETRIEVAL = "eval/retrieval/test_font/image_to_text_r1"


def more_robust(corrupted: str) -> Callable[[Evidence], Verdict | None]:
    """The test for one of `CORRUPTIONS`."""
    return lambda evidence: _more_robust(evidence, corrupted)


def _more_robust(evidence: Evidence, corrupted: str) -> Verdict | None:
    """Sigmoid is ahead at the highest probability, and its lead grows with the probability."""
    cells = measured(evidence, evidence.metric)
    cells = cells[cells["corrupted"].isin([CLEAN, corrupted])]
    # Each loss has its own settings and recipe: they are chosen for each apart.
    own = ("loss.", "optimizer.")
    axes = ("p", "loss.kind")
    fields = same_fields(cells, axes, ignoring=("data.corruption.", *own))
    cells = most_complete(cells, fields, axes)
    settings = [name for name in same_fields(cells, ()) if name.startswith(own)]
    chosen = [most_complete(same, settings, ("p",)) for _, same in cells.groupby("loss.kind")]
    cells = pd.concat([cells.iloc[:0], *chosen])
    cells = cells[cells["seed"].isin(cells["seed"][cells["p"] > 0])]
    leads = pooled_means(_leads_with_clean(cells, evidence.metric), rounding=2 * evidence.rounding)
    tops, slopes, parts = {}, {}, []
    for redrawn in sorted({redrawn for _, redrawn, _ in leads.means}):
        groups = {key: key[2] for key in sorted(leads.means) if key[1] == redrawn}
        if len(groups) < 2:
            continue
        last, p = max(groups.items(), key=lambda item: item[1])
        top, slope = leads.contrast({last: 1.0}), leads.contrast(slope_weights(groups))
        how = "redrawn" if redrawn else "fixed"
        tops[f"lead at p = {p:g}, {how}"] = top
        slopes[f"change of the lead per unit of p, {how}"] = slope
        parts.append(f"{top} points at p = {p:g}, {slope} per unit of p ({how})")
    if not tops:
        return None
    lowest = min((*tops.values(), *slopes.values()))
    verdict = conclude(
        lowest,
        leads,
        f"Sigmoid's lead with corrupted {corrupted}: {'; '.join(parts)}",
        unit=POINTS if lowest in tops.values() else "points per unit of p",
        cells=2 * sum(leads.counts.values()),
        scope=scope(cells),
        conditions=tops | slopes,
    )
    return _check_clean_rates(verdict, cells, evidence)


def more_robust_at_best_rates(evidence: Evidence) -> Verdict | None:
    """The lead grows with corruption, at the best rate tried for each loss and corruption.

    The rate is chosen by accuracy on the validation font where that was measured, so that the
    choice does not flatter the quality. Needs two rates at least, all else equal.
    """
    cells = measured(evidence, evidence.metric)
    level = [*BY, "loss.kind"]
    cells = cells[cells.groupby(level)[RATE].transform("nunique") >= 2]
    cells = _alike(cells, cells[cells["p"] > 0], ignoring=(RATE, "data.corruption."))
    judge = VALIDATION if VALIDATION in cells else evidence.metric
    quality = cells.groupby([*level, RATE])[judge].transform("mean")
    best = cells[quality == quality.groupby([cells[name] for name in level]).transform("max")]
    means = pooled_means(_leads_with_clean(best, evidence.metric))
    changes = {
        key: means.contrast({key: 1.0, (*key[:2], 0.0): -1.0})
        for key in means.means
        if key[2] > 0 and (*key[:2], 0.0) in means.means
    }
    if not changes:
        return None
    rates = cells.groupby(level)[RATE].nunique().min()
    whose = f"At the best of {rates} rates for each loss and corruption, sigmoid's lead"
    return _all_grow(changes, means, whose, cells)


def more_robust_on_scenes(evidence: Evidence) -> Verdict | None:
    """The lead grows with corruption where examples are scenes of two glyphs.

    Judged by retrieval, whatever the metric of the other claims is: scenes have no classes.
    """
    cells = measured(evidence, RETRIEVAL)
    cells = cells[cells["data.dataset"] == SCENES]
    means = pooled_means(_leads(cells, BY, RETRIEVAL))
    clean = (CLEAN, False, 0.0)
    if clean not in means.means or len(means.means) < 2:
        return None
    changes = {key: means.contrast({key: 1.0, clean: -1.0}) for key in means.means if key != clean}
    verdict = _all_grow(
        changes, means, "On scenes of two glyphs sigmoid's lead in retrieval", cells
    )
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
    means = pooled_means(_leads(cells, ["data.dataset", *BY], evidence.metric))
    levels = {data: {key[1:] for key in means.means if key[0] == data} for data in (few, many)}
    clean = (CLEAN, False, 0.0)
    shared = sorted((levels[few] & levels[many]) - {clean})
    if not shared or not all(clean in level for level in levels.values()):
        return None
    moved = {
        data: combine(
            (1, mean_weights((data, *key) for key in shared)), (-1, {(data, *clean): 1.0})
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
        cells=2 * sum(means.counts[key] for key in weights),
        scope=scope(cells),
    )
    return _check_clean_rates(verdict, cells, evidence)


@functools.lru_cache(maxsize=4)
def measured(evidence: Evidence, metric: str) -> pd.DataFrame:
    """The finished cells that have the metric and all pairs.

    Returns: with columns corrupted (one of `CORRUPTIONS`, or `CLEAN`), redrawn and p. Cells whose
      parts are corrupted with several probabilities are left out.
    """
    fields = [*PARTS, RATE, RESAMPLED, "loss.pairs.kind", "data.dataset"]
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
    return cells[one_p & all_pairs & done & cells["corrupted"].notna()]


def _leads(cells: pd.DataFrame, by: list[str], metric: str) -> dict[Any, list[float]]:
    """Sigmoid minus softmax of each seed, by the values of some columns."""
    table = cells.pivot_table(index=[*by, "seed"], columns="loss.kind", values=metric)
    leads: dict[Any, list[float]] = {}
    if {"sigmoid", "softmax"} <= set(table.columns):
        for key, lead in (table["sigmoid"] - table["softmax"]).dropna().items():
            leads.setdefault(key[:-1], []).append(float(lead))
    return leads


def _leads_with_clean(cells: pd.DataFrame, metric: str) -> dict[Any, list[float]]:
    """The leads by (corrupted, redrawn, p), those of clean cells at p = 0 of every corruption."""
    leads: dict[Any, list[float]] = {}
    for key, same in cells[cells["p"] > 0].groupby(BY[:2]):
        both = pd.concat([cells[cells["p"] == 0], same])
        leads |= {(*key, p): lead for (p,), lead in _leads(both, ["p"], metric).items()}
    return leads


def _alike(
    cells: pd.DataFrame, reference: pd.DataFrame, *, ignoring: tuple[str, ...]
) -> pd.DataFrame:
    """The cells that equal one of the reference in seed and in every field that is not ignored."""
    fields = [*same_fields(cells, (), ignoring=ignoring), "seed"]
    wanted = set(row_keys(reference, fields))
    return cells[pd.Series(row_keys(cells, fields), index=cells.index, dtype=object).isin(wanted)]


def _all_grow(
    changes: Mapping[Any, Interval], means: PooledMeans, whose: str, cells: pd.DataFrame
) -> Verdict:
    """Whether every change of the lead, by (corrupted, redrawn, p), is above zero."""
    conditions = {
        f"{corrupted} at p = {p:g} ({'redrawn' if redrawn else 'fixed'})": change
        for (corrupted, redrawn, p), change in changes.items()
    }
    parts = "; ".join(f"{change} with {name}" for name, change in conditions.items())
    return conclude(
        min(conditions.values()),
        means,
        f"{whose} changes by {parts}",
        cells=2 * sum(means.counts.values()),
        scope=scope(cells),
        conditions=conditions,
    )


def _check_clean_rates(verdict: Verdict, cells: pd.DataFrame, evidence: Evidence) -> Verdict:
    """With corruption few rates were tried, see `more_robust_at_best_rates`; without, more were."""
    clean = cells[cells["p"] == 0]
    return check_rates(verdict, evidence, clean, set(clean["batch_size"]))


CLAIMS = (
    *(
        Claim(
            name=f"corrupted {corrupted}",
            sentence=f"The more of {corrupted} is corrupted, the larger is sigmoid's lead over "
            "softmax.",
            section="4.10",
            needs=f"both losses without data.corruption and with {corrupted} corrupted, two seeds",
            test=more_robust(corrupted),
        )
        for corrupted in CORRUPTIONS
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
