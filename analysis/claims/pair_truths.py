"""Truths on which the claims on pairs are tested, see `analysis.claims.null_studies`."""

from __future__ import annotations

from analysis.claims.made_cells import pairs_map, queue_matches, same_captions
from analysis.claims.scenario import BOTH, REPRODUCED, Scenario

PAIRS, EXAMPLES = "pairs per example help", "examples per step help"
MORE = "pairs matter more than examples"
STEPS_EXAMPLES = "at equal steps: examples per step help"
STEPS_MORE = "at equal steps: pairs matter more"
QUEUES = ("a queue is a large batch", "a queue is a large batch at equal FLOPs")
COST, STOP = "false negatives cost more in a large batch", "false negatives stop the gain"

STEPS = 1024
LEVEL = {256: 30.0, 1024: 40.0, 4096: 40.0}  # sigmoid gains nothing from the largest batch

PAIR_SCENARIOS = (
    Scenario(
        truth="no effect of pairs or examples",
        rows=pairs_map(0.0, 0.0),
        wrong={PAIRS: BOTH, EXAMPLES: BOTH, MORE: BOTH},
    ),
    Scenario(
        truth="pairs help from b = -10 only",
        rows=pairs_map(1.0, 0.0, starts=(-10.0,)) + pairs_map(0.0, 0.0, starts=("prior",)),
        wrong={PAIRS: REPRODUCED, MORE: REPRODUCED},
    ),
    Scenario(
        truth="examples help from b = -10 only",
        rows=pairs_map(0.0, 1.0, starts=(-10.0,)) + pairs_map(0.0, 0.0, starts=("prior",)),
        wrong={EXAMPLES: REPRODUCED},
    ),
    Scenario(
        truth="pairs and examples hurt, pairs more",
        rows=pairs_map(-1.0, -0.5),
        false=(PAIRS, EXAMPLES, MORE),
    ),
    Scenario(
        truth="no effect of pairs or examples at equal steps",
        rows=pairs_map(0.0, 0.0, equal_steps=STEPS),
        wrong={STEPS_EXAMPLES: BOTH, STEPS_MORE: BOTH},
    ),
    Scenario(
        truth="at equal steps pairs hurt, and examples per step half as much",
        rows=pairs_map(-1.0, -0.5, equal_steps=STEPS),
        false=(STEPS_EXAMPLES, STEPS_MORE),
    ),
    Scenario(
        truth="a queue gains three quarters of what a large batch gains",
        rows=queue_matches(sigmoid=(3.0, 4.0), softmax=(3.0, 4.0)),
        wrong=dict.fromkeys(QUEUES, BOTH),
    ),
    Scenario(
        truth="a queue is a large batch with sigmoid, and three quarters of it with softmax",
        rows=queue_matches(sigmoid=(4.0, 4.0), softmax=(3.0, 4.0)),
        wrong=dict.fromkeys(QUEUES, REPRODUCED),
    ),
    Scenario(
        truth="a queue gains nothing",
        rows=queue_matches(sigmoid=(0.0, 6.0), softmax=(0.0, 6.0)),
        false=QUEUES,
    ),
    Scenario(
        truth="false negatives cost nothing, and sigmoid stops gaining",
        rows=same_captions(LEVEL, masked=(0.0,) * 3, positive=(0.0,) * 3),
        wrong={COST: BOTH, STOP: REPRODUCED},
    ),
    Scenario(
        truth="where sigmoid stops, it gains a quarter of the rise without false negatives",
        rows=same_captions(LEVEL, masked=(0.0, 0.0, 2.5), positive=(0.0, 0.0, 2.5)),
        wrong={STOP: BOTH},
    ),
    Scenario(
        truth="equal captions cost a large batch less than a small one",
        rows=same_captions(LEVEL, masked=(4.0, 2.0, -2.0), positive=(4.0, 2.0, -2.0)),
        false=(COST, STOP),
    ),
)
