"""Figures of branches and of batch warm-up: what their tables hold, and that they draw from CSV."""

import io

import pandas as pd
import pytest

from analysis.claims.made_cells import branch_cells, warm_up
from analysis.claims.truths_of_branches import EARLY, FEW, LATE, MANY
from analysis.figures import EXTRA_FIGURES
from analysis.figures.base import Inputs
from tests.analysis.claims.frames import frame
from tests.analysis.figures.pictures import check

LEVEL = dict.fromkeys(FEW, 1.5)
ROWS = {
    "local_critical_batch": branch_cells(
        {"sigmoid": {EARLY: FEW, LATE: MANY}, "softmax": {EARLY: MANY, LATE: LEVEL}}
    ),
    "batch_warmup": warm_up({256: 3.0, 1024: 1.0}),
}


@pytest.fixture(scope="module")
def tables():
    return {
        name: EXTRA_FIGURES[name].data(Inputs(cells=frame(rows, sd=0.002)))
        for name, rows in ROWS.items()
    }


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("width", ["column", "text", "slide"])
def test_a_figure_draws_from_its_csv(name, width, tables):
    again = pd.read_csv(io.StringIO(tables[name].to_csv(index=False)))
    check(EXTRA_FIGURES[name].draw(again, width=width))


def test_the_critical_batch_has_an_interval_where_it_is_known(tables):
    table = tables["local_critical_batch"]
    critical = table[table["panel"] == "local critical batch"].set_index(["series", "x"])
    means = critical[critical["kind"] == "mean"]
    early, late = means.loc[("sigmoid", EARLY)], means.loc[("sigmoid", LATE)]
    assert early["low"] < early["value"] < early["high"] < late["low"]
    assert 64 < early["value"] < 256 and 1024 < late["value"] < 4096
    assert set(critical.loc[("softmax", LATE), "kind"]) == {"at least", "mean"}
    caption = " ".join(EXTRA_FIGURES["local_critical_batch"].draw(table).caption)
    assert "Triangles: B = 4k" in caption and "3 seeds" in caption


def test_a_warm_up_stands_beside_its_constant_sizes(tables):
    means = tables["batch_warmup"].query("kind == 'mean'").set_index(["panel", "x"])["value"]
    assert means["softmax", 0] - means["softmax", 256] == pytest.approx(3, abs=0.1)
    assert set(means["sigmoid"].index) == {0, 256, 1024}


@pytest.mark.parametrize("name", ["fig_2", "batch_size", "loss_gap"])
def test_parts_of_runs_are_in_no_panel_of_batch_sizes(name):
    from analysis.figures import FIGURES

    inputs = Inputs(cells=frame(ROWS["local_critical_batch"] + ROWS["batch_warmup"]))
    table = FIGURES[name].data(inputs)
    ours = table[(table["source"] == "ours") & (table["kind"] == "seed")]
    assert set(ours["x"]) == {256, 1024}
    assert set(ours["id"].dropna()) <= {f"cell-{i}" for i in range(48, 72)}
