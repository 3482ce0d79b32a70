"""Claims on the token embedding of many languages: its bottleneck and its vocabulary (Sec. 4.3).

Cells that differ in one of them alone are paired by seed; the mean is over all such pairs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.claims.claim import TOLERANCE, Claim, Evidence, Verdict, conclude
from analysis.claims.scope import scope
from analysis.select import multilingual
from analysis.select.fields import matched_differences, with_fields
from analysis.select.text_embedding import BOTTLENECK, TOKENIZER, WIDTH, pieces_of_name
from analysis.stats.contrasts import mean_weights

NARROW = 96 / 768  # the paper's bottleneck, by the width of the tower
LARGER = 250 / 32  # the paper's larger vocabulary, by the smaller


def bottleneck_costs_little(evidence: Evidence) -> Verdict | None:
    """A bottleneck loses no more than the tolerance of zero-shot accuracy.

    Of several ranks it is the one nearest to the paper's share of the width, an eighth; where the
    width is not recorded, the largest.
    """
    cells = with_fields(evidence.cells, [BOTTLENECK, WIDTH])
    rank = pd.to_numeric(cells[BOTTLENECK], errors="coerce").fillna(0.0)  # 0: none
    width = pd.to_numeric(cells[WIDTH], errors="coerce")
    cells = cells.assign(**{BOTTLENECK: rank})[cells["status"] == "done"]
    narrow = cells[cells[BOTTLENECK] > 0]
    if narrow.empty:
        return None
    share = (np.log(narrow[BOTTLENECK] / width[narrow.index]) - np.log(NARROW)).abs()
    known = share.notna().any()
    chosen = float(narrow[BOTTLENECK][share.idxmin()] if known else narrow[BOTTLENECK].max())
    costs = matched_differences(cells, BOTTLENECK, 0.0, chosen, evidence.metric)
    if not costs:
        return None
    means = evidence.means(costs, differences=True)
    cost = means.contrast(mean_weights(costs))
    return conclude(
        cost,
        means,
        f"A bottleneck of rank {chosen:.0f} costs {cost} points; little means below "
        f"{TOLERANCE:g} point",
        scope=scope(cells[cells[BOTTLENECK] == chosen]),
        conditions={f"{TOLERANCE:g} minus the cost": (-cost).shift(TOLERANCE)},
    )


def larger_vocabulary_helps(evidence: Evidence) -> Verdict | None:
    """Mean recall over languages is higher with more pieces.

    Of several tokenizers these are the two whose sizes are nearest to eight times apart, as the
    paper's are. A size is the number in the name of the file.
    """
    cells = with_fields(evidence.cells, [TOKENIZER])
    cells = cells[cells["status"] == "done"]
    pieces = {
        name: size for name in cells[TOKENIZER].dropna().unique() if (size := pieces_of_name(name))
    }
    pairs = [(many, few) for many in pieces for few in pieces if pieces[many] > pieces[few]]
    if not pairs:
        return None
    many, few = min(pairs, key=lambda pair: abs(np.log(pieces[pair[0]] / pieces[pair[1]] / LARGER)))
    recall = multilingual.mean_recall(cells)
    gains = matched_differences(cells, TOKENIZER, many, few, recall)
    if not gains:
        return None
    means = evidence.means(gains, differences=True)
    gain = means.contrast(mean_weights(gains))
    return conclude(
        gain,
        means,
        f"{pieces[many]:,} pieces instead of {pieces[few]:,} gain {gain} points of mean recall",
        scope=scope(cells[cells[TOKENIZER].isin((many, few))]),
    )


CLAIMS = (
    Claim(
        name="bottleneck costs little",
        sentence="A bottlenecked token embedding costs about half a point of zero-shot accuracy.",
        section="4.3",
        figure="text_embedding",
        needs="cells with and without model.text.bottleneck, equal in the rest",
        test=bottleneck_costs_little,
    ),
    Claim(
        name="larger vocabulary helps",
        sentence="A vocabulary eight times as large gains about a point.",
        section="4.3",
        figure="text_embedding",
        needs="two values of data.tokenizer with their sizes in the name, equal in the rest, with "
        "an eval of kind multilingual",
        test=larger_vocabulary_helps,
    ),
)
