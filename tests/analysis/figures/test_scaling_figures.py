"""Critical batch, learning rate, temperature and compute: the figures hold the truth of the cells
that they are drawn from, draw from their CSV, and are skipped with a reason."""

import io

import numpy as np
import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.figures import EXTRA_FIGURES
from analysis.figures.base import Inputs
from analysis.figures.plot.style import PAGES
from analysis.paper import as_cells
from analysis.records.frame import COLUMNS
from analysis.select.fields import TOP1
from study.models.flops import step_flops
from sweeps.planning.calibrate import channels_of
from sweeps.registry import load_study
from tests.analysis.figures.pictures import check

NAMES = ("to_target", "rate_by_batch", "temperature_bias", "compute")
FITTED_TABLES = ("to_target", "compute")  # they show the paper's tables, too
SIZES = (16, 64, 256, 1024)
BUDGETS = (65_536, 262_144, 1_048_576)
CRITICAL = 300.0
VALIDATION = "eval/zero_shot/val_font/top1"
RATE = "optimizer.learning_rate"
LOSSES = {
    "sigmoid": {"loss.kind": "sigmoid", "loss.pairs.kind": "all"},
    "softmax": {"loss.kind": "softmax"},
}


def quality(size, examples):
    """40 % after 100k examples times 1 + B / CRITICAL, and 12 points for e times as many."""
    return 40 + 12 * np.log(examples / (1e5 * (1 + size / CRITICAL)))


def best_rate(size):
    return 0.005 * (size / 16) ** 0.4


def row(size, loss, seed, budget, value, rng, rate=None, **more):
    return {
        "status": "done",
        "batch_size": size,
        "seed": seed,
        "steps": budget // size,
        "examples": budget,
        "budget.examples": budget,
        "model.image.kind": "cached",
        "model.text.kind": "mean_pool",
        "data.dataset": "glyphs",
        "dataset_fingerprint": "f",
        "content": f"{size}{loss}{seed}{budget}{rate}{more}",
        RATE: rate or best_rate(size),
        "flops.towers": 1000 * size,
        "flops.loss": size**2,
        "train/t": np.exp(3 + 0.1 * np.log2(size) + 0.01 * rng.standard_normal()),
        "train/b": -10 - 0.5 * np.log2(size) + 0.01 * rng.standard_normal(),
        TOP1: value + 0.2 * rng.standard_normal(),
        VALIDATION: value - 1 + 0.2 * rng.standard_normal(),
        **LOSSES[loss],
        **more,
    }


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    cells = [
        row(size, loss, seed, budget, quality(size, budget), rng)
        for size in SIZES
        for loss in LOSSES
        for budget in BUDGETS
        for seed in (0, 1)
    ]
    for size in SIZES:
        for loss in LOSSES:
            for step in (-2, -1, 0, 1, 2):
                rate = best_rate(size) * 2.0**step * (4 if size == 1024 else 1)
                lost = 3 * np.log2(rate / best_rate(size)) ** 2
                value = quality(size, BUDGETS[1]) - lost
                cells.append(row(size, loss, 100, BUDGETS[1], value, rng, rate))
    table = pd.DataFrame([{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)])
    return Inputs(cells=table.reindex(columns=list(dict.fromkeys((*COLUMNS, *table.columns)))))


@pytest.fixture(scope="module")
def tables(inputs):
    return {name: EXTRA_FIGURES[name].data(inputs) for name in NAMES}


def one(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1, table
    return table.iloc[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_from_its_csv_on_every_page(name, tables):
    again = pd.read_csv(io.StringIO(tables[name].to_csv(index=False)))
    for width in PAGES:
        check(EXTRA_FIGURES[name].draw(again, width=width))
    fig = EXTRA_FIGURES[name].draw(again)
    assert all(axes.has_data() or not axes.axison for axes in fig.axes)
    assert tables[name].attrs["provenance"].startswith("records ")


@pytest.mark.parametrize("name", NAMES)
def test_a_study_without_the_cells_skips_it_in_one_line(name, inputs):
    other = inputs.cells.assign(**{"model.image.kind": "other"})
    with pytest.raises(AnalysisError, match=f"{name} is not drawn: [^\n]+$"):
        EXTRA_FIGURES[name](Inputs(cells=other))


@pytest.mark.parametrize("name", NAMES)
def test_without_records_the_papers_tables_alone_are_drawn(name):
    table = EXTRA_FIGURES[name].data(Inputs())
    assert set(table["source"]) == ({"paper"} if name in FITTED_TABLES else set())
    if len(table):
        check(EXTRA_FIGURES[name].draw(table))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_critical_batch_of_the_cells_is_in_its_interval(tables, loss):
    mine = tables["to_target"]
    mine = mine[(mine["source"] == "ours") & (mine["series"] == loss)]
    fits = mine[(mine["panel"] == "over target") & (mine["metric"] == "hyperbola")]
    middle = fits[fits["x"].between(35, 45)]
    assert len(middle) >= 3
    assert (middle["low"].lt(CRITICAL) & middle["high"].gt(CRITICAL)).mean() > 0.7
    assert middle["id"].str.startswith("identified by B = 16, 64, 256, 1k").all()
    means = mine[(mine["panel"] == "examples") & (mine["kind"] == "mean")]
    for _, point in means[means["metric"] == "40"].iterrows():
        assert point["value"] == pytest.approx(1e5 * (1 + point["x"] / CRITICAL), rel=0.1)
        assert point["n"] == pytest.approx(point["value"] / point["x"], abs=0.5)


def test_the_papers_table_says_what_it_does_not_identify(tables):
    table = tables["to_target"]
    theirs = table[(table["source"] == "paper") & (table["kind"] == "critical")]
    assert theirs["id"].str.startswith("not identified by B = ").all()
    assert "B_crit not identified (" in " ".join(EXTRA_FIGURES["to_target"].draw(table).caption)


def test_the_optimum_is_between_the_rates_and_an_edge_is_flagged(tables):
    table = tables["rate_by_batch"]
    for loss in LOSSES:
        for size in SIZES[:-1]:
            found = one(table, kind="best", x=size, series=loss)
            assert found["value"] == pytest.approx(best_rate(size), rel=0.1)
            assert found["id"] == f"inside; {BUDGETS[1] // size:,} steps"
        edge = one(table, kind="best", x=1024, series=loss)
        assert edge["id"].startswith("edge: lowest tried")
        line = one(table, kind="exponent", series=loss)
        assert line["id"] == "500 steps or more: B = 16, 64, 256"  # without the edge
        assert line["value"] == pytest.approx(0.4, abs=0.03)


def test_one_seed_at_each_rate_and_the_validation_split_choose_it(tables):
    table = tables["rate_by_batch"]
    assert set(table["metric"]) == {VALIDATION}
    assert set(table.loc[table["kind"] == "mean", "n"]) == {1}
    assert set(table.loc[table["kind"] == "seed", "seed"]) == {100}


def test_rates_that_have_not_ended_are_missing(inputs):
    cells = inputs.cells
    other = (cells["seed"] == 100) & ~np.isclose(cells[RATE], best_rate(cells["batch_size"]))
    waiting = cells.assign(status=cells["status"].mask(other, "not started"))
    table = EXTRA_FIGURES["rate_by_batch"].data(Inputs(cells=waiting))
    assert not len(table) and "3 learning rates" in table.attrs["why"]
    assert len(table.attrs["missing"]) == other.sum()


def test_slopes_of_temperature_and_bias_are_those_of_the_cells(tables):
    table = tables["temperature_bias"]
    for loss in LOSSES:
        slope = one(table, kind="slope", series=loss, metric="train/t")
        assert slope["low"] < 0.1 < slope["high"] < 0.12
    bias = one(table, kind="slope", series="sigmoid", metric="train/b")
    assert bias["low"] < -0.5 < bias["high"] < -0.48
    assert f"{BUDGETS[-1]:,} examples" in table.attrs["title"]


def test_runs_of_few_steps_are_hollow_and_in_no_slope(inputs):
    short = inputs.cells[inputs.cells["budget.examples"] == BUDGETS[1]]
    table = EXTRA_FIGURES["temperature_bias"].data(Inputs(cells=short))
    assert set(table.loc[table["kind"] == "short", "x"]) == {1024}  # 256 steps
    assert set(table.loc[table["kind"] == "slope", "n"]) == {3}


def test_flops_are_of_towers_and_pairs_and_the_front_is_not_beaten(tables):
    table = tables["compute"]
    ours = table[(table["source"] == "ours") & (table["series"] == "sigmoid")]
    means = ours[(ours["kind"] == "mean") & (ours["panel"] == "SigLiT")]
    assert len(means) == len(SIZES) * len(BUDGETS)
    cell = one(means, id="1k, 1.05M")
    assert cell["x"] == pytest.approx(1024 * (1000 * 1024 + 1024**2), rel=1e-5)
    front = ours[ours["kind"] == "front"]
    for _, point in front.iterrows():
        cheaper = means[means["x"] <= point["x"]]
        assert cheaper["value"].max() == point["value"]
    share = one(ours[ours["panel"] == "share of pairs"], x=1024)
    assert share["value"] == pytest.approx(100 * 1024 / 2024, rel=1e-5)


@pytest.mark.parametrize(
    ("study", "fields"), [("table-8", as_cells.SIGLIT), ("table-5", as_cells.SIGLIP)]
)
def test_flops_of_the_papers_cells_are_those_of_the_plan(study, fields):
    printed = as_cells.cells()
    printed = printed[printed["data.dataset"] == fields["data.dataset"]]
    for cell in load_study(study).cells:
        mine = printed[printed["flops.towers"].notna()]
        mine = mine[(mine["batch_size"] == cell.batch_size) & (mine["loss.kind"] == cell.loss.kind)]
        (found,) = mine[mine["examples"] == cell.budget.examples].to_dict("records")
        flops = step_flops(cell, channels=channels_of(cell))
        assert (found["flops.towers"], found["flops.loss"]) == (flops.towers, flops.loss)


def test_at_a_million_the_pairs_are_half_of_the_flops(tables):
    table = tables["compute"]
    theirs = table[(table["source"] == "paper") & (table["panel"] == "share of pairs")]
    assert one(theirs, x=2**20, id="SigLiT")["value"] == pytest.approx(50, abs=3)
