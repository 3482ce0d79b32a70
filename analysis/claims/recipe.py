"""The claim about weight decay on a pretrained tower (Sec. 4.5, Fig. 4)."""

from __future__ import annotations

from analysis.claims.claim import Claim, Evidence, Verdict, conclude, weakest
from analysis.claims.scope import scope
from analysis.select.fields import matched_differences, with_fields
from analysis.stats.contrasts import mean_weights

DECAY, WEIGHT = "optimizer.image.wd_mult", "optimizer.weight_decay"


def decay_hurts(evidence: Evidence) -> Verdict | None:
    """A pretrained image tower ends better without weight decay than with it.

    Cells that differ in `optimizer.image.wd_mult` alone, 0 against 1, are paired by seed.
    Judged by zero-shot quality, and by the few-shot probe of the tower where it was recorded.
    """
    cells = with_fields(evidence.cells, ["model.init", DECAY, WEIGHT])
    done = cells[cells["model.init"].notna() & (cells["status"] == "done")]
    probes = [c for c in done if c.startswith("eval/few_shot/") and c.endswith("/top1")]
    means = {
        metric: evidence.means(matched_differences(done, DECAY, 0.0, 1.0, metric), differences=True)
        for metric in (evidence.metric, *probes)
    }
    gains = {
        metric: pooled.contrast(mean_weights(pooled.means))
        for metric, pooled in means.items()
        if pooled.means
    }
    if not gains:
        return None
    lowest = weakest(gains)
    decays = ", ".join(f"{value:g}" for value in sorted(set(done[WEIGHT].dropna())))
    return conclude(
        gains[lowest],
        means[lowest],
        f"Without weight decay ({decays or 'unknown'} in the other cells) the pretrained tower "
        f"gains {'; '.join(f'{gain} points in {metric}' for metric, gain in gains.items())}",
        scope=scope(done),
        conditions=gains,
    )


CLAIMS = (
    Claim(
        name="decay on a pretrained tower hurts",
        sentence="Weight decay on a pretrained image tower lowers its quality.",
        section="4.5",
        figure="fig_4",
        needs="model.init set, optimizer.image.wd_mult 0 and 1",
        test=decay_hurts,
    ),
)
