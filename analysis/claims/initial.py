"""Tests of claims about where bias and temperature start (Sec. 4.9, Table 4)."""

from __future__ import annotations

from analysis.claims.evidence import Evidence
from analysis.claims.scope import scope
from analysis.claims.verdict import (
    POINTS,
    TOLERANCE,
    Finding,
    found,
    intersection_union,
    no_data,
    verdict_of,
)
from analysis.select import initial_values as starts
from analysis.select.fields import grouped, matched, with_fields
from analysis.select.initial_values import AXES
from analysis.stats.intervals import pooled_means

DEFAULT = (-10.0, 10.0)


def default_is_best(evidence: Evidence) -> Finding:
    """b = -10 with t = 10 beats every other start, at every batch size, by intervals that hold at
    once. The prior odds, which the paper did not try, are another claim."""
    done = starts.by_size(evidence.cells).done
    done = done[done["loss.b_init"].map(str) != "prior"]
    tried = grouped(done, ("batch_size", *AXES), evidence.metric)
    sizes = [
        size for size, *start in tried if tuple(start) != DEFAULT and (size, *DEFAULT) in tried
    ]
    groups = {(k[0], k[1:]): values for k, values in tried.items() if k[0] in sizes}
    others = [(size, start) for size, start in groups if start != DEFAULT]
    if not others:
        return no_data(
            "Needs cells that start at b = -10, t = 10 and elsewhere, equal in the rest."
        )
    means = pooled_means(groups, rounding=evidence.rounding)
    critical = means.critical(comparisons=len(others))
    leads = {
        (size, start): means.contrast(
            {(size, DEFAULT): 1.0, (size, start): -1.0}, critical=critical
        )
        for size, start in others
    }
    verdict, binding = intersection_union(*leads.values())
    behind: dict[str, list[int]] = {}
    for size, start in others:
        if verdict_of(leads[size, start]) == "contradicted":
            behind.setdefault(starts.name(start), []).append(size)
    size, nearest = min(others, key=lambda other: leads[other].estimate)
    ahead = sum(verdict_of(lead) == "reproduced" for lead in leads.values())
    worse = "; ".join(f"{name} at B = {_list(at)}" for name, at in behind.items())
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts.values()),
        sentence=f"At B = {_list(sorted(set(sizes)))} b = -10, t' = log 10 is clearly ahead of "
        f"{ahead} of {len(leads)} other starts and clearly behind {worse or 'none'}; it does least "
        f"against {starts.name(nearest)} at B = {size}, {binding} points",
        means=means,
        scope=scope(done[done["batch_size"].isin(sizes)]),
        conditions={
            f"lead over {starts.name(start)} at B = {size}": lead
            for (size, start), lead in leads.items()
        },
    )


def prior_is_no_worse(evidence: Evidence) -> Finding:
    """From the prior log odds quality is nowhere more than the tolerance below that from -10.

    Cells that differ in the start of the bias alone, paired by seed; the intervals of the batch
    sizes hold at once.
    """
    cells = with_fields(evidence.cells, [*AXES, "loss.pairs.kind"])
    done = cells[(cells["status"] == "done") & (cells["loss.pairs.kind"] == "all")]
    # As text: a column that holds a word as well as numbers is compared by its words.
    done = done.assign(**{AXES[0]: done[AXES[0]].map(str)})
    both = matched(done, AXES[0], "prior", str(DEFAULT[0]), evidence.metric)
    if not both:
        return no_data("Needs cells from b = prior and b = -10, equal in the rest.")
    means = pooled_means(both, rounding=2 * evidence.rounding)
    critical = means.critical(comparisons=len(both))
    leads = {
        f"setting {i}": means.contrast({group: 1.0}, critical=critical)
        for i, group in enumerate(both, 1)
    }
    no_worse = {name: lead.shift(TOLERANCE) for name, lead in leads.items()}
    verdict, _ = intersection_union(*no_worse.values())
    least = min(leads.values(), key=lambda lead: lead.estimate)
    return found(
        verdict,
        least,
        unit=POINTS,
        cells=2 * sum(means.counts.values()),
        sentence=f"In the worst of {len(leads)} settings the start at the prior odds minus that at "
        f"b = -10 is {least} points; as good means no more than {TOLERANCE:g} below",
        means=means,
        scope=scope(done[done[AXES[0]] == "prior"]),
        conditions=no_worse,
    )


def _list(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
