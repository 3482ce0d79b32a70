"""`study claims` and `study advise`: on a study, or on the paper's numbers, never on both."""

import json
from pathlib import Path

import pytest

from analysis.claims import CLAIMS, Verdict
from analysis.errors import AnalysisError
from sweeps.cli.advise import advise
from sweeps.cli.claims import claims
from sweeps.cli.figures import figures
from sweeps.cli.report import _summarise
from sweeps.study import StudyError


def test_the_papers_numbers_as_json_and_as_text(capsys):
    assert claims(None, "nowhere", metric=None, paper=True, as_json=True) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [one["name"] for one in said["verdicts"]] == [claim.name for claim in CLAIMS]
    assert {check["agrees"] for check in said["checks"]} == {True, False}
    assert claims(None, "nowhere", metric=None, paper=True, as_json=False) == 0
    text = capsys.readouterr().out
    assert "DISAGREE  the best batch size of SigLiT" in text
    assert max(map(len, text.splitlines())) <= 110


def test_claims_without_cells_are_one_line_unless_verbose(capsys):
    """And --only leaves cells out as it does for a run."""
    options = {"root": "results/glyphs/records", "metric": None, "paper": False, "as_json": False}
    assert claims("demo", **options, only=["batch_size=512"]) == 0
    short = capsys.readouterr().out
    assert "B = 512" in short and "4096" not in short and "no data" not in short
    assert short.splitlines()[-1].startswith("no cells for ")
    assert claims("demo", **options, only=["batch_size=512"], verbose=True) == 0
    assert "no data" in capsys.readouterr().out
    with pytest.raises(StudyError, match="--only batch_size=3 matches no cell"):
        claims("demo", **options, only=["batch_size=3"])


def test_recorded_cells_that_the_grid_does_not_list_are_one_line(capsys, tmp_path):
    """On standard error, so that JSON stays JSON. What --only leaves out is no news."""
    options = {"root": "results/glyphs/records", "settings": ["optimizer.b2=0.9"]}
    recorded = len(list(Path("results/glyphs/records/demo").iterdir()))
    for only, lines in ((None, 1), (["batch_size=512"], 0)):
        claims("demo", **options, only=only, metric=None, paper=False, as_json=True)
        figures(["demo"], **options, only=only, figure=["fig_6"], out=str(tmp_path), as_json=True)
        out, err = capsys.readouterr()
        assert (
            err.count(f"study: {recorded} recorded cells that the grid does not list") == 2 * lines
        )
        assert len(err.splitlines()) == 2 * lines
        assert "recorded cells" not in out


def test_a_metric_that_no_cell_has_is_an_error():
    options = {"root": "results/glyphs/records", "metric": "eval/zero_shot/test_fnt/top1"}
    with pytest.raises(AnalysisError, match=r"ended with .*test_fnt.*; metrics .*test_font/top1"):
        claims("demo", **options, paper=False, as_json=False)
    with pytest.raises(AnalysisError, match="no cell of demo has ended with"):
        figures(["demo"], **options, out="never-written")


@pytest.mark.parametrize(
    ("study", "paper", "metric"), [(None, False, None), ("demo", True, None), (None, True, "key")]
)
def test_what_cannot_be_asked_for_together_is_one_line(study, paper, metric):
    with pytest.raises(StudyError) as error:
        claims(study, "runs", metric=metric, paper=paper, as_json=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"study": "demo", "paper": "table-8"}, "not both"),
        ({"metric": "eval/zero_shot/val_font/top1"}, "--metric needs --study"),
    ],
)
def test_advice_is_from_a_study_or_from_the_paper(options, message):
    with pytest.raises(StudyError, match=message):
        advise(3e9, **{"study": None, "paper": None, "metric": None, "root": "runs", **options})


def test_advice_from_the_paper_as_json(capsys):
    assert advise(3e9, None, "table-5", metric=None, as_json=True) == 0
    content = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert content["held_out"] is None  # of two budgets
    assert content["optimum"]["enough"]["identified"]
    assert 8192 <= content["batch"] <= 32_768


def test_a_report_ends_with_a_dozen_lines_of_what_was_found():
    """Of each section a contradicted claim first, else the surest; without its scope."""

    def verdict(name, section, kind, p, sentence="It is +1 [0, 2] (9 examples; 95 % intervals)."):
        return Verdict(name=name, section=section, verdict=kind, adjusted_p=p, sentence=sentence)

    lines = _summarise(
        [
            verdict("sure", "4.1", "reproduced", 0.001),
            verdict("surprise", "4.1", "contradicted", 0.04),
            verdict("open", "4.2", "undecided", 0.3),
            verdict("long", "4.8", "reproduced", 0.01, "many words " * 200),
            verdict("own", "ours", "reproduced", 0.001),
        ]
    )
    assert lines[:2] == [
        "claims of the paper: 2 reproduced, 1 contradicted, 1 undecided",
        "- contradicted: surprise. It is +1 [0, 2].",
    ]
    assert lines[2].startswith("- reproduced: long. ") and lines[-1].endswith(" ...")
    assert len(lines) == 6
