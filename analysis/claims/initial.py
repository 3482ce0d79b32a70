"""Tests of claims about where bias and temperature start (Sec. 4.9, Table 4)."""

from __future__ import annotations

from typing import Any

from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, TOLERANCE, Finding, all_positive, found, no_data
from analysis.intervals import pooled_means
from analysis.varying import grouped, matched, varying, with_fields

AXES = ("loss.b_init", "loss.t_init")
DEFAULT = (-10.0, 10.0)
Start = tuple[Any, ...]


def default_is_best(evidence: Evidence) -> Finding:
    """b = -10 with t = 10 beats every other start, at every batch size, by intervals that hold at
    once. The prior odds, which the paper did not try, are another claim."""
    cells = with_fields(evidence.cells, [*AXES, "loss.pairs.kind"])
    numbers = cells["loss.b_init"].map(str) != "prior"
    pool = cells[(cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all") & numbers]
    groups: dict[tuple[int, Start], list[float]] = {}
    for size, same in pool.groupby("batch_size"):
        chosen = varying(same, AXES)
        found_here = grouped(chosen[chosen["status"] == "done"], AXES, evidence.metric)
        if DEFAULT in found_here and len(found_here) > 1:
            groups |= {(int(size), start): values for start, values in found_here.items()}
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
    verdict, binding = all_positive(*leads.values())
    size, nearest = min(others, key=lambda other: leads[other].estimate)
    sizes = sorted({size for size, _ in others})
    ahead = sum(lead.estimate > 0 for lead in leads.values())
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts.values()),
        sentence=f"At B = {', '.join(map(str, sizes))} b = -10, t' = log 10 is ahead of {ahead} of "
        f"{len(leads)} other starts; it does least against {_name(nearest)} at B = {size}, "
        f"{binding.estimate:+.2f} points",
        means=means,
        conditions=list(leads.values()),
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
    leads = [means.contrast({group: 1.0}, critical=critical) for group in both]
    verdict, _ = all_positive(*(lead.above(-TOLERANCE) for lead in leads))
    least = min(leads, key=lambda lead: lead.estimate)
    return found(
        verdict,
        least,
        unit=POINTS,
        cells=2 * sum(means.counts.values()),
        sentence=f"In the worst of {len(leads)} settings the start at the prior odds is "
        f"{least.estimate:+.2f} points from b = -10; as good is no more than {TOLERANCE:g} below",
        means=means,
        conditions=[lead.above(-TOLERANCE) for lead in leads],
    )


def _name(start: Start) -> str:
    bias, temperature = start
    said = "no bias" if bias is None else f"b = {bias:g}"
    return f"{said}, t' = log {temperature:g}"
