"""Claims about many languages, on made frames."""

import pytest

from analysis.claims.language_truths import temperatures
from analysis.claims.made_cells import SOFTMAX, batch_panel, recall_of
from analysis.select import multilingual
from analysis.select.fields import usual_quality
from tests.analysis.claims.frames import frame, verdict, verdicts

NO_GAIN, HURTS = "languages gain nothing past 32k", "languages: too large hurts"
SOME, MORE, COST = "languages: some lose", "languages: English keeps more", "languages cost English"
ENGLISH = "eval/zero_shot/test_artist/top1"
MEAN = recall_of("")


def by_size(recalls, *, examples=1e7, **fields):
    """Cells by batch size, of which `recalls` gives recall by language; "" is the mean."""
    return [
        {"batch_size": size, "examples": examples, **fields}
        | {recall_of(name): value for name, value in languages.items()}
        for size, languages in recalls.items()
    ]


@pytest.mark.parametrize(
    ("sizes", "recalls", "expected"),
    [
        # A quarter of the way up a grid of four is its smallest size.
        ((16, 64, 256, 1024), (30.0, 34.0, 34.1, 33.0), ("contradicted", "Beyond B = 16")),
        ((16_384, 32_768, 65_536), (34.8, 34.9, 34.4), ("reproduced", "the paper's 32k")),
        ((16_384, 32_768, 65_536), (30.0, 34.0, 38.0), ("contradicted", "the paper's 32k")),
    ],
)
def test_languages_gain_nothing_past_the_papers_32k_or_the_grids_own(sizes, recalls, expected):
    rows = batch_panel(dict(zip(sizes, recalls, strict=True)), examples=1e9)
    recall = "eval/multilingual_retrieval/xm3600/test/text_to_image_r1"
    found = verdict(NO_GAIN, frame(rows, metric=recall))
    assert found.verdict == expected[0] and expected[1] in found.sentence


def test_batches_with_few_steps_decide_nothing():
    """A fall at 64 steps is one of short training."""
    recalls = {64: 18.0, 256: 21.0, 1024: 22.0, 4096: 20.0, 16_384: 9.0}
    rows = {size: {"": value, "en": value, "de": value} for size, value in recalls.items()}
    short = verdicts(frame(by_size(rows, examples=2**20)), {HURTS, SOME, MORE, NO_GAIN})
    assert short[HURTS].verdict == "undecided" and short[HURTS].withheld
    for found in short.values():
        assert "B = 4096 (256 steps), 16384 (64 steps) left out" in found.sentence
        assert "16384" not in {cell.split("-")[0] for cell in found.evidence}
    long = verdict(HURTS, frame(by_size(rows)))
    assert long.verdict == "reproduced" and long.estimate == pytest.approx(13.0, abs=0.3)


def test_the_languages_that_lose_are_named_and_only_those():
    small = {"de": 30.0, "en": 40.0, "hi": 9.0, "zh": 30.0}
    large = small | {"en": 41.0, "hi": 7.0, "zh": 24.0}
    found = verdict(SOME, frame(by_size({64: small | {"": 27.0}, 512: large | {"": 25.5}})))
    assert found.verdict == "reproduced" and "in 2 of 4 languages (hi, zh)" in found.sentence
    assert "rises by more than that in 0" in found.sentence  # 1.0 in English
    assert "falls most in zh, by" in found.sentence
    assert found.estimate == pytest.approx(6.0, abs=0.3)
    keeps = verdict(MORE, frame(by_size({64: small | {"": 27.0}, 512: large | {"": 25.5}})))
    assert keeps.estimate == pytest.approx(1.0 + 1.5, abs=0.3)


def test_nothing_is_said_of_languages_beyond_the_best_batch_while_their_mean_rises():
    small, large = {"en": 20.0, "zh": 30.0, "": 25.0}, {"en": 40.0, "zh": 26.0, "": 33.0}
    found = verdicts(frame(by_size({64: small, 512: large})), {SOME, MORE})
    for one in found.values():
        assert one.withheld and "still rises by 8." in one.sentence


def test_english_alone_is_compared_at_equal_batches_and_is_in_no_other_panel():
    mixes = {"train": 27.0, "train_en": 45.0, "train_web": 40.0}
    rows = [
        row
        for split, english in mixes.items()
        for row in by_size(
            {64: {"en": english, "": 20.0}, 512: {"en": english + 1, "": 21.0}},
            **{"data.split": split},
        )
    ]
    cells = frame([*rows, *by_size({8: {"en": 9.0, "": 5.0}}, **{"data.split": "train"})])
    found = verdict(COST, cells)
    assert found.verdict == "reproduced" and found.estimate == pytest.approx(18.0, abs=0.3)
    assert "by their share of the web they cost +" in found.sentence
    assert "B = 64 and 512" in found.sentence and found.cells == 2 * 2 * 3
    assert set(multilingual.by_batch_size(cells).cells["data.split"]) == {"train"}
    assert verdict(COST, cells[cells["data.split"] != "train_en"]).verdict == "no data"


def test_losses_are_compared_in_many_languages_where_no_cells_in_english_compare_them():
    sizes = (64, 256, 1024)
    rows = by_size({size: {"": 20.0} for size in sizes}, **{ENGLISH: 30.0})
    both = [*rows, *(row | SOFTMAX | {ENGLISH: 28.0} for row in rows)]
    assert usual_quality(frame(both)) == ENGLISH
    in_english = [{"batch_size": size, "examples": 1e7, ENGLISH: 60.0} for size in sizes]
    for cells in (both, [*both, *in_english]):
        ahead = verdict("sigmoid ahead at small batch", frame(cells), metric=ENGLISH)
        assert ahead.estimate == pytest.approx(2.0, abs=0.3)
    alone = verdict("quality saturates", frame(rows), metric=ENGLISH)
    assert alone.verdict == "no data"  # as the paper's mSigLIP, which is sigmoid alone


def test_the_bottleneck_is_the_papers_eighth_and_the_vocabularies_eight_times_apart():
    ranks = {None: 40.0, 6: 30.0, 12: 39.5, 24: 39.9}
    rows = [
        {"model.text.bottleneck": rank, "model.text.width": 96, "quality": quality}
        for rank, quality in ranks.items()
    ]
    found = verdict("bottleneck costs little", frame(rows))
    assert found.verdict == "reproduced" and "of rank 12 costs" in found.sentence
    assert found.estimate == pytest.approx(0.5, abs=0.3)
    pieces = {None: 33.0, "pieces-2000.model": 20.0, "pieces-4000.model": 30.0}
    pieces["pieces-32000.model"] = 31.2
    rows = [{"data.tokenizer": name, "quality": quality} for name, quality in pieces.items()]
    found = verdict("larger vocabulary helps", frame(rows, metric=MEAN))
    assert found.verdict == "reproduced" and found.estimate == pytest.approx(1.2, abs=0.3)
    assert "32,000 pieces instead of 4,000" in found.sentence


@pytest.mark.parametrize(
    ("gains", "expected"),
    [((4.0, 3.0), "reproduced"), ((-3.0, 3.0), "contradicted"), ((0.0, 3.0), "undecided")],
)
def test_a_fixed_temperature_must_help_both_losses(gains, expected):
    rows = temperatures(sigmoid=gains[0], softmax=gains[1])
    found = verdict("a fixed temperature helps", frame(rows, metric=MEAN))
    assert (found.verdict, found.cells) == (expected, 24)
    estimates = {part.name: part.estimate for part in found.conditions}
    assert estimates == pytest.approx(
        {"sigmoid, made": gains[0], "softmax, made": gains[1]}, abs=0.4
    )
    assert "t fixed at 16 instead of learned" in found.sentence
    assert "vocabularies of 4,000, 32,000 pieces" in found.sentence
