"""Claims about beta2 and stability (Sec. 4.7, Fig. 5), and our stress test of it.

Cells that differ in beta2 alone are paired by seed and compared by their worst spike: the largest
norm of a step over the median of the rows around it, see `analysis.stats.spikes`. In the stress
test the data change within the run (`data.corruption.until_examples`), which the paper's do not.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, withhold
from analysis.claims.scope import scope
from analysis.select.fields import matched_differences, row_keys, same_fields, with_fields
from analysis.stats.contrasts import mean_weights
from analysis.stats.intervals import GroupMeans, Interval
from analysis.stats.spikes import ENDS, GRADIENTS, SPIKE, UPDATES, with_spikes

B2, STEADY, DEFAULT = "optimizer.b2", 0.95, 0.999
DENSE = 0.5  # of the steps must be logged: a spike lasts a few steps and leaves no other trace
UNIT = "log10 of the worst spike"


def lower_b2_is_steadier(evidence: Evidence) -> Verdict | None:
    """The norm of the updates spikes less with beta2 = 0.95 than with 0.999.

    The first tenth of a run is left out. A cell that diverged has no spikes; the sentence counts
    those.
    """
    pair = _pairs(evidence)
    pair = pair[pair[ENDS].isna()]
    if set(pair[B2]) != {STEADY, DEFAULT}:
        return None
    measured, means = _compare(evidence, pair, UPDATES)
    if not means.means:
        return None
    rougher = means.contrast(mean_weights(means.means))
    done = measured[measured["status"] == "done"]
    compared = done[[key in means.means for key in row_keys(done, same_fields(done, [B2]))]]
    diverged = measured[B2][measured["status"] == "diverged"].tolist()
    verdict = conclude(
        rougher,
        means,
        f"The worst spike in the recorded update norms is {_times(rougher):.2f} times as high with "
        f"beta2 0.999 as with 0.95; diverged: {diverged.count(DEFAULT)} and "
        f"{diverged.count(STEADY)} cells",
        unit=UNIT,
        scope=scope(compared),
    )
    logged = logged_share(evidence.rows, set(compared["id"]))
    if logged >= DENSE:
        return verdict
    return withhold(
        verdict,
        because=f"A spike lasts a few steps, and in one cell only {logged:.1%} of the steps were "
        "logged: spikes in the rest cannot be seen.",
        decide="the same cells with maxima over every step in their rows",
    )


def calmer_after_a_change(evidence: Evidence) -> Verdict | None:
    """After a change of the data the norm of the gradients spikes less with beta2 = 0.95.

    A stress test. Only rows after the change count; the sentence has the updates' norm too.
    """
    pair = _pairs(evidence)
    pair = pair[pair[ENDS].notna()]
    if set(pair[B2]) != {STEADY, DEFAULT}:
        return None
    found = {
        name: _compare(evidence, pair, norm)
        for name, norm in (("gradient", GRADIENTS), ("update", UPDATES))
    }
    if not all(means.means for _, means in found.values()):
        return None
    higher = {name: m.contrast(mean_weights(m.means)) for name, (_, m) in found.items()}
    measured, means = found["gradient"]
    many = measured.groupby(B2)["spikes"].mean()
    return conclude(
        higher["gradient"],
        means,
        f"In a stress test, after a change of the data, the worst spike of the gradient's norm is "
        f"{_times(higher['gradient']):.2f} times as high with beta2 0.999 as with 0.95, and "
        f"{many[DEFAULT]:.1f} and {many[STEADY]:.1f} % of the rows are above {SPIKE:g} times the "
        f"median around them; the worst spike of the update's norm is "
        f"{_times(higher['update']):.2f} times as high",
        unit=UNIT,
        scope=scope(pair),
    )


def _pairs(evidence: Evidence) -> pd.DataFrame:
    cells = with_fields(evidence.cells, [B2, ENDS])
    return cells[cells[B2].isin([STEADY, DEFAULT])]


def _compare(evidence: Evidence, cells: pd.DataFrame, norm: str) -> tuple[pd.DataFrame, GroupMeans]:
    """The cells with their spikes, and by configuration how much higher the worst is at 0.999."""
    measured = with_spikes(cells, evidence.rows, norm)
    done = measured[measured["status"] == "done"]
    return measured, evidence.means(matched_differences(done, B2, DEFAULT, STEADY, "worst"))


def _times(log: Interval) -> Interval:
    return Interval(10**log.estimate, 10**log.low, 10**log.high)


def logged_share(rows: pd.DataFrame, cells: Collection[str]) -> float:
    """The share of steps whose update norms entered a row, the smallest of these cells."""
    rows = rows[rows["id"].isin(cells) & (rows[UPDATES] > 0)]
    steps = rows.groupby("id")["step"]
    share = steps.nunique() / steps.max()
    if f"{UPDATES}_max" in rows:  # a maximum over every step since the row before
        share[rows[f"{UPDATES}_max"].notna().groupby(rows["id"]).all()] = 1.0
    return float(share.min())


CLAIMS = (
    Claim(
        name="beta2 0.95 is steadier",
        sentence="Training is steadier with beta2 = 0.95 than with 0.999.",
        section="4.7",
        figure="fig_5",
        needs=f"optimizer.b2 0.95 and 0.999, equal in the rest, two seeds, with {UPDATES} in rows",
        test=lower_b2_is_steadier,
    ),
    Claim(
        name="beta2 0.95 is calmer after a change",
        sentence="After a change of the training data, gradients spike less with beta2 = 0.95.",
        section=OURS,
        figure="data_change",
        needs=f"optimizer.b2 0.95 and 0.999 with {ENDS}, equal in the rest, two seeds",
        test=calmer_after_a_change,
    ),
)
