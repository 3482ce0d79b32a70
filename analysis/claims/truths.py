"""Truths on which the claims are tested in simulation, see `analysis.claims.null_studies`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.claims import scaling_rules as rules
from analysis.claims.claim import TOLERANCE
from analysis.claims.corruption import CORRUPTIONS, RETRIEVAL, SCENES
from analysis.claims.language_truths import LANGUAGE_SCENARIOS
from analysis.claims.made_cells import (
    MASKED_B,
    RATIOS,
    SCRATCH,
    WHOLE,
    Row,
    batch_panel,
    by_budget,
    composition_panel,
    corrupted,
    every_corruption,
    matched_pairs,
    scaling_rules,
    starts,
)
from analysis.claims.pair_truths import PAIR_SCENARIOS
from analysis.claims.scenario import BOTH, CONTRADICTED, REPRODUCED, Scenario
from analysis.select.tried_rates import VALIDATION
from analysis.stats.spikes import ENDS

SIZES = (16, 64, 256, 1024, 4096)
CURVE = dict(zip(SIZES, (34.0, 40.0, 44.0, 44.2, 41.0), strict=True))
AHEAD, CLOSES = "sigmoid ahead at small batch", "gap closes with batch"
LEVEL = "losses level at large batch"
FLATTENS = ("quality saturates", "from scratch: saturates")
HURTS = ("too large a batch hurts", "from scratch: too large hurts")
SCRATCH_AHEAD, SCRATCH_CLOSES = "from scratch: sigmoid ahead", "from scratch: gap closes"
NEEDS_LONG, GROWS = "large batch needs long training", "best batch grows with the budget"
DECAY, STEADY = "decay on a pretrained tower hurts", "beta2 0.95 is steadier"
CHANGED = "beta2 0.95 is calmer after a change"
RANDOM, EASY = "dropping random negatives hurts", "easy negatives alone fail"
HARD, FLAT = "hard negatives nearly keep quality", "hard: positive logits flat"
RISES = ("bias rises as negatives fall", "positive logits rise", "negative logits rise")
MATCHED, START = "matched pairs help", "b = -10, t' = log 10 is best"
PRIOR, CORRUPTED = "prior odds start as well", "corrupted data"
BEST_RATE, DISTINCT = "corrupted: at the best rate too", "corrupted: distinct examples help"
ON_SCENES, WHERE_LEVEL = "corrupted: on scenes of two", "corrupted: where level"

RULES = tuple(claim.name for claim in rules.CLAIMS)


def _both_towers(quality: Sequence[float], gaps: Sequence[float] = ()) -> list[Row]:
    curve = dict(zip(SIZES, quality, strict=True))
    return batch_panel(curve, gaps) + batch_panel(curve, gaps, **SCRATCH)


def _budgets(short: Sequence[float], long: Sequence[float]) -> list[Row]:
    sizes = (128, 512, 4096)
    qualities = {2.0**21: short, 2.0**25: long}
    return by_budget({n: dict(zip(sizes, q, strict=True)) for n, q in qualities.items()})


def _losing(share: float) -> tuple[float, ...]:
    """Slopes of masked cells that lose this share of the quality on average over the ratios."""
    decades = [math.log10((MASKED_B - 1) / ratio) for ratio in RATIOS]
    return (-share * WHOLE["quality"] * len(decades) / sum(decades), 1.0, 1.0, 1.0)


def _decay(gain: float) -> list[Row]:
    tower = {"model.init": "augreg.npz:img", "model.image.kind": "vit"}
    quality = {0.0: 60.0 + gain, 1.0: 60.0}
    return [tower | {"optimizer.image.wd_mult": d, "quality": q} for d, q in quality.items()]


BETA2: list[Row] = [
    {"optimizer.b2": b2, "data.corruption.image": image, ENDS: ends, "quality": 40.0}
    for b2 in (0.95, 0.999)
    for image, ends in ((0.0, None), (1.0, 20 * 256))
]


def _starts(default: float, second: float, others: float) -> list[Row]:
    quality = {(-10.0, 10.0): default, (-10.0, 1.0): second}
    quality |= {(0.0, 10.0): others, (0.0, 1.0): others}
    return [row for size in (64, 256, 1024) for row in starts(quality, batch_size=size)]


def _prior(*leads: float) -> list[Row]:
    return [
        {"batch_size": size, "loss.b_init": b, "quality": 40.0 + lead * (b == "prior")}
        for size, lead in zip(SIZES, leads, strict=False)
        for b in (-10.0, "prior")
    ]


def _corrupted(
    clean: float, leads: Mapping[float, float], **one: Mapping[float, float]
) -> list[Row]:
    """All kinds, fixed and redrawn; `one`: other leads of single kinds, redrawn."""
    rows = every_corruption(clean, leads)
    for kind in CORRUPTIONS:
        own = one.get(kind, leads)
        rows += corrupted(kind, own, resample_each_epoch=True)
    return rows


def _two_ways(clean: float, fixed: float, redrawn: float, **fields: Any) -> list[Row]:
    """Text corrupted at p = 0.4, fixed and redrawn, by sigmoid's lead."""
    rows = corrupted("text", {0.0: clean, 0.4: fixed}, **fields)
    return rows + corrupted("text", {0.4: redrawn}, resample_each_epoch=True, **fields)


def _rates(fixed: float, redrawn: float) -> list[Row]:
    """The same at three learning rates that are equally good."""
    return [
        row | {"optimizer.learning_rate": rate, VALIDATION: row["quality"]}
        for rate in (5e-4, 1e-3, 2e-3)
        for row in _two_ways(2.0, fixed, redrawn)
    ]


def _data_sets(gain: float) -> list[Row]:
    few = {"data.dataset": "few", "dataset_examples": 1e4, "dataset_fingerprint": "g"}
    many = {"data.dataset": "many", "dataset_examples": 4e4}
    return _two_ways(3.0, 1.0, 1.0, **few) + _two_ways(2.0, gain, gain, **many)


ON_GLYPH_SCENES = {"data.dataset": SCENES}

SCENARIOS = (
    Scenario(
        truth="no effect of the loss",
        rows=_both_towers(tuple(CURVE.values()), (0.0,) * 5),
        wrong={AHEAD: BOTH, CLOSES: BOTH, SCRATCH_AHEAD: BOTH, SCRATCH_CLOSES: BOTH},
    ),
    Scenario(
        truth="at large batches sigmoid leads by a quarter of its lead at small ones",
        rows=_both_towers(tuple(CURVE.values()), (4.0, 4.0, 2.0, 1.0, 1.0)),
        wrong={LEVEL: BOTH},
    ),
    Scenario(
        truth="sigmoid behind at small batches, ahead at large ones",
        rows=_both_towers(tuple(CURVE.values()), (-5.0, -3.0, 0.0, 3.0, 6.0)),
        false=(AHEAD, CLOSES, LEVEL, SCRATCH_AHEAD, SCRATCH_CLOSES),
    ),
    Scenario(
        truth="no effect of the batch size",
        rows=_both_towers((40.0,) * 5),
        wrong=dict.fromkeys(HURTS, REPRODUCED) | dict.fromkeys(FLATTENS, CONTRADICTED),
    ),
    Scenario(
        truth="the largest batch as good as the best smaller one",
        rows=_both_towers((20.0, 26.0, 33.0, 40.0, 40.0)),
        wrong=dict.fromkeys(HURTS, REPRODUCED),
    ),
    Scenario(
        truth="the largest batch gains a quarter of the rise",
        rows=_both_towers((20.0, 26.0, 32.0, 34.0, 36.0)),
        wrong=dict.fromkeys(HURTS, CONTRADICTED) | dict.fromkeys(FLATTENS, BOTH),
    ),
    Scenario(
        truth="the largest batch loses a quarter of the rise",
        rows=_both_towers((20.0, 30.0, 40.0, 40.0, 35.0)),
        wrong=dict.fromkeys(HURTS, CONTRADICTED) | dict.fromkeys(FLATTENS, BOTH),
    ),
    Scenario(
        truth="quality rises with every batch size",
        rows=_both_towers((20.0, 26.0, 32.0, 38.0, 44.0)),
        wrong=dict.fromkeys(HURTS, BOTH),
        false=FLATTENS,
    ),
    Scenario(
        truth="quality level from the middle batch size on",
        rows=_both_towers((20.0, 30.0, 40.0, 40.0, 40.0)),
        false=HURTS,
    ),
    Scenario(
        truth="no effect of the batch size at either budget",
        rows=_budgets((40.0,) * 3, (60.0,) * 3),
        wrong={NEEDS_LONG: BOTH, GROWS: BOTH},
    ),
    Scenario(
        truth="large batches behind in short training, level in long",
        rows=_budgets((40.0, 35.0, 30.0), (60.0,) * 3),
        wrong={NEEDS_LONG: REPRODUCED, GROWS: REPRODUCED},
    ),
    Scenario(
        truth="two small batches level at both budgets, the largest behind",
        rows=_budgets((40.0, 40.0, 30.0), (60.0, 60.0, 50.0)),
        wrong={GROWS: CONTRADICTED},
    ),
    Scenario(
        truth="large batches behind at both budgets",
        rows=_budgets((40.0, 35.0, 30.0), (60.0, 55.0, 50.0)),
        false=(NEEDS_LONG, GROWS),
    ),
    *LANGUAGE_SCENARIOS,
    Scenario(truth="decay of no effect", rows=_decay(0.0), wrong={DECAY: BOTH}),
    Scenario(truth="decay helps", rows=_decay(-3.0), false=(DECAY,)),
    Scenario(truth="beta2 of no effect", rows=BETA2, wrong={STEADY: BOTH, CHANGED: BOTH}),
    Scenario(truth="spikes with beta2 0.95", rows=BETA2, false=(STEADY, CHANGED), spiky=0.95),
    Scenario(
        truth="no effect of masking",
        rows=composition_panel(random=(0.0,) * 4, hard=(0.0,) * 4, easy=(0.0,) * 4),
        wrong={RANDOM: BOTH, HARD: BOTH, FLAT: BOTH} | dict.fromkeys(RISES, BOTH),
    ),
    Scenario(
        truth="easy negatives as bad as random ones, hard ones at a quarter of random's change",
        rows=composition_panel(
            random=(-10.0, 2.0, 3.0, 2.0), hard=(-2.5, 0.5, 0.75, 0.2), easy=(-10.0, 1.0, 1.0, 2.0)
        ),
        wrong={EASY: REPRODUCED, HARD: BOTH, FLAT: REPRODUCED},
    ),
    Scenario(
        truth="easy and random negatives lose a quarter",
        rows=composition_panel(
            random=_losing(0.25), hard=(-0.3, 0.5, 0.1, 0.2), easy=_losing(0.25)
        ),
        wrong={EASY: BOTH},
    ),
    Scenario(
        truth="masking does the opposite of what the paper shows",
        rows=composition_panel(
            random=(4.0, -2.0, -3.0, -2.0),
            hard=(-8.0, -2.0, 4.0, -2.0),
            easy=(9.0, -2.0, 0.0, -2.0),
        ),
        false=(RANDOM, EASY, HARD, FLAT, *RISES),
    ),
    Scenario(
        truth="hard negatives ahead by their longer training alone",
        rows=matched_pairs(6.0, 0.0),
        wrong={MATCHED: REPRODUCED},
    ),
    Scenario(
        truth="no effect of hard negatives or of training",
        rows=matched_pairs(0.0, 0.0),
        wrong={MATCHED: BOTH},
    ),
    Scenario(
        truth="hard negatives behind at equal examples",
        rows=matched_pairs(6.0, -5.0),
        false=(MATCHED,),
    ),
    Scenario(
        truth="a second start as good as the paper's",
        rows=_starts(40.0, 40.0, 30.0),
        wrong={START: REPRODUCED},
    ),
    Scenario(truth="no effect of the start", rows=_starts(40.0, 40.0, 40.0), wrong={START: BOTH}),
    Scenario(
        truth="another start three points ahead",
        rows=_starts(40.0, 43.0, 30.0),
        false=(START,),
    ),
    Scenario(
        truth="prior odds behind by the tolerance at one size, else ahead",
        rows=_prior(-TOLERANCE, 3.0, 3.0, 3.0),
        wrong={PRIOR: REPRODUCED},
    ),
    Scenario(
        truth="prior odds behind by the tolerance at every size",
        rows=_prior(*(-TOLERANCE,) * 4),
        wrong={PRIOR: BOTH},
    ),
    Scenario(truth="prior odds far behind", rows=_prior(*(-4.0,) * 4), false=(PRIOR,)),
    Scenario(
        truth="no lead, with or without corruption",
        rows=_corrupted(0.0, {0.2: 0.0, 0.4: 0.0}),
        wrong={CORRUPTED: BOTH, WHERE_LEVEL: BOTH},
    ),
    Scenario(
        truth="the lead grows with every corruption but one, which leaves it",
        rows=_corrupted(3.0, {0.2: 6.0, 0.4: 9.0}, text={0.2: 3.0, 0.4: 3.0}),
        wrong={CORRUPTED: REPRODUCED},
    ),
    Scenario(
        truth="the lead shrinks with corruption",
        rows=_corrupted(0.0, {0.2: -2.0, 0.4: -4.0}),
        false=(CORRUPTED, WHERE_LEVEL),
    ),
    Scenario(
        truth="corruption leaves the lead at every rate",
        rows=_rates(2.0, 2.0),
        wrong={BEST_RATE: BOTH},
    ),
    Scenario(
        truth="fixed corruption leaves the lead at every rate, redrawn raises it",
        rows=_rates(2.0, 8.0),
        wrong={BEST_RATE: REPRODUCED},
    ),
    Scenario(
        truth="corruption lowers the lead at every rate",
        rows=_rates(-3.0, -3.0),
        false=(BEST_RATE,),
    ),
    Scenario(
        truth="corruption moves the lead as much with more examples",
        rows=_data_sets(0.0),
        wrong={DISTINCT: BOTH},
    ),
    Scenario(
        truth="corruption moves the lead away from sigmoid with more examples",
        rows=_data_sets(-4.0),
        false=(DISTINCT,),
    ),
    Scenario(
        truth="corruption leaves the lead on scenes",
        rows=_two_ways(2.0, 2.0, 2.0, **ON_GLYPH_SCENES),
        wrong={ON_SCENES: BOTH},
        metric=RETRIEVAL,
    ),
    Scenario(
        truth="fixed corruption leaves the lead on scenes, redrawn raises it",
        rows=_two_ways(2.0, 2.0, 8.0, **ON_GLYPH_SCENES),
        wrong={ON_SCENES: REPRODUCED},
        metric=RETRIEVAL,
    ),
    Scenario(
        truth="corruption lowers the lead on scenes",
        rows=_two_ways(2.0, -3.0, -3.0, **ON_GLYPH_SCENES),
        false=(ON_SCENES,),
        metric=RETRIEVAL,
    ),
    *PAIR_SCENARIOS,
    Scenario(
        truth="every rule loses what counts as little everywhere",
        rows=scaling_rules({16: rules.LITTLE, 1024: rules.LITTLE}),
        wrong=dict.fromkeys(RULES, BOTH),
    ),
    Scenario(
        truth="every rule loses what counts as little at one batch size, nothing at another",
        rows=scaling_rules({16: 0.0, 1024: rules.LITTLE}),
        wrong=dict.fromkeys(RULES, REPRODUCED),
    ),
    Scenario(
        truth="every rule loses by far at larger batch sizes",
        rows=scaling_rules({16: 0.0, 1024: 4 * rules.LITTLE}),
        false=RULES,
    ),
)
