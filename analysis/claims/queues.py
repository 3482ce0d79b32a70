"""Our own claims about negatives that are kept from earlier steps.

A small batch with a queue is compared with the batch as large as both, in what each gains over the
small batch alone. It has what the large one has if it gains more than three quarters of that. The
three are equal in examples, or in FLOPs, where the small batch alone takes the most examples.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import pandas as pd

from analysis.claims.claim import OURS, Claim, Evidence, Verdict, conclude, weakest, withhold
from analysis.claims.scope import scope
from analysis.select import queues
from analysis.select.deciding import FEWEST_STEPS, examples_of
from analysis.select.fields import row_keys
from analysis.select.queues import GROUP, LARGE, MATCH, ROLE, SMALL, STORED
from analysis.stats.contrasts import QUARTER, Weights, combine, mean_weights
from analysis.stats.intervals import GroupMeans, by_group

Equal = Literal["examples", "flops"]
NAMES: dict[Equal, str] = {"examples": "equal examples", "flops": "equal FLOPs"}


def queue_has_it(evidence: Evidence, *, equal: Equal) -> Verdict | None:
    """With each loss, the queue gains over three quarters of what the large batch gains.

    The mean over the matches of a loss counts. A match in which one of the three has too few steps
    is left out.
    """
    done = queues.matches(evidence.cells, equal=equal).done
    steps = pd.Series(examples_of(done), index=done.index) / done["batch_size"]
    fewest = steps.groupby([done["loss.kind"], done[MATCH]]).transform("min")
    short = _name_matches(done[fewest < FEWEST_STEPS])
    done = done[fewest >= FEWEST_STEPS]
    # A cell without a queue may be in several matches, and is one group in all of them.
    means = evidence.means(by_group(done.drop_duplicates("id"), GROUP, evidence.metric))
    gains, margins, texts = {}, {}, []
    for loss, of_loss in done.groupby("loss.kind"):
        matches = [_means_by_role(one, means) for _, one in of_loss.groupby(MATCH)]
        matches = [one for one in matches if len(one) == len(queues.ROLES)]
        if not matches:
            continue
        share = 1 / len(matches)
        queue, large = (
            combine(
                *((sign * share, one[r]) for one in matches for sign, r in ((1, role), (-1, SMALL)))
            )
            for role in (STORED, LARGE)
        )
        gains[str(loss)] = means.contrast(large)
        name = f"{loss}: the queue's gain minus three quarters of the large batch's"
        margins[name] = means.contrast(combine((1, queue), (QUARTER - 1, large)))
        texts.append(
            f"with {loss} the queue gains {means.contrast(queue)} points and the large batch "
            f"{gains[str(loss)]}"
        )
    if not margins:
        return None
    sentence = f"Over the small batch alone, at {NAMES[equal]}, {'; '.join(texts)} "
    sentence += f"(mean of {_name_matches(done)})"
    if short:
        sentence += f"; {short} left out: fewer than {FEWEST_STEPS} steps"
    verdict = conclude(
        margins[weakest(margins)], means, sentence, scope=scope(done), conditions=margins
    )
    if level := [loss for loss, gain in gains.items() if gain.low <= 0]:
        return withhold(
            verdict,
            because=f"With {' and '.join(level)} the large batch is not clearly ahead, so a queue "
            "has nothing to make up.",
            decide="batch sizes of which the large one gains",
        )
    return verdict


def _means_by_role(match: pd.DataFrame, means: GroupMeans) -> dict[str, Weights]:
    """Of one match, the mean over the groups of each role."""
    groups: dict[str, dict[Any, None]] = {}
    for role, key in zip(match[ROLE], row_keys(match, GROUP), strict=True):
        if key in means.means:
            groups.setdefault(role, {})[key] = None
    return {role: mean_weights(keys) for role, keys in groups.items()}


def _name_matches(cells: pd.DataFrame) -> str:
    return ", ".join(
        f"{size} + {stored} = {size + stored}" for size, stored in sorted({*cells[MATCH]})
    )


NEEDS = (
    "loss.queue_examples above 0 at several batch_size, and cells without a queue at that batch "
    "size and at the sum of both"
)

CLAIMS = (
    Claim(
        name="a queue is a large batch",
        sentence="Negatives kept from earlier steps give a small batch what a batch as large as "
        "both has, at equal examples.",
        section=OURS,
        figure="queues",
        needs=NEEDS,
        test=functools.partial(queue_has_it, equal="examples"),
    ),
    Claim(
        name="a queue is a large batch at equal FLOPs",
        sentence="Negatives kept from earlier steps give a small batch what a batch as large as "
        "both has, at equal FLOPs.",
        section=OURS,
        figure="queues",
        needs=f"{NEEDS}, all with as many FLOPs",
        test=functools.partial(queue_has_it, equal="flops"),
    ),
)
