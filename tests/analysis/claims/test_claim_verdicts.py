"""Every claim is reproduced, contradicted and undecided on records made to be so."""

import json
import math

import numpy as np
import pytest

from analysis.claims import CLAIMS, format_verdicts, judge, judge_study, to_json
from analysis.claims.batch import BatchData, too_large_hurts
from analysis.errors import AnalysisError
from analysis.records.frame import cells
from analysis.select.panels import TOP1
from analysis.stats.intervals import pooled_means
from study.config.cell import Model, TextTransformer, ViT

SIZES = (16, 64, 256, 1024, 4096)
RATIOS = (128.0, 32.0, 8.0)
SCRATCH = Model(image=ViT(), text=TextTransformer(), embed_dim=32)

RISING_THEN_FALLING = dict(zip(SIZES, (34.0, 40.0, 44.0, 44.2, 41.0), strict=True))
STEADILY_RISING = dict(zip(SIZES, (20.0, 26.0, 32.0, 38.0, 44.0), strict=True))
FLAT = dict.fromkeys(SIZES, 30.0)


def minus(quality, gaps):
    return {size: quality[size] - gap for size, gap in zip(SIZES, gaps, strict=True)}


def composed(**slopes):
    """(quality, bias, positive and negative logits) that move by `slopes` per tenfold fewer."""
    truth = {(None, None): (30.0, -10.0, 0.0, -10.0)}
    for keep, slope in slopes.items():
        for ratio in RATIOS:
            decades = math.log10(511 / ratio)
            start = truth[(None, None)]
            truth[(keep, ratio)] = tuple(a + s * decades for a, s in zip(start, slope, strict=True))
    return truth


AS_IN_THE_PAPER = composed(
    random=(-8.0, 2.0, 3.0, 2.0), hard=(-0.3, 0.5, 0.1, 0.2), easy=(-20.0, 1.0, 1.0, 2.0)
)
OPPOSITE = composed(
    random=(4.0, -2.0, -3.0, -2.0), hard=(-8.0, -2.0, 4.0, -2.0), easy=(9.0, -2.0, 0.0, -2.0)
)
NOTHING = composed(random=(0.0,) * 4, hard=(0.0,) * 4, easy=(0.0,) * 4)


def found(writer):
    return {one.name: one for one in judge_study(writer.root, writer.study)}


def kinds(writer, names=None):
    return {n: v.verdict for n, v in found(writer).items() if names is None or n in names}


BATCH = (
    "sigmoid ahead at small batch",
    "gap closes with batch",
    "losses level at large batch",
    "quality saturates",
    "too large a batch hurts",
)
COMPOSITION = (
    "dropping random negatives hurts",
    "easy negatives alone fail",
    "hard negatives nearly keep quality",
    "bias rises as negatives fall",
    "positive logits rise",
    "negative logits rise",
    "hard: positive logits flat",
)
FROM_SCRATCH = "from scratch: sigmoid ahead"
NAMES = (*BATCH, *COMPOSITION, FROM_SCRATCH)


def test_all_claims_are_reproduced_on_records_like_the_paper(writer):
    writer.batch_panel(RISING_THEN_FALLING, minus(RISING_THEN_FALLING, (5, 4, 2, 0.5, 0)), sd=0.1)
    writer.composition_panel(AS_IN_THE_PAPER, sd=0.1)
    writer.batch_panel({16: 12.0}, {16: 9.0}, sd=0.1, seeds=3, model=SCRATCH)
    assert set(kinds(writer, NAMES).values()) == {"reproduced"}


def test_all_claims_are_contradicted_on_the_opposite(writer):
    writer.batch_panel(STEADILY_RISING, minus(STEADILY_RISING, (-5, -2, 0, 2, 5)), sd=0.1)
    writer.composition_panel(OPPOSITE, sd=0.1)
    writer.batch_panel({16: 9.0}, {16: 12.0}, sd=0.1, seeds=3, model=SCRATCH)
    assert set(kinds(writer, NAMES).values()) == {"contradicted"}


def test_all_claims_are_undecided_on_noise(writer):
    """No effect and much noise: each claim is decided in about one of twenty draws, not more."""
    writer.batch_panel(FLAT, FLAT)
    writer.composition_panel(NOTHING)
    writer.batch_panel({16: 9.0}, {16: 9.0}, seeds=3, model=SCRATCH)
    frame = cells(writer.root, writer.study)
    rng, draws = np.random.default_rng(0), 20
    undecided = dict.fromkeys(NAMES, 0)
    for _ in range(draws):
        for column in (TOP1, "train/b", "train/pos_logit_mean", "train/neg_logit_mean"):
            frame[column] = 30.0 + 12.0 * rng.standard_normal(len(frame))
        for one in judge(frame, claims=[one for one in CLAIMS if one.name in NAMES]):
            undecided[one.name] += one.verdict == "undecided"
    assert min(undecided.values()) >= 0.8 * draws, undecided


def test_no_claim_is_decided_by_one_seed(writer):
    writer.batch_panel(RISING_THEN_FALLING, minus(RISING_THEN_FALLING, (5, 4, 2, 0.5, 0)), seeds=1)
    writer.composition_panel(AS_IN_THE_PAPER, seeds=1)
    shown = found(writer)
    assert {shown[name].verdict for name in (*BATCH, *COMPOSITION)} == {"undecided"}
    assert "no interval" in shown["gap closes with batch"].sentence
    assert math.isnan(shown["gap closes with batch"].low)


def test_no_cells_is_no_data_and_says_what_is_needed(writer):
    writer.failed(writer.cell(16))
    shown = found(writer)
    assert {one.verdict for one in shown.values()} == {"no data"}
    assert all(one.sentence.endswith(".") and one.cells == 0 for one in shown.values())


def test_diverged_and_failed_cells_enter_no_estimate(writer):
    writer.batch_panel(RISING_THEN_FALLING, minus(RISING_THEN_FALLING, (5, 4, 2, 0.5, 0)), sd=0.1)
    before = found(writer)
    writer.done(writer.cell(16, "sigmoid", 7), 0.0, status="diverged")
    writer.done(writer.cell(16, "softmax", 7), 99.0)  # unpaired, so in no difference either
    writer.failed(writer.cell(4096, "sigmoid", 7))
    assert found(writer)["sigmoid ahead at small batch"] == before["sigmoid ahead at small batch"]


def test_estimates_and_counts_are_those_of_the_records(writer):
    gaps = dict(zip(SIZES, (5.0, 4.0, 2.0, 0.5, -1.0), strict=True))
    writer.batch_panel(FLAT, minus(FLAT, gaps.values()), sd=0.0)
    shown = found(writer)
    small = shown["sigmoid ahead at small batch"]
    assert (small.estimate, small.cells, small.unit) == (pytest.approx(5.0), 4, "points")
    assert "B = 16 " in small.sentence
    assert shown["gap closes with batch"].estimate == pytest.approx(6.0)
    assert shown["gap closes with batch"].cells == 8


def test_a_level_gap_must_be_shown_not_merely_unseen(writer):
    """A wide interval round zero is undecided, a narrow one reproduced, one beyond contradicted."""
    name = "losses level at large batch"
    shown = []
    for sd, gap in ((6.0, 0.0), (0.05, 0.0), (0.05, 3.0)):
        for folder in (writer.root / writer.study).iterdir():
            folder.rename(writer.root / f"old-{folder.name}-{sd}-{gap}")
        writer.batch_panel(FLAT, minus(FLAT, (gap,) * 5), sd=sd)
        shown.append(kinds(writer)[name])
    assert shown == ["undecided", "reproduced", "contradicted"]


def test_the_saturation_batch_has_an_interval_that_holds_it(writer):
    writer.batch_panel(RISING_THEN_FALLING, {}, sd=0.1)
    batch = found(writer)["quality saturates"]
    assert batch.low <= batch.estimate == 256 <= batch.high < 4096


def test_the_best_of_equal_batches_is_not_taken_for_an_effect():
    """With no effect at all, a false "hurts" must stay rare although the best is picked."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        groups = {("sigmoid", size): rng.standard_normal(2) for size in SIZES}
        data = BatchData(quality=pooled_means(groups), differences=pooled_means({}))
        wrong += too_large_hurts(data).verdict == "reproduced"
    assert wrong / 400 < 0.06


def test_the_papers_own_numbers_stand_beside_ours(writer):
    writer.batch_panel(RISING_THEN_FALLING, minus(RISING_THEN_FALLING, (5, 4, 2, 0.5, 0)))
    shown = found(writer)
    # Table 8 at 18B examples: 82.2 - 81.2 and 83.0 - 82.0 at 2k and 4k; 0.1 at 128k and 256k.
    assert shown["sigmoid ahead at small batch"].paper == pytest.approx(1.0)
    assert shown["gap closes with batch"].paper == pytest.approx(0.9)
    assert shown["quality saturates"].paper == 16_384  # 84.2 there, 84.7 at most
    assert shown["from scratch: sigmoid ahead"].paper == pytest.approx(1.5)
    assert math.isnan(shown["hard negatives nearly keep quality"].paper)


def test_another_metric_can_be_asked_for(writer):
    writer.batch_panel(RISING_THEN_FALLING, FLAT)
    assert {v.verdict for v in judge(cells(writer.root, writer.study), metric="no/such")} == {
        "no data"
    }


def test_the_table_fits_a_terminal_and_json_has_no_nan(writer):
    writer.batch_panel(RISING_THEN_FALLING, minus(RISING_THEN_FALLING, (5, 4, 2, 0.5, 0)))
    writer.composition_panel(AS_IN_THE_PAPER)
    shown = judge_study(writer.root, writer.study)
    text = format_verdicts(shown)
    assert max(map(len, text.splitlines())) <= 110
    assert all(one.name in text and one.verdict in text for one in shown)
    values = json.loads(to_json(shown), parse_constant=pytest.fail)
    assert [value["name"] for value in values] == [claim.name for claim in CLAIMS]


def test_a_study_that_shares_its_records_is_judged_on_its_own_cells(writer):
    writer.batch_panel(RISING_THEN_FALLING, FLAT)
    every = cells(writer.root, writer.study)
    own = every[every["batch_size"] <= every["batch_size"].median()]
    plans = [{"id": name} for name in own["id"]]
    found = judge_study(writer.root, "mine", planned=plans, records=writer.study)
    assert to_json(found) == to_json(judge(own.reset_index(drop=True)))
    assert to_json(found) != to_json(judge(every))


def test_a_missing_study_is_one_line(writer):
    with pytest.raises(AnalysisError, match="no study 'nope'"):
        judge_study(writer.root, "nope")
