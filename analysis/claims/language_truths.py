"""Truths on which the claims on many languages are tested, see `analysis.claims.null_studies`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.claims.claim import TOLERANCE
from analysis.claims.made_cells import SOFTMAX, Row, batch_panel, recall_of
from analysis.claims.scenario import BOTH, CONTRADICTED, REPRODUCED, Scenario

SIZES = (16, 64, 256, 1024, 4096)
MEAN = recall_of("")
LANGUAGES, LANGUAGES_HURT = "languages gain nothing past 32k", "languages: too large hurts"
ENGLISH_STAYS, SOME_LOSE = "languages: English zero-shot stays", "languages: some lose"
KEEPS_MORE, COST = "languages: English keeps more", "languages cost English"
BOTTLED, VOCABULARY = "bottleneck costs little", "larger vocabulary helps"
FIXED_HELPS = "a fixed temperature helps"


def _languages(gains: Sequence[float]) -> list[Row]:
    qualities = dict(zip(SIZES, (30.0, *(30.0 + gain for gain in gains)), strict=False))
    return batch_panel(qualities)


def _recalls(changes: Mapping[str, float], mean: float = 0.0) -> list[Row]:
    """Recall by language that changes by this much from the smallest to the largest batch."""
    falls = {**changes, "": mean}
    recalls = {recall_of(name): change for name, change in falls.items()}
    return [
        {"batch_size": size, "quality": 40.0, "examples": 1e7}
        | {name: 30.0 + change * (i == len(SIZES) - 1) for name, change in recalls.items()}
        for i, size in enumerate(SIZES)
    ]


def _mixes(cost: float) -> list[Row]:
    rows: list[Row] = [
        {"batch_size": size, "examples": 1e7, "data.split": split, recall_of(""): 30.0}
        | {recall_of("en"): 30.0 + cost * (split == "train_en"), "quality": 40.0}
        for size in (64, 256)
        for split in ("train", "train_en")
    ]
    return rows


def _bottleneck(cost: float) -> list[Row]:
    return [{"model.text.bottleneck": k, "quality": 40.0 - (cost if k else 0)} for k in (None, 12)]


def _vocabularies(gain: float) -> list[Row]:
    quality = {"pieces-4000.model": 30.0, "pieces-32000.model": 30.0 + gain}
    return [{"data.tokenizer": name, "quality": q} for name, q in quality.items()]


def temperatures(*, sigmoid: float, softmax: float) -> list[Row]:
    """Cells with two vocabularies, with t learned and with t fixed, which gains these points."""
    return [
        (SOFTMAX if loss == "softmax" else {})
        | {"data.tokenizer": f"pieces-{pieces}.model", "loss.t_init": 16.0 if fixed else 10.0}
        | {"model.text.width": 96, "parameters": 96 * pieces}
        | {"optimizer.loss_scalars.frozen": fixed, "quality": 30.0 + gain * fixed}
        for loss, gain in (("sigmoid", sigmoid), ("softmax", softmax))
        for pieces in (4000, 32_000)
        for fixed in (False, True)
    ]


LANGUAGE_SCENARIOS = (
    Scenario(
        truth="a fixed temperature is as good as a learned one",
        rows=temperatures(sigmoid=0.0, softmax=0.0),
        wrong={FIXED_HELPS: BOTH},
        metric=MEAN,
    ),
    Scenario(
        truth="a fixed temperature helps one loss",
        rows=temperatures(sigmoid=0.0, softmax=4.0),
        wrong={FIXED_HELPS: REPRODUCED},
        metric=MEAN,
    ),
    Scenario(
        truth="a fixed temperature is worse",
        rows=temperatures(sigmoid=-3.0, softmax=-3.0),
        false=(FIXED_HELPS,),
        metric=MEAN,
    ),
    Scenario(
        truth="every larger batch gains the tolerance in recall",
        rows=_languages((TOLERANCE,) * 3),
        wrong={LANGUAGES: BOTH},
        metric=MEAN,
    ),
    Scenario(
        truth="one larger batch gains the tolerance in recall, the others lose",
        rows=_languages((TOLERANCE, -3.0, -4.0)),
        wrong={LANGUAGES: REPRODUCED},
        metric=MEAN,
    ),
    Scenario(
        truth="recall rises with every batch size",
        rows=_languages((3.0, 6.0, 9.0)),
        false=(LANGUAGES,),
        metric=MEAN,
    ),
    Scenario(
        truth="the largest batch as good as the best smaller one in recall",
        rows=batch_panel(dict(zip(SIZES, (20.0, 26.0, 33.0, 40.0, 40.0), strict=True))),
        wrong={LANGUAGES_HURT: REPRODUCED},
        metric=MEAN,
    ),
    Scenario(
        truth="the largest batch loses a quarter of the rise of recall",
        rows=batch_panel(dict(zip(SIZES, (20.0, 30.0, 40.0, 40.0, 35.0), strict=True))),
        wrong={LANGUAGES_HURT: CONTRADICTED},
        metric=MEAN,
    ),
    Scenario(
        truth="recall level from the middle batch size on",
        rows=batch_panel(dict(zip(SIZES, (20.0, 30.0, 40.0, 40.0, 40.0), strict=True))),
        false=(LANGUAGES_HURT,),
        metric=MEAN,
    ),
    Scenario(
        truth="zero-shot gains the tolerance at every larger batch",
        rows=[row | {MEAN: 30.0} for row in _languages((TOLERANCE,) * 3)],
        wrong={ENGLISH_STAYS: BOTH},
    ),
    Scenario(
        truth="zero-shot rises with every batch size",
        rows=[row | {MEAN: 30.0} for row in _languages((3.0, 6.0, 9.0))],
        false=(ENGLISH_STAYS,),
    ),
    Scenario(
        truth="every language loses the tolerance with the batch",
        rows=_recalls(dict.fromkeys(("de", "en", "hi", "zh"), -TOLERANCE), -TOLERANCE),
        wrong={SOME_LOSE: REPRODUCED, KEEPS_MORE: BOTH},
    ),
    Scenario(
        truth="one language loses the tolerance, the others gain",
        rows=_recalls({"de": 1.5, "en": 1.5, "hi": 1.5, "zh": -TOLERANCE}, 0.875),
        wrong={SOME_LOSE: BOTH},
    ),
    Scenario(
        truth="English loses, the others gain",
        rows=_recalls({"de": 1.0, "en": -3.0, "hi": 1.0, "zh": 1.0}),
        false=(KEEPS_MORE,),
    ),
    Scenario(
        truth="both languages gain 0.7 points",
        rows=_recalls(dict.fromkeys(("en", "zh"), 0.7), 0.7),
        false=(SOME_LOSE,),
    ),
    Scenario(truth="other languages cost English nothing", rows=_mixes(0.0), wrong={COST: BOTH}),
    Scenario(truth="other languages help English", rows=_mixes(-4.0), false=(COST,)),
    Scenario(
        truth="a bottleneck costs the tolerance",
        rows=_bottleneck(TOLERANCE),
        wrong={BOTTLED: BOTH},
    ),
    Scenario(truth="a bottleneck costs much", rows=_bottleneck(5.0), false=(BOTTLED,)),
    Scenario(
        truth="vocabularies level", rows=_vocabularies(0.0), wrong={VOCABULARY: BOTH}, metric=MEAN
    ),
    Scenario(
        truth="a larger vocabulary hurts",
        rows=_vocabularies(-4.0),
        false=(VOCABULARY,),
        metric=MEAN,
    ),
)
