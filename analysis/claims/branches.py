"""Our own claims about branches: the local critical batch over training, and batch warm-up.

Both are claims that Merrill et al. (arXiv 2505.23971) make for language models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, weakest, withhold
from analysis.claims.scope import name_sizes, scope
from analysis.records.scores import Score, read_scores
from analysis.select import branches
from analysis.select.branches import AT
from analysis.stats.intervals import Interval
from analysis.stats.local_critical_batch import local_critical_batch, smooth


class LocalBatch(NamedTuple):
    """The local critical batch of one loss and seed, at one point of its parent.

    Attributes:
      arm: the loss, or that of branches with a shifted bias, see `analysis.select.branches`.
      examples: seen before the branches begin.
      doublings: its base-2 logarithm, as a score of the cells that it rests on.
      known: whether it is below the largest batch size tried.
    """

    arm: str
    seed: int
    examples: int
    doublings: Score
    known: bool


def val_loss_of(cells: pd.DataFrame) -> str | None:
    """The softmax loss on a validation batch, which no bias enters; both losses record it."""
    names = (key for key in cells if key.startswith("eval/val_loss/") and key.endswith("/softmax"))
    return next((name for name in names if cells[name].notna().any()), None)


def smooth_losses(done: pd.DataFrame, rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells with their validation loss smoothed over the evaluations of each, where logged."""
    if metric not in rows:
        return done
    logged = rows.loc[rows["id"].isin(done["id"]) & rows[metric].notna(), ["id", "step", metric]]
    means = logged.sort_values("step").groupby("id")[metric].agg(smooth)
    return done.assign(**{metric: done["id"].map(means).fillna(done[metric].astype(float))})


def local_batches(done: pd.DataFrame, metric: str) -> list[LocalBatch]:
    """The local critical batch of every arm, seed and point with all of its batch sizes."""
    found = []
    finite = branches.by_arm(done[np.isfinite(done[metric].astype(float))])
    for arm, of_arm in finite.groupby("arm"):
        sizes = set(of_arm["batch_size"])
        for (examples, seed), group in of_arm.groupby([AT, "seed"]):
            if set(group["batch_size"]) != sizes or len(sizes) < 2:
                continue
            losses = dict(zip(group["batch_size"], group[metric].astype(float), strict=True))
            batch, known = local_critical_batch(losses)
            cells = [(1.0, str(name)) for name in group["id"]]
            score = Score(float(np.log2(batch)), "", cells)
            found.append(LocalBatch(str(arm), int(seed), int(examples), score, known))
    return found


def as_batch(doublings: Interval) -> Interval:
    """A mean logarithm as a batch size."""
    low, high = 2**doublings.low, 2**doublings.high
    return Interval(2**doublings.estimate, low, high, cells=doublings.cells)


def grows(evidence: Evidence) -> Verdict | None:
    """For each arm the local critical batch is larger at the last point than at the first."""
    panel = branches.branch_points(evidence.cells)
    metric = val_loss_of(panel.done)
    if metric is None:
        return None
    done = smooth_losses(panel.done, evidence.rows, metric)
    measured = local_batches(done, metric)
    groups: dict[Any, list[Score]] = {}
    for one in measured:
        groups.setdefault((one.arm, one.examples), []).append(one.doublings)
    means = evidence.means(groups)
    points = sorted({examples for _, examples in means.means})
    if len(points) < 2:
        return None
    first, last = points[0], points[-1]
    rises, words = {}, []
    for arm in sorted({arm for arm, _ in means.means}):
        ends = [(arm, first), (arm, last)]
        if means.means.keys() >= {*ends}:
            rises[arm] = means.contrast({ends[0]: -1.0, ends[1]: 1.0})
            sizes = (f"{as_batch(means.mean(end)):,.0f}" for end in ends)
            words.append(f"with {arm} from {' to '.join(sizes)}: {rises[arm]} doublings")
    if not rises:
        return None
    verdict = conclude(
        rises[weakest(rises)],
        means,
        f"From {first:,} to {last:,} examples the local critical batch goes {'; '.join(words)}; "
        f"tried were {name_sizes(sorted(set(done['batch_size'])))}",
        unit="doublings",
        scope=scope(done),
        conditions=rises,
    )
    if any(not one.known for one in measured if one.examples == first):
        return withhold(
            verdict,
            because="At the first point no batch size is too large, so growth cannot be seen.",
            decide="larger batch sizes, or an earlier point",
        )
    return verdict


def warm_up_ahead(evidence: Evidence) -> Verdict | None:
    """A batch size that grows ends ahead of each of its sizes held constant, for each loss."""
    pairs = branches.warm_ups(evidence.cells)
    if evidence.metric not in evidence.cells or pairs.empty:
        return None
    done = evidence.cells[evidence.cells["status"] == "done"]
    scores = dict(zip(done["id"], read_scores(done, evidence.metric), strict=True))
    groups: dict[Any, list[Score]] = {}
    for arm, _, _, sizes, size, grown, constant in pairs.itertuples(index=False, name=None):
        if grown in scores and constant in scores:
            lead = scores[grown].minus(scores[constant])
            groups.setdefault((arm, sizes, size), []).append(lead)
    means = evidence.means(groups, differences=True)
    if not means.means:
        return None
    leads = {group: means.contrast({group: 1.0}) for group in sorted(means.means)}
    named = {f"{arm}: B = {sizes} against {size}": leads[arm, sizes, size]
             for arm, sizes, size in leads}  # fmt: skip
    words = "; ".join(f"{lead} points ({name})" for name, lead in named.items())
    return conclude(
        named[weakest(named)],
        means,
        f"A growing batch size leads a constant one by {words}",
        scope=scope(done[done["id"].isin(pairs["constant"])]),
        conditions=named,
    )


CLAIMS = (
    Claim(
        name="local critical batch grows",
        sentence="The batch size up to which a larger one costs nothing grows during training.",
        section=OURS,
        figure="local_critical_batch",
        needs="branches of two points of a run, by batch_size, two seeds: `study branch`",
        test=grows,
    ),
    Claim(
        name="batch warm-up is ahead",
        sentence="At equal examples a growing batch size is ahead of each of its sizes held "
        "constant.",
        section=OURS,
        figure="batch_warmup",
        needs="runs of `batch_schedule` and constant ones of their batch sizes, two seeds",
        test=warm_up_ahead,
    ),
)
