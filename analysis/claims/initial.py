"""Claims about the initial bias and temperature (Sec. 4.9, Table 4)."""

from __future__ import annotations

from analysis.claims.claim import OURS, TOLERANCE, Claim, Evidence, Verdict, conclude, verdict_of
from analysis.claims.scope import name_sizes, scope
from analysis.select import initial_values
from analysis.select.fields import matched_differences, same_fields, with_fields
from analysis.select.initial_values import AXES
from analysis.stats.intervals import by_group, pooled_means

BIAS = AXES[0]
DEFAULT = (-10.0, 10.0)


def default_is_best(evidence: Evidence) -> Verdict | None:
    """b = -10 with t' = log 10 beats every other start at every batch size.

    The intervals are simultaneous. The prior log odds, which the paper did not try, are not among
    the starts: they have a claim of their own.
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
    means = pooled_means(groups, rounding=evidence.rounding)
    critical = means.critical(comparisons=len(others))
    leads = {
        (size, start): means.contrast({(size, DEFAULT): 1, (size, start): -1}, critical=critical)
        for size, start in others
    }
    verdicts = {other: verdict_of(lead) for other, lead in leads.items()}
    behind: dict[str, list[int]] = {}
    for (size, start), verdict in verdicts.items():
        if verdict == "contradicted":
            behind.setdefault(initial_values.name(start), []).append(size)
    worse = "; ".join(f"{name} at {name_sizes(at)}" for name, at in behind.items()) or "none"
    size, nearest = min(others, key=lambda other: leads[other].estimate)
    return conclude(
        leads[size, nearest],
        means,
        f"At {name_sizes(sorted(sizes))}, b = -10, t' = log 10 is clearly ahead of "
        f"{list(verdicts.values()).count('reproduced')} of {len(leads)} other starts and clearly "
        f"behind {worse}; its smallest lead, over {initial_values.name(nearest)} at B = {size}, is "
        f"{leads[size, nearest]} points",
        cells=sum(means.counts.values()),
        scope=scope(done[done["batch_size"].isin(sizes)]),
        conditions={
            f"lead over {initial_values.name(start)} at B = {size}": lead
            for (size, start), lead in leads.items()
        },
    )


def prior_is_no_worse(evidence: Evidence) -> Verdict | None:
    """Quality from the prior log odds is nowhere more than the tolerance below that from b = -10.

    Cells that differ in the initial bias alone are paired by seed; the intervals are simultaneous.
    """
    cells = with_fields(evidence.cells, [*AXES, "loss.pairs.kind"])
    done = cells[(cells["status"] == "done") & (cells["loss.pairs.kind"] == "all")]
    done = done.assign(**{BIAS: done[BIAS].map(str)})  # the column holds numbers and a word
    gaps = matched_differences(done, BIAS, "prior", str(DEFAULT[0]), evidence.metric)
    if not gaps:
        return None
    means = pooled_means(gaps, rounding=2 * evidence.rounding)
    critical = means.critical(comparisons=len(gaps))
    at = same_fields(done, [BIAS]).index("batch_size")
    leads = {
        f"B = {group[at]}, configuration {i}": means.contrast({group: 1}, critical=critical)
        for i, group in enumerate(gaps, 1)
    }
    worst = min(leads.values())
    return conclude(
        worst,
        means,
        f"In the worst of {len(leads)} configurations the start at the prior log odds minus that "
        f"at b = -10 is {worst} points; as good means at most {TOLERANCE:g} point below",
        cells=2 * sum(means.counts.values()),
        scope=scope(done[done[BIAS] == "prior"]),
        conditions={name: lead.shift(TOLERANCE) for name, lead in leads.items()},
    )


CLAIMS = (
    Claim(
        name="b = -10, t' = log 10 is best",
        sentence="Starting at b = -10 and t' = log 10 beats other starts.",
        section="4.9",
        needs="sigmoid by loss.b_init and loss.t_init, equal in the rest",
        test=default_is_best,
    ),
    Claim(
        name="prior odds start as well",
        sentence="At every batch size the prior log odds are as good an initial bias as -10.",
        section=OURS,
        needs="sigmoid with all pairs from loss.b_init=prior and -10, equal in the rest",
        test=prior_is_no_worse,
    ),
)
