"""Claims about the initial bias and temperature (Sec. 4.9, Table 4)."""

from __future__ import annotations

import pandas as pd

from analysis.claims.claim import (
    OURS,
    RATE,
    TOLERANCE,
    Claim,
    Evidence,
    Verdict,
    conclude,
    holm,
    weakest,
)
from analysis.claims.scope import name_sizes, scope
from analysis.select import initial_values, rate_rule
from analysis.select.fields import matched_differences, row_keys, same_fields, with_fields
from analysis.select.initial_values import AXES
from analysis.stats.intervals import by_group

BIAS = AXES[0]
DEFAULT = (-10.0, 10.0)


def default_is_best(evidence: Evidence) -> Verdict | None:
    """b = -10 with t' = log 10 beats every other start at every batch size.

    The prior log odds, which the paper did not try, are not among the starts: they have a claim of
    their own.
    """
    done = initial_values.by_size(evidence.cells).done
    done = done[done[BIAS].map(str) != "prior"]
    quality = by_group(done, ["batch_size", *AXES], evidence.metric)
    sizes = {
        size for size, *start in quality if tuple(start) != DEFAULT and (size, *DEFAULT) in quality
    }
    groups = {(size, tuple(start)): v for (size, *start), v in quality.items() if size in sizes}
    others = [(size, start) for size, start in groups if start != DEFAULT]
    if not others:
        return None
    means = evidence.means(groups)
    names = {other: f"{initial_values.name(other[1])} at B = {other[0]}" for other in others}
    leads = {names[other]: means.contrast({(other[0], DEFAULT): 1, other: -1}) for other in others}
    p_values = dict(zip(leads, holm(leads.values()), strict=True))
    clear = [name for name in leads if p_values[name] <= RATE]
    behind = [name for name in clear if leads[name].estimate < 0]
    nearest = weakest(leads)
    return conclude(
        leads[nearest],
        means,
        f"At {name_sizes(sorted(sizes))}, b = -10, t' = log 10 is clearly ahead of "
        f"{len(clear) - len(behind)} of {len(leads)} other starts and clearly behind "
        f"{'; '.join(behind) or 'none'}; its weakest lead, over {nearest}, is "
        f"{leads[nearest]} points",
        scope=scope(done[done["batch_size"].isin(sizes)]),
        conditions={f"lead over {name}": lead for name, lead in leads.items()},
    )


def prior_is_no_worse(evidence: Evidence) -> Verdict | None:
    """Quality from the prior log odds is nowhere more than the tolerance below that from b = -10.

    Cells that differ in the initial bias alone are paired by seed. Seeds that search for the
    learning rate are left out.
    """
    cells = with_fields(evidence.cells, [*AXES, rate_rule.RATE, "loss.pairs.kind", "examples"])
    done = cells[(cells["status"] == "done") & (cells["loss.pairs.kind"] == "all")]
    done = done.assign(**{BIAS: done[BIAS].map(str)})  # the column holds numbers and a word
    point = pd.Series(
        row_keys(done, ["batch_size", "examples", *AXES]), index=done.index, dtype=object
    )
    done = done[~rate_rule.is_searching(done, done[rate_rule.RATE], point)]
    gaps = matched_differences(done, BIAS, "prior", str(DEFAULT[0]), evidence.metric)
    if not gaps:
        return None
    means = evidence.means(gaps, differences=True)
    at = same_fields(done, [BIAS]).index("batch_size")
    leads = {
        f"B = {group[at]}, configuration {i}": means.contrast({group: 1})
        for i, group in enumerate(gaps, 1)
    }
    conditions = {name: lead.shift(TOLERANCE) for name, lead in leads.items()}
    worst = leads[weakest(conditions)]
    return conclude(
        worst,
        means,
        f"In the worst of {len(leads)} configurations the start at the prior log odds minus that "
        f"at b = -10 is {worst} points; as good means at most {TOLERANCE:g} point below",
        scope=scope(done[done[BIAS] == "prior"]),
        conditions=conditions,
    )


CLAIMS = (
    Claim(
        name="b = -10, t' = log 10 is best",
        sentence="Starting at b = -10 and t' = log 10 beats other starts.",
        section="4.9",
        figure="initial_values",
        needs="sigmoid by loss.b_init and loss.t_init, equal in the rest",
        test=default_is_best,
    ),
    Claim(
        name="prior odds start as well",
        sentence="At every batch size the prior log odds are as good an initial bias as -10.",
        section=OURS,
        figure="initial_values",
        needs="sigmoid with all pairs from loss.b_init=prior and -10, equal in the rest",
        test=prior_is_no_worse,
    ),
)
