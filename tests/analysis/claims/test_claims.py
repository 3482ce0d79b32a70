"""Every claim is reproduced, contradicted and undecided on cells made to be so."""

import json
import math

import pytest

from analysis.claims import CLAIMS, Evidence, format_verdicts, judge, judge_study, to_frame, to_json
from analysis.errors import AnalysisError
from analysis.records.frame import cells
from tests.analysis.claims.frames import SCRATCH, batch_panel, composition_panel, frame, verdicts
from tests.analysis.claims.test_batch_claims import (
    AHEAD,
    CLOSES,
    CLOSING,
    HURTS,
    PEAKED,
    SIZES,
)

BATCH = (AHEAD, CLOSES, "losses level at large batch", "quality saturates", HURTS)
COMPOSITION = (
    "dropping random negatives hurts",
    "easy negatives alone fail",
    "hard negatives nearly keep quality",
    "bias rises as negatives fall",
    "positive logits rise",
    "negative logits rise",
    "hard: positive logits flat",
)
NAMES = (*BATCH, *COMPOSITION, "from scratch: sigmoid ahead")

PAPER = [
    *batch_panel(PEAKED, CLOSING),
    *composition_panel(
        random=(-8.0, 2.0, 3.0, 2.0), hard=(-0.3, 0.5, 0.1, 0.2), easy=(-20.0, 1.0, 1.0, 2.0)
    ),
    *batch_panel({16: 12.0}, (3.0,), **SCRATCH),
]
OPPOSITE = [
    *batch_panel(dict(zip(SIZES, (20, 26, 32, 38, 44), strict=True)), (-5, -2, 0, 2, 5)),
    *composition_panel(
        random=(4.0, -2.0, -3.0, -2.0), hard=(-8.0, -2.0, 4.0, -2.0), easy=(9.0, -2.0, 0.0, -2.0)
    ),
    *batch_panel({16: 9.0}, (-3.0,), **SCRATCH),
]


@pytest.mark.parametrize(("rows", "expected"), [(PAPER, "reproduced"), (OPPOSITE, "contradicted")])
def test_claims_are_reproduced_on_cells_like_the_papers_and_contradicted_on_the_opposite(
    rows, expected
):
    found = verdicts(frame(rows), NAMES)
    if expected == "contradicted":  # quality rises to the last size: none is too large
        assert found.pop(HURTS).verdict == "undecided"
    assert {one.verdict for one in found.values()} == {expected}, found


def test_no_claim_is_decided_by_one_seed():
    found = verdicts(frame(PAPER, seeds=1), NAMES)
    assert {one.verdict for one in found.values()} == {"undecided"}
    assert "no interval" in found[CLOSES].sentence and math.isnan(found[CLOSES].low)


def test_without_cells_a_claim_names_those_it_needs():
    failed = judge(frame([{"quality": 1.0, "status": "failed"}]))
    for one in (*failed, *judge(frame(batch_panel(PEAKED, CLOSING)), metric="no/such")):
        assert (one.verdict, one.cells) == ("no data", 0)
        assert one.sentence.endswith(".") and one.decide


def test_curves_are_read_only_for_claims_that_need_them():
    def read_rows():
        raise AssertionError("no cell varies beta2")

    evidence = Evidence(cells=frame(PAPER), read_rows=read_rows)
    assert all(claim.judge(evidence).verdict for claim in CLAIMS)


def test_the_papers_own_numbers_stand_next_to_ours():
    found = verdicts(frame(PAPER))
    # Table 8 at 18B examples: 82.2 - 81.2 and 83.0 - 82.0 at 2k and 4k; 0.1 at 128k and 256k.
    assert found[AHEAD].paper == pytest.approx(1.0)
    assert found[CLOSES].paper == pytest.approx(0.9)
    assert found["quality saturates"].paper == 16_384  # 84.2 there, 84.7 at most
    assert found["from scratch: sigmoid ahead"].paper == pytest.approx(1.5)
    assert math.isnan(found["hard negatives nearly keep quality"].paper)


def test_text_fits_a_terminal_and_frame_and_json_hold_every_claim():
    found = judge(frame(PAPER))
    text = format_verdicts(found)
    assert max(map(len, text.splitlines())) <= 110
    assert all(one.name in text and one.verdict in text for one in found)
    names = [claim.name for claim in CLAIMS]
    values = json.loads(to_json(found), parse_constant=pytest.fail)
    assert [value["name"] for value in values] == names
    table = to_frame(found)
    assert table.index.tolist() == names
    assert table.loc[AHEAD, "verdict"] == "reproduced"
    assert table.loc[AHEAD, "estimate"] == found[0].estimate


def test_records_are_judged_as_their_frame_and_shared_ones_by_the_studys_own_cells(writer):
    writer.batch_panel(PEAKED, dict.fromkeys(SIZES, 30.0))
    every = cells(writer.root, writer.study)
    found = judge_study(writer.root, writer.study)
    assert to_json(found) == to_json(judge(every))
    assert found[0].verdict == "reproduced"
    own = every[every["batch_size"] <= every["batch_size"].median()]
    plans = [{"id": name} for name in own["id"]]
    shared = judge_study(writer.root, "mine", planned=plans, records=writer.study)
    assert to_json(shared) == to_json(judge(own.reset_index(drop=True))) != to_json(found)
    with pytest.raises(AnalysisError, match="no study 'nope'"):
        judge_study(writer.root, "nope")
