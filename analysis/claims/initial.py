"""Test of the claim about where bias and temperature start (Sec. 4.9, Table 4)."""

from __future__ import annotations

from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, Finding, all_positive, found, no_data
from analysis.intervals import pooled_means
from analysis.varying import grouped, varying, with_fields

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


def _name(start: tuple[object, ...]) -> str:
    bias, temperature = start
    said = "no bias" if bias is None else f"b = {bias if isinstance(bias, str) else f'{bias:g}'}"
    return f"{said}, t' = log {temperature:g}"
