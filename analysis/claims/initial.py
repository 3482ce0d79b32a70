"""Tests of claims about where bias and temperature start (Sec. 4.9, Table 4)."""

from __future__ import annotations

from analysis import starts
from analysis.claims.evidence import Evidence
from analysis.claims.finding import POINTS, TOLERANCE, Finding, all_positive, found, no_data
from analysis.intervals import pooled_means
from analysis.starts import AXES
from analysis.varying import grouped, matched, with_fields

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
    verdict, binding = all_positive(*leads.values())
    size, nearest = min(others, key=lambda other: leads[other].estimate)
    ahead = sum(lead.estimate > 0 for lead in leads.values())
    return found(
        verdict,
        binding,
        unit=POINTS,
        cells=sum(means.counts.values()),
        sentence=f"At B = {', '.join(map(str, sorted(set(sizes))))} b = -10, t' = log 10 is ahead "
        f"of {ahead} of {len(leads)} other starts; it does least against {starts.name(nearest)} at "
        f"B = {size}, {binding.estimate:+.2f} points",
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
