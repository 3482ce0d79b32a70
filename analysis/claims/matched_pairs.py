"""Claims about hard negatives at matched pairs (Sec. 4.8, Fig. 6, "hard, matched pairs").

A run that keeps a tenth of the pairs and trains ten times as long meets as many pairs as one with
the whole batch. It also sees ten times the examples, so it is compared with two unmasked runs:
one with as many pairs (the paper's comparison), and one with as many examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude
from analysis.claims.composition import MASKED
from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import NEAR
from analysis.stats.contrasts import mean_weights
from analysis.stats.intervals import by_group, pooled_means

Total = Literal["pairs_seen", "examples_seen"]
RATIO = "loss.pairs.per_positive"


def hard_gains(total: Total) -> Callable[[Evidence], Verdict | None]:
    """The test of hard negatives against the unmasked batch at equal totals."""
    return lambda evidence: _test(evidence, total)


def _test(evidence: Evidence, total: Total) -> Verdict | None:
    """Quality with hard negatives minus that of the whole batch, by seed, is above zero.

    The hard cells met as many pairs as an unmasked one, and so saw more examples.
    """
    metric = evidence.metric
    cells = with_fields(evidence.cells, ["loss.pairs.kind", "loss.pairs.keep", RATIO])
    if metric not in cells:
        return None
    done = cells[
        (cells["status"] == "done") & (cells["loss.kind"] == "sigmoid") & cells[metric].notna()
    ]
    hard = done[(done["loss.pairs.kind"] == "negatives") & (done["loss.pairs.keep"] == "hard")]
    whole = done[done["loss.pairs.kind"] == "all"]
    fields = [*same_fields(whole, (), ignoring=("budget.", "loss.pairs.")), "seed"]
    columns = ["pairs_seen", "examples_seen", metric]
    both = (
        hard[["id", "batch_size", RATIO, *columns]]
        .assign(configuration=row_keys(hard, fields))
        .merge(
            whole[columns].assign(configuration=row_keys(whole, fields)),
            on="configuration",
            suffixes=("", "_whole"),
        )
    )

    def near(column: str) -> pd.Series:
        ratio = both[f"{column}_whole"].astype(float) / both[column].astype(float)
        return (ratio - 1).abs() <= NEAR

    matched = both["id"].isin(both["id"][near("pairs_seen")])
    both = both[matched & near(total)]
    if both.empty:
        return None
    # A hard cell may have several partners: then it is compared with their mean.
    gains = both.assign(gain=both[metric] - both[f"{metric}_whole"])
    per_cell = gains.groupby(["batch_size", RATIO, "id"], as_index=False)["gain"].mean()
    means = pooled_means(by_group(per_cell, ["batch_size", RATIO], "gain"))
    gain = means.contrast(mean_weights(means.means))
    ratios = ", ".join(f"1:{ratio:g}" for _, ratio in sorted(means.means, reverse=True))
    sizes = ", ".join(str(size) for size in sorted({size for size, _ in means.means}))
    return conclude(
        gain,
        means,
        f"Hard negatives at matched pairs ({ratios}, {_examples(both['examples_seen'])}) minus the "
        f"whole batch at as many {total.removesuffix('_seen')} "
        f"({_examples(both['examples_seen_whole'])}) is {gain} points",
        cells=2 * sum(means.counts.values()),
        scope=f"B = {sizes}",
    )


def _examples(counts: Iterable[int]) -> str:
    return " or ".join(f"{count:,}" for count in sorted({int(c) for c in counts})) + " examples"


CLAIMS = (
    Claim(
        name="matched pairs help",
        sentence="Hard negatives, trained until they have met as many pairs, beat the whole batch.",
        section="4.8",
        needs=f"{MASKED}, keep=hard with budget.pairs as many as the whole batch meets",
        test=hard_gains("pairs_seen"),
    ),
    Claim(
        name="matched pairs: at equal examples",
        sentence="They also beat a whole batch that has seen as many examples.",
        section=OURS,
        needs=f"{MASKED}, keep=hard at matched pairs, and all pairs at as many examples",
        test=hard_gains("examples_seen"),
    ),
)
