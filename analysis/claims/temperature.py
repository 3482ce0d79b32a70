"""Our own claim about a learned temperature (paper Sec. 3.2 learns it, from log 10)."""

from __future__ import annotations

from typing import Any

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, weakest
from analysis.claims.scope import scope
from analysis.records.scores import Score
from analysis.select import text_embedding
from analysis.select.text_embedding import FIXED, LEARNED, PIECES, T
from analysis.stats.contrasts import mean_weights
from analysis.stats.intervals import paired_differences


def fixed_helps(evidence: Evidence) -> Verdict | None:
    """With each loss and on each split recall is higher with a fixed t, over all vocabularies."""
    done = text_embedding.by_vocabulary(evidence.cells).done
    groups: dict[tuple[Any, ...], list[Score]] = {}
    for split, metric in text_embedding.recalls(done).items():
        pairs = paired_differences(
            done, metric, by=("loss.kind", PIECES), levels=(FIXED, LEARNED), axis=T
        )
        for loss, pieces, gain in zip(
            pairs["loss.kind"], pairs[PIECES], pairs["difference"], strict=True
        ):
            groups.setdefault((loss, split, pieces), []).append(gain)
    means = evidence.means(groups, differences=True)
    gains = {
        f"{loss}, {split}": means.contrast(
            mean_weights(key for key in means.means if key[:2] == (loss, split))
        )
        for loss, split in sorted({key[:2] for key in means.means})
    }
    if not gains:
        return None
    fixed = done[done[T] == FIXED]
    at = " and ".join(f"{t:g}" for t in sorted(set(fixed["loss.t_init"].astype(float))))
    words = "; ".join(f"{gain} ({name})" for name, gain in gains.items())
    sizes = ", ".join(f"{size:,.0f}" for size in sorted({key[2] for key in means.means}))
    return conclude(
        gains[weakest(gains)],
        means,
        f"t fixed at {at} instead of learned gains {words} points of mean recall; vocabularies of "
        f"{sizes} pieces",
        scope=scope(fixed),
        conditions=gains,
    )


CLAIMS = (
    Claim(
        name="a fixed temperature helps",
        sentence="In many languages, from few drawings, a fixed temperature is better than a "
        "learned one, with both losses.",
        section=OURS,
        figure="text_embedding",
        needs="cells with and without optimizer.loss_scalars.frozen, equal in the rest but the "
        "initial t, with an eval of kind multilingual, two seeds",
        test=fixed_helps,
    ),
)
