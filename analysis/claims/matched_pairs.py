"""The claim about hard negatives at matched pairs (Sec. 4.8, Fig. 6, "hard, matched pairs").

A run that keeps a tenth of the pairs and trains ten times as long meets as many pairs as one with
the whole batch. It also sees ten times the examples, so it is compared with two unmasked runs:
one with as many pairs (the paper's comparison), and one with as many examples, without which
longer training alone would reproduce the claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.claims.claim import Claim, Evidence, Verdict, conclude, weakest, withhold
from analysis.claims.composition import MASKED
from analysis.records.scores import Score, read_scores
from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import NEAR
from analysis.stats.contrasts import mean_weights
from analysis.stats.intervals import by_group

TOTALS = {"pairs_seen": "as many pairs", "examples_seen": "as many examples"}
RATIO = "loss.pairs.per_positive"


def hard_gains(evidence: Evidence) -> Verdict | None:
    """Quality with hard negatives minus that of the whole batch, by seed, is above zero.

    The hard cells met as many pairs as an unmasked one, and so saw more examples. They must be
    ahead of it, and of an unmasked one that saw as many examples.
    """
    metric = evidence.metric
    gains = _partners(evidence)
    own, whole = (gains[["id", metric]], gains[["id_whole", f"{metric}_whole"]])
    whole = whole.set_axis(["id", metric], axis=1)
    pairs = zip(read_scores(own, metric), read_scores(whole, metric), strict=True)
    gains = gains.assign(gain=pd.Series([a.minus(b) for a, b in pairs], gains.index, object))
    groups: dict[Any, list[Score]] = {}
    for total in TOTALS:
        equal = gains[_near(gains, total)]
        # A hard cell may have several partners: then it is compared with their mean.
        keys = ["batch_size", RATIO, "id"]
        for (*key, _), scores in by_group(equal, keys, "gain").items():
            groups.setdefault((total, *key), []).append(Score.mean(scores))
    means = evidence.means(groups, differences=True)
    parts, texts = {}, []
    for total, words in TOTALS.items():
        of_total = [group for group in groups if group[0] == total]
        if of_total:
            parts[words] = means.contrast(mean_weights(of_total))
            whole = gains["examples_seen_whole"][_near(gains, total)]
            texts.append(f"at {words} ({_count_examples(whole)}) is {parts[words]} points")
    if TOTALS["pairs_seen"] not in parts:
        return None
    ratios = ", ".join(f"1:{ratio:g}" for ratio in sorted(set(gains[RATIO]), reverse=True))
    verdict = conclude(
        parts[weakest(parts)],
        means,
        f"Hard negatives ({ratios}, {_count_examples(gains['examples_seen'])}) minus the whole "
        f"batch {'; '.join(texts)}",
        scope=f"B = {', '.join(map(str, sorted(set(gains['batch_size']))))}",
        conditions=parts,
    )
    if len(parts) == len(TOTALS) or verdict.verdict != "reproduced":
        return verdict
    return withhold(
        verdict,
        because="Without a whole batch at as many examples this may be the longer training alone.",
        decide="all pairs at as many examples",
    )


def _partners(evidence: Evidence) -> pd.DataFrame:
    """Hard cells at matched pairs, each beside the unmasked cells equal in all but the budget."""
    metric = evidence.metric
    cells = with_fields(evidence.cells, ["loss.pairs.kind", "loss.pairs.keep", RATIO, metric])
    done = cells[
        (cells["status"] == "done") & (cells["loss.kind"] == "sigmoid") & cells[metric].notna()
    ]
    hard = done[(done["loss.pairs.kind"] == "negatives") & (done["loss.pairs.keep"] == "hard")]
    whole = done[done["loss.pairs.kind"] == "all"]
    fields = [*same_fields(whole, (), ignoring=("budget.", "loss.pairs.")), "seed"]
    columns = ["id", "pairs_seen", "examples_seen", metric]
    both = (
        hard[["batch_size", RATIO, *columns]]
        .assign(configuration=row_keys(hard, fields))
        .merge(
            whole[columns].assign(configuration=row_keys(whole, fields)),
            on="configuration",
            suffixes=("", "_whole"),
        )
    )
    matched = both["id"].isin(both["id"][_near(both, "pairs_seen")])
    return both[matched & (_near(both, "pairs_seen") | _near(both, "examples_seen"))]


def _near(both: pd.DataFrame, total: str) -> pd.Series:
    """Which rows have equal totals."""
    ratio = both[f"{total}_whole"].astype(float) / both[total].astype(float)
    return (ratio - 1).abs() <= NEAR


def _count_examples(counts: Iterable[int]) -> str:
    return " or ".join(f"{count:,}" for count in sorted({int(c) for c in counts})) + " examples"


CLAIMS = (
    Claim(
        name="matched pairs help",
        sentence="Hard negatives, trained until they have met as many pairs, beat the whole batch, "
        "and one that has seen as many examples.",
        section="4.8",
        figure="fig_6",
        needs=f"{MASKED}, keep=hard with budget.pairs as many as the whole batch meets, and all "
        "pairs at as many examples",
        test=hard_gains,
    ),
)
