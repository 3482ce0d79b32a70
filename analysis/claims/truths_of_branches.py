"""Truths about branches, on which their claims are tested in simulation."""

from __future__ import annotations

from analysis.claims.made_cells import branch_cells, warm_up
from analysis.claims.scenario import BOTH, REPRODUCED, Scenario

GROWS, WARM_UP = "local critical batch grows", "batch warm-up is ahead"
# Validation losses by batch size: the critical batch is about 100, 300 and 1,100.
FEW = {64: 1.5, 256: 1.53, 1024: 1.7, 4096: 2.2}
MORE = {64: 1.5, 256: 1.45, 1024: 1.48, 4096: 1.9}
MANY = {64: 1.5, 256: 1.45, 1024: 1.42, 4096: 1.6}
EARLY, LATE = 52_000, 1_000_000

SCENARIOS = (
    Scenario(
        truth="the local critical batch stays",
        rows=branch_cells({loss: {EARLY: MORE, LATE: MORE} for loss in ("sigmoid", "softmax")}),
        wrong={GROWS: BOTH},
    ),
    Scenario(
        truth="the local critical batch of one loss grows",
        rows=branch_cells(
            {"sigmoid": {EARLY: MORE, LATE: MORE}, "softmax": {EARLY: FEW, LATE: MANY}}
        ),
        wrong={GROWS: REPRODUCED},
    ),
    Scenario(
        truth="the local critical batch shrinks",
        rows=branch_cells({loss: {EARLY: MANY, LATE: FEW} for loss in ("sigmoid", "softmax")}),
        false=(GROWS,),
    ),
    Scenario(
        truth="warm-up as good as constant batch sizes",
        rows=warm_up({256: 0.0, 1024: 0.0}),
        wrong={WARM_UP: BOTH},
    ),
    Scenario(
        truth="warm-up as good as one constant batch size",
        rows=warm_up({256: 3.0, 1024: 0.0}),
        wrong={WARM_UP: REPRODUCED},
    ),
    Scenario(
        truth="warm-up behind constant batch sizes",
        rows=warm_up({256: -2.0, 1024: -4.0}),
        false=(WARM_UP,),
    ),
)
