"""Our own study as published: what each part of results/ holds is what its snapshot gives."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.claims import judge_paper, judge_study, parse_intervals, to_json
from analysis.figures import FIGURES, TABLES
from analysis.figures.base import read_inputs
from analysis.records import frame
from analysis.records.frame import open_snapshot
from analysis.report import prose
from sweeps.cli.recorded import recorded_study
from sweeps.registry import load_study
from tests.analysis.conftest import Writer

RESULTS = Path(__file__).parents[2] / "results"
GLYPHS = RESULTS / "glyphs"
STUDIES = sorted(path.parent.parent.name for path in RESULTS.glob("*/snapshot/manifest.json"))
# The slowest are drawn again for one study alone; all verdicts are compared below.
SLOW = ("surface", "verdicts")
DRAWN = [
    (study, path)
    for study in STUDIES
    for path in RESULTS.glob(f"{study}/figures/*.csv")
    if study == "glyphs" or not path.stem.endswith(SLOW)
]
MOST_BYTES = 2**20  # of a file that is no figure

each_study = pytest.mark.parametrize("study", STUDIES)


@functools.cache
def inputs(study):
    return read_inputs(snapshot_of(study), study, **planned(study))


@functools.cache
def found(study):
    return judge_study(snapshot_of(study), study, **planned(study))


def snapshot_of(study):
    return RESULTS / study / "snapshot"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Verdicts on the demo's cells, their metrics read from the CSVs of its figures."""
    metrics: dict[str, dict[str, float]] = {}
    for path in (GLYPHS / "demo").glob("*.csv"):
        points = pd.read_csv(path)
        seeds = points[(points["kind"] == "seed") & points["id"].notna()]
        columns = (seeds[column] for column in ("id", "metric", "value"))
        for name, metric, value in zip(*columns, strict=True):
            metrics.setdefault(name, {})[metric] = value
    writer = Writer(tmp_path_factory.mktemp("demo"), "demo")
    for cell in load_study("demo").cells:
        writer.measured(cell, metrics[cell.id])
    return judge_study(writer.root, "demo")


def planned(study):
    """What the grid lists, as the command line gives it."""
    return recorded_study(study, str(snapshot_of(study)))[1]


def test_the_parts_are_there():
    assert {"glyphs", "emoji"} <= {*STUDIES} <= {"glyphs", "emoji", "beyond"}


@each_study
def test_the_snapshot_is_whole_and_small(study):
    snapshot = open_snapshot(str(snapshot_of(study)))
    assert snapshot.verify() == len(snapshot.manifest["files"])
    assert all(file["bytes"] < MOST_BYTES for file in snapshot.manifest["files"].values())


def test_the_largest_batch_met_all_its_pairs_in_bounded_memory():
    place = GLYPHS / "largest-batch"
    assert open_snapshot(str(place)).verify() == 3
    (cell,) = frame.cells(place, "largest-batch").to_dict("records")
    assert (cell["batch_size"], cell["status"]) == (2**20, "done")
    assert cell["step"] == cell["steps"] >= 1
    assert cell["pairs_seen"] == cell["steps"] * cell["batch_size"] ** 2
    matrix = 4 * cell["batch_size"] ** 2
    assert cell["memory.peak_bytes"] < matrix / 10_000


@pytest.mark.parametrize(("study", "path"), sorted(DRAWN), ids=lambda part: Path(part).stem)
def test_each_figures_numbers_come_from_the_snapshot(study, path):
    name = path.stem.removeprefix(f"{study}-")
    table = {**FIGURES, **TABLES}[name].data(inputs(study))
    made = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(made, pd.read_csv(path), rtol=1e-6, atol=1e-9)


@each_study
def test_the_verdicts_come_from_the_snapshot(study):
    kept = json.loads((RESULTS / study / "claims.json").read_text())
    for mine, theirs in zip(json.loads(to_json(found(study))), kept, strict=True):
        assert (mine["name"], mine["verdict"]) == (theirs["name"], theirs["verdict"])
        if mine["estimate"] is None:
            assert theirs["estimate"] is None
        else:
            assert mine["estimate"] == pytest.approx(theirs["estimate"], rel=1e-6)


def test_every_printed_interval_holds_the_number_in_front_of_it(demo):
    """In each part, in the demo and on the paper's own numbers."""
    count = 0
    for one in [*(one for study in STUDIES for one in found(study)), *demo, *judge_paper()]:
        for estimate, low, high in parse_intervals(one.sentence):
            count += 1
            assert low <= estimate <= high, one.sentence
        assert all(part.low <= part.estimate <= part.high for part in one.conditions), one.name
    assert count > 80


def test_the_demos_verdicts_come_from_its_figures_numbers(demo):
    kept = json.loads((GLYPHS / "demo" / "claims.json").read_text())
    assert [one["sentence"] for one in kept] == [one.sentence for one in demo]
    for mine, theirs in zip(json.loads(to_json(demo)), kept, strict=True):
        assert {k: v for k, v in mine.items() if not isinstance(v, float | list)} == {
            k: v for k, v in theirs.items() if not isinstance(v, float | list)
        }


@each_study
def test_the_finding_says_what_the_verdicts_say(study):
    blocks = prose.with_verdicts(prose.read(RESULTS / study / "finding.md"), found(study))
    assert prose.stale(blocks) == []
    rests = [rest for block in blocks for one in block.sentences for rest in one.citations]
    judged = {one.name for one in found(study) if one.verdict != "no data"}
    assert {rest.claim for rest in rests} == judged  # none is passed over
