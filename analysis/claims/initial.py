"""Tests of claims about where bias and temperature start (Sec. 4.9, Table 4)."""

from __future__ import annotations

from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, TOLERANCE, Finding, all_positive, found, no_data
from analysis.intervals import pooled_means
from analysis.varying import grouped, matched, varying, with_fields

AXES = ("loss.b_init", "loss.t_init")
DEFAULT = (-10.0, 10.0)


def default_is_best(evidence: Evidence) -> Finding:
    """b = -10 with t = 10 beats every other start tried, by intervals that hold at once."""
    cells = with_fields(evidence.cells, [*AXES, "loss.pairs.kind"])
    pool = cells[(cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")]
    chosen = varying(pool, AXES)
    groups = grouped(chosen[chosen["status"] == "done"], AXES, evidence.metric)
    others = [start for start in groups if start != DEFAULT]
    if DEFAULT not in groups or not others:
        return no_data(
            "Needs cells that start at b = -10, t = 10 and elsewhere, equal in the rest."
        )
    means = pooled_means(groups, rounding=evidence.rounding)
    critical = means.critical(comparisons=len(others))
    leads = {
        start: means.contrast({DEFAULT: 1.0, start: -1.0}, critical=critical) for start in others
    }
    verdict, binding = all_positive(*leads.values())
    nearest = min(others, key=lambda start: leads[start].estimate)
    size = int(chosen["batch_size"].iloc[0])
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts.values()),
        sentence=f"At B = {size}, of {len(others)} other starts {_name(nearest)} comes nearest to "
        f"b = -10, t' = log 10, which is {binding.estimate:+.2f} points ahead",
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


def _name(start: tuple[object, ...]) -> str:
    bias, temperature = start
    said = "no bias" if bias is None else f"b = {bias if isinstance(bias, str) else f'{bias:g}'}"
    return f"{said}, t' = log {temperature:g}"
