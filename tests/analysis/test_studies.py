"""A study's frames by its name alone, and figures and tables from it."""

import pandas as pd
import pytest

import analysis
from analysis.claims import OURS, Claim, conclude, judge
from analysis.stats.intervals import by_group, group_means


@pytest.fixture
def root(writer):
    writer.batch_panel({16: 34.0, 64: 40.0}, {16: 30.0, 64: 38.0})
    return str(writer.root)


def test_frames_and_figures_need_the_name_of_a_study_alone(writer, root):
    inputs = analysis.figures.read_inputs(root, writer.study)
    cells = analysis.cells(writer.study, root)
    pd.testing.assert_frame_equal(cells, analysis.frame.cells(root, writer.study))
    pd.testing.assert_frame_equal(analysis.cells(inputs), inputs.cells)
    rows = analysis.rows(writer.study, root)
    assert set(rows["id"]) == set(cells["id"])
    verdicts = analysis.verdicts(writer.study, root)
    assert list(verdicts.index) == [claim.name for claim in analysis.claims.CLAIMS]
    by_name = analysis.figures.batch_size(writer.study, root)
    assert [axes.get_ylabel() for axes in by_name.axes] == [
        axes.get_ylabel() for axes in analysis.figures.batch_size(inputs).axes
    ]


def test_a_claim_of_the_readers_own_is_judged_as_the_others_are(writer, root):
    cells = analysis.cells(writer.study, root)
    metric = "eval/zero_shot/test_font/top1"
    means = group_means(by_group(cells, ["loss.kind", "batch_size"], metric))
    lead = means.contrast({("sigmoid", 16): 1.0, ("softmax", 16): -1.0})
    claim = Claim(
        name="own",
        sentence="Sigmoid leads at B = 16.",
        section=OURS,
        needs="both losses at B = 16",
        test=lambda evidence: conclude(lead, means, f"The lead is {lead} points"),
    )
    (verdict,) = judge(cells, claims=[claim])
    own = cells.query("batch_size == 16").groupby("loss.kind")[metric].mean()
    assert verdict.estimate == pytest.approx(own["sigmoid"] - own["softmax"])
    assert verdict.p == verdict.adjusted_p == pytest.approx(lead.p_value())
