"""Advice on a batch size: the paper's own answer from its tables, and refusals in one line."""

import dataclasses
import functools
import json

import pytest

from analysis import AnalysisError, advice
from study.config import Budget


@pytest.fixture(scope="module")
def table_8():
    return advice.advise_paper("table-8", 18e9)


def test_table_8_gives_the_papers_32k(table_8):
    """What the paper calls enough at 18B examples, where its cells go on to 1M."""
    enough = table_8.optimum.enough
    assert table_8.power_of_two == 32_768
    assert enough.identified and enough.low < 32_768 < enough.high
    assert not table_8.optimum.best.identified  # level from 64k to 1M
    assert len(table_8.surface.cells) == 39
    assert table_8.surface.rms == pytest.approx(0.42, abs=0.02)
    assert table_8.held_out.rms == pytest.approx(0.59, abs=0.03)
    for fit in table_8.one_budget:
        assert fit.low < 32_768 < fit.high and fit.identified


def test_the_ridge_rises_with_the_budget(table_8):
    enough = [one.enough.batch for one in table_8.by_budget]
    assert [one.examples for one in table_8.by_budget] == [450e6, 900e6, 3e9, 18e9]
    assert enough == sorted(enough) and enough[0] < 16_384


def test_the_text_says_what_is_identified_and_what_is_not(table_8):
    text = advice.format_advice(table_8)
    first, *_ = text.splitlines()
    assert first.startswith("table-8, sigmoid, 18B examples: a batch of 32,768 (estimate ")
    assert "Not identified: the best batch" in text and "Extrapolated" not in text
    assert "Fitted without 18B, sum misses the cells there by 0.59 points rms" in text
    assert max(map(len, text.splitlines())) <= 120
    optimum = dataclasses.replace(table_8.optimum, examples=36e9)
    beyond = advice.format_advice(dataclasses.replace(table_8, optimum=optimum))
    assert "Extrapolated: 36B examples are 2 times outside of the budgets, 450M to 18B" in beyond


def test_json_is_whole_and_finite(table_8):
    content = json.loads(advice.to_json(table_8), parse_constant=pytest.fail)
    assert content["batch"] == 32_768
    assert {one["form"] for one in content["rivals"]} == {"product", "critical"}
    assert content["surface"]["parameters"].keys() == set("EKgAaCk")


@pytest.mark.parametrize(
    ("table", "loss", "message"),
    [("table-9", "sigmoid", "table-8, table-5"), ("table-8", "hinge", "0 finished hinge cells")],
)
def test_what_the_paper_does_not_hold_is_one_line(table, loss, message):
    with pytest.raises(AnalysisError, match=message):
        advice.advise_paper(table, 1e9, loss=loss)


def test_a_study_of_one_budget_is_refused(writer):
    writer.batch_panel({16: 50, 64: 55, 256: 57}, {16: 45, 64: 52, 256: 56})
    with pytest.raises(AnalysisError, match=r"has 3 finished softmax cells .* budgets: 1;"):
        advice.advise_study(writer.root, "synthetic", 1e6, loss="softmax")


def test_a_study_is_read_from_its_records(writer, monkeypatch):
    """Seeds are averaged, their spread is the noise, and runs of a few steps are left out."""
    monkeypatch.setattr(advice, "fit_surface", functools.partial(advice.fit_surface, draws=20))
    for examples in (100_000, 400_000):
        quality = {
            size: 60 - 1e6 / examples - 32 * size**-0.5 - 2e3 * size / examples
            for size in (16, 64, 256, 1024, 4096)
        }
        writer.batch_panel(quality, {}, sd=0.2, budget=Budget(examples=examples))
    found = advice.advise_study(writer.root, "synthetic", 200_000)
    cells = found.surface.cells
    assert sorted(cells.batch_N) == sorted([*(16, 64, 256, 1024) * 2, 4096])
    assert set(cells.seeds_N) == {2} and 0.05 < cells.noise < 0.5
    assert found.source == "synthetic" and found.extrapolation == 1.0
