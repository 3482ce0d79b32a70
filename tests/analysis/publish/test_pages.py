"""Pages say what the snapshots give: placeholders, sentences that verdicts no longer bear out."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from analysis.claims.formatting import from_json, to_json
from analysis.errors import AnalysisError
from analysis.publish.compare import compare, format_changes
from analysis.publish.fill import fill
from analysis.publish.finding import problems
from analysis.publish.pages import render_pages
from analysis.publish.sources import Published
from analysis.publish.summary import scope_of, verdict_table, why_open

ROOT = Path(__file__).parents[3]
PUBLISHED = Published(folder=ROOT / "results")
VERDICTS = PUBLISHED.verdicts("glyphs")
TEMPLATE = (ROOT / "results" / "glyphs" / "finding.md.in").read_text()


@pytest.fixture(scope="module")
def pages():
    return render_pages(ROOT / "results", ROOT / "README.md")


def test_every_page_is_what_its_template_and_the_records_give(pages):
    names = [str(path.relative_to(ROOT)) for path in pages]
    assert {"README.md", "results/summary.md", "results/questions.md"} <= {*names}
    for path, text in pages.items():
        assert path.read_text() == text, f"{path}: make results"


def test_verdicts_come_back_from_their_json():
    text = (ROOT / "results" / "glyphs" / "claims.json").read_text()
    assert to_json(from_json(text)) == text.rstrip("\n")


def test_a_placeholder_is_a_number_of_a_verdict():
    verdict = VERDICTS["gap closes with batch"]
    low, high = f"{verdict.low:.2f}", f"{verdict.high:.2f}"
    assert glyphs("{gap closes with batch}") == f"{verdict.estimate:.2f} [{low}, {high}]"
    assert glyphs("{-gap closes with batch}") == f"{-verdict.estimate:.2f} [-{high}, -{low}]"
    assert glyphs("a {gap closes with batch | .1} b") == f"a {verdict.estimate:.1f} b"
    assert fill("{glyphs/gap closes with batch | .1}", PUBLISHED) == f"{verdict.estimate:.1f}"
    two = VERDICTS["decay on a pretrained tower hurts"]
    printed = glyphs("{decay on a pretrained tower hurts | #2}")
    assert printed in two.sentence
    assert printed == glyphs(f"{{{two.name} | {two.conditions[1].name}}}")
    assert glyphs(f"{{{two.name} | is {two.verdict}}}") == two.verdict


def test_a_placeholder_is_a_fact_or_a_row_of_a_table():
    assert glyphs("{cells}") == f"{PUBLISHED.facts('glyphs')['cells']:,}"
    kinds = ("reproduced", "contradicted", "undecided", "no data")
    counts = [int(glyphs(f"{{{kind} claims}}")) for kind in kinds]
    assert sum(counts) == int(glyphs("{claims}"))
    row = "plan/four-chips.csv | loss=sigmoid, implementation=ours"
    assert fill(f"{{{row} | needed_gib | .1}}", PUBLISHED) == "20.1"
    assert fill(f"{{{row} | fits}}", PUBLISHED) == "True"


@pytest.mark.parametrize(
    ("placeholder", "message"),
    [
        ("gap closes", "no claim or fact of glyphs has this name"),
        ("gap closes with batch | points to", "its conditions and budgets are: points"),
        ("gap closes with batch | #9", "prints 1 numbers"),
        ("gap closes with batch | is open", "write the text anew"),
        ("languages gain nothing past 32k", "has no number"),
        ("plan/four-chips.csv | loss=sigmoid | fits", "2 rows of the table are so"),
        ("plan/four-chips.csv | los=sigmoid | fits", "no column 'los'"),
        ("plan/none.csv | a=b | c", "no table"),
    ],
)
def test_a_placeholder_without_a_number_is_one_line(placeholder, message):
    with pytest.raises(AnalysisError, match=message) as error:
        glyphs(f"{{{placeholder}}}")
    assert placeholder in str(error.value) and "\n" not in str(error.value)


def test_a_changed_verdict_stops_the_build_and_names_the_sentence(tmp_path):
    assert problems(TEMPLATE, VERDICTS.values()) == []
    folder = tmp_path / "results" / "glyphs"
    shutil.copytree(PUBLISHED.folder / "glyphs" / "snapshot", folder / "snapshot")
    (folder / "finding.md.in").write_text(TEMPLATE)
    changed = dataclasses.replace(VERDICTS["matched pairs help"], verdict="reproduced")
    (folder / "claims.json").write_text(to_json([*(VERDICTS | {changed.name: changed}).values()]))
    with pytest.raises(AnalysisError, match=r"'matched pairs help' for undecided.*reproduced.*128"):
        render_pages(tmp_path / "results")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Sigmoid leads by 8.02 points. [sigmoid ahead at small batch: reproduced]", "8.02"),
        ("Sigmoid leads by 8.0. [sigmoid ahead at small batch: reproduced]", "8.0"),
        ("At B = 32 sigmoid leads. [sigmoid ahead at small batch: reproduced]", "32"),
        ("> Of all pairs 12 % are so.", "12"),
    ],
)
def test_a_measured_number_is_not_typed_by_hand(text, number):
    (line,) = problems(text, VERDICTS.values())
    assert line.startswith(f"{number} is typed by hand")
    assert problems("> B = 16, 95 % intervals.", VERDICTS.values()) == []
    settings = "At B = 16 sigmoid leads. [sigmoid ahead at small batch: reproduced]"
    assert problems(settings, VERDICTS.values()) == []


def test_the_summary_has_each_tested_claim_once_and_says_why_it_is_open():
    paper, ours = (verdict_table(PUBLISHED, ours=own).splitlines() for own in (False, True))
    tested = [v for name in PUBLISHED.studies for v in PUBLISHED.verdicts(name).values()]
    tested = [v for v in tested if v.verdict != "no data"]
    assert len(paper) + len(ours) - 4 == len(tested)
    for verdict in tested:
        assert bool(why_open(verdict)) == (verdict.verdict == "undecided"), verdict.name
        assert scope_of(verdict) in verdict.sentence
    assert {len(line.split(" | ")) for line in paper} == {7}


def test_verdicts_before_and_now_with_reasons():
    opened, same = VERDICTS["losses level at large batch"], VERDICTS["gap closes with batch"]
    scope = scope_of(same)
    moved = dataclasses.replace(
        opened, verdict="reproduced", sentence=opened.sentence.replace(scope, "4 examples, B = 9")
    )
    changes = compare([opened, same], [same, moved, VERDICTS["matched pairs help"]])
    by_name = {change.claim: change for change in changes}
    assert by_name[same.name].before == by_name[same.name].now == "reproduced"
    assert by_name[same.name].reason == "" and changes[-1].claim == same.name
    change = by_name[moved.name]
    assert (change.before, change.now) == ("undecided", "reproduced")
    was = f"on 4 examples, B = 9; before on {scope}; was open: {why_open(opened)[:20]}"
    assert change.reason.startswith(was)
    assert by_name["matched pairs help"].reason == "a new claim"
    assert format_changes(changes).endswith("2 of 3 verdicts changed")


def glyphs(text: str) -> str:
    return fill(text, PUBLISHED, "glyphs")
