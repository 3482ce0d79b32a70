"""The figures beyond the paper: what their tables hold, and that they draw from their CSV."""

import io

import numpy as np
import pandas as pd
import pytest

from analysis.claims import Verdict
from analysis.figures import EXTRA_FIGURES, FITS_OF_TABLES
from analysis.figures.base import Inputs
from analysis.figures.plot import style
from analysis.records.frame import COLUMNS
from analysis.select.fields import TOP1
from tests.analysis.figures.pictures import check

# The records here are of SigLiT alone, at one budget. Of the others: test_scaling_figures,
# test_branch_figures, test_language_figures, test_paper_figures, claims/test_scaling_rules,
# claims/test_beta2_claims, and below.
OTHERS = ("rate_by_batch", "scaling_rules", "temperature_bias", "languages", "language_mix",
          "text_embedding")  # fmt: skip
BRANCHES = ("local_critical_batch", "batch_warmup")
ELSEWHERE = ("data_change", "from_scratch", "verdicts", *OTHERS, *BRANCHES, *FITS_OF_TABLES)
NAMES = [name for name in EXTRA_FIGURES if name not in ELSEWHERE]
SIZES = (16, 32, 64, 128, 256, 512)
SIGMOID = {"loss.kind": "sigmoid", "loss.pairs.kind": "all"}
SOFTMAX = {"loss.kind": "softmax"}


def quality(size):
    return 44 - 25 * (1 + size / 30) ** -1.0


def row(size, loss, seed, value, **more):
    return {
        "status": "done",
        "batch_size": size,
        "seed": seed,
        "steps": 100_000 // size,
        "examples": 100_000,
        "budget.examples": 100_000,
        "model.image.kind": "cached",
        "model.text.kind": "mean_pool",
        "data.dataset": "glyphs",
        "dataset_fingerprint": "f",
        "content": f"{size}{loss}{seed}{more}",
        "optimizer.learning_rate": 1e-3,
        TOP1: value,
        **loss,
        **more,
    }


def logged(name, size):
    for i in range(1, 11):
        examples = 10_000 * i
        yield {
            "id": name,
            "step": examples // size,
            "examples_seen": examples,
            "train/t": 10.0 + i,
            "train/b": -10.0 - i / 10,
            "train/grad_norm": 1.0 / i,
        }


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    cells = [
        row(size, loss, seed, quality(size) - lag + 0.05 * rng.standard_normal())
        for size in SIZES
        for loss, lag in ((SIGMOID, 0.0), (SOFTMAX, 2.0))
        for seed in (0, 1)
    ]
    groups = {"loss.kind": "sigmoid", "loss.pairs.kind": "groups"}
    cells += [
        row(size, groups, 0, 20.0 + np.log2(group), **{"loss.pairs.size": group})
        for size in (128, 512)
        for group in (8, 32)
    ]
    cells += [
        row(size, SIGMOID, 1, 10.0 + t, **{"loss.b_init": b, "loss.t_init": t, "loss.eps": 0})
        for size in (128, 512)
        for b, t in ((-10.0, 10.0), (-10.0, 1.0), (None, 10.0), ("prior", 10.0))
    ]
    cells += [
        row(16, SIGMOID, seed, 30.0, **{"loss.queue_examples": 48, "loss.same_caption": None})
        for seed in (0, 1)
    ]
    cells += [
        row(size, SIGMOID, seed, 20.0 + size / 128 + seed / 10, **{"loss.same_caption": way})
        for size in (128, 512)
        for way in ("masked", "positive")
        for seed in (0, 1)
    ]
    cells = [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)]
    lines = pd.DataFrame([x for c in cells for x in logged(c["id"], c["batch_size"])])
    table = pd.DataFrame(cells).merge(lines.groupby("id").last(), on="id", suffixes=("", "_line"))
    table = table.reindex(columns=list(dict.fromkeys((*COLUMNS, *table.columns))))
    return Inputs(cells=table, read_rows=lambda: lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_from_its_csv(inputs, name):
    table = EXTRA_FIGURES[name].data(inputs)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    fig = EXTRA_FIGURES[name].draw(again)
    assert all(axes.has_data() or not axes.axison for axes in fig.axes)
    assert table.attrs["provenance"].startswith("records ")


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_no_row(name):
    assert not len(EXTRA_FIGURES[name].data(Inputs()))


def test_the_saturation_batch_is_the_fits(inputs):
    table = EXTRA_FIGURES["saturation"].data(inputs)
    found = table[(table["kind"] == "saturation") & (table["series"] == "sigmoid")]
    power = found[found["metric"] == "power"].iloc[0]
    assert max(SIZES) < 30 * (25 / 0.5 - 1)  # the truth is beyond the grid
    assert power["high"] > max(SIZES) and "not identified" in power["id"]


def test_evaluated_examples_enter_when_all_cells_have_them(inputs):
    rng = np.random.default_rng(0)
    hits = {name: rng.random(50) < 0.5 for name in inputs.cells["id"]}
    few = Inputs(
        cells=inputs.cells, read_rows=inputs.read_rows, read_items=lambda cell, _: hits[cell]
    )
    widths = []
    for one in (inputs, few):
        table = EXTRA_FIGURES["saturation"].data(one)
        found = table[table["kind"] == "saturation"].iloc[0]
        widths.append(np.log(found["high"]) - np.log(max(found["low"], 1.0)))
    assert widths[1] > widths[0]


def test_gaps_are_paired_and_wider_when_they_hold_at_once(inputs):
    table = EXTRA_FIGURES["loss_gap"].data(inputs)
    theirs = table[table["source"] == "paper"].set_index("x")["value"]
    assert theirs[2048] == pytest.approx(1.0) and set(theirs.index) == {2**k for k in range(11, 19)}
    means = table[(table["kind"] == "mean") & (table["source"] == "ours")].set_index("x")
    wide = table[table["kind"] == "simultaneous"].set_index("x")
    assert means["value"].to_numpy() == pytest.approx(2.0, abs=0.3)
    assert (wide["high"] > means["high"]).all() and (wide["low"] < means["low"]).all()


def test_the_whole_batch_is_a_group_of_its_own_size(inputs):
    table = EXTRA_FIGURES["pairs_map"].data(inputs)
    means = table[table["kind"] == "mean"].set_index(["x", "series"])["value"]
    assert set(table["panel"]) == {"b starts at its default"}
    assert set(means.index) == {(128, 8), (128, 32), (128, 128), (512, 8), (512, 32), (512, 512)}
    assert means[(128, 32)] == pytest.approx(25.0)


def test_a_queue_stands_between_the_batches_it_is_compared_with(inputs):
    table = EXTRA_FIGURES["queues"].data(inputs)
    means = table[table["kind"] == "mean"].set_index(["panel", "x", "series"])["value"]
    roles = ("B alone", "B with a queue of Q", "a batch of B + Q")
    assert set(means.index) == {("sigmoid, equal examples", "16 + 48", role) for role in roles}
    assert means.tolist() == pytest.approx([quality(16), 30.0, quality(64)], abs=0.2)


def test_equal_captions_are_compared_at_each_batch_size(inputs):
    table = EXTRA_FIGURES["same_captions"].data(inputs)
    means = table[table["kind"] == "mean"].set_index(["panel", "series", "x"])["value"]
    for size in (128, 512):
        assert means["quality", "left out", size] == pytest.approx(20.05 + size / 128)
        lead = means["quality", "left out", size] - means["quality", "negatives", size]
        assert means["gain over negatives", "left out", size] == pytest.approx(lead)


def test_starts_are_named_and_stand_at_each_batch_size(inputs):
    table = EXTRA_FIGURES["initial_values"].data(inputs)
    means = table[table["kind"] == "mean"].set_index(["series", "x"])["value"]
    names = ("b = -10, t' = log 10", "b = -10, t' = log 1", "no bias, t' = log 10")
    assert set(means.index) == {
        (name, size) for name in (*names, "b = log odds, t' = log 10") for size in (128, 512)
    }
    assert means["b = -10, t' = log 1", 128] == 11.0


def test_verdicts_are_drawn_in_half_widths_of_their_intervals(inputs):
    judged = [
        Verdict(name="up", section="4.1", verdict="reproduced", sentence="", unit="points",
                estimate=6.0, low=4.0, high=8.0),
        Verdict(name="sizes", section="4.1", verdict="reproduced", sentence="", unit="batch size",
                estimate=512.0, low=512.0, high=1024.0),
        Verdict(name="alone", section="4.2", verdict="undecided", sentence="", unit="points",
                estimate=1.0),
        Verdict(name="down", section="ours", verdict="contradicted", sentence="", unit="per unit",
                estimate=-0.1, low=-0.2, high=-0.0),
        Verdict(name="none", section="ours", verdict="no data", sentence=""),
    ]  # fmt: skip
    mine = Inputs(cells=inputs.cells)
    mine.__dict__["verdicts"] = judged  # the cached property
    table = EXTRA_FIGURES["verdicts"].data(mine)
    assert list(table["x"]) == ["up", "sizes", "alone", "down"]
    fig = EXTRA_FIGURES["verdicts"].draw(pd.read_csv(io.StringIO(table.to_csv(index=False))))
    check(fig)
    marks = {
        line.get_color(): line.get_xdata().tolist()
        for line in fig.axes[0].lines
        if line.get_marker() in ("o", "X", "D")
    }
    assert marks == {style.GREEN: [3.0], style.WINE: [-1.0], "#777777": []}
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels == ["up  4.1", "sizes  4.1", "alone  4.2", "down  (ours)"]
