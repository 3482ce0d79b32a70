"""Figures and tables of many languages, on made cells."""

import io

import numpy as np
import pandas as pd
import pytest

from analysis.claims.language_truths import temperatures
from analysis.claims.made_cells import recall_of
from analysis.figures import EXTRA_FIGURES, TABLES
from analysis.figures.base import Inputs
from analysis.figures.tables.table import to_html, to_wide
from tests.analysis.claims.frames import frame
from tests.analysis.figures.pictures import check

NAMES = ("languages", "language_mix")
CODES = ("de", "en", "he", "hi", "zh", "ru", "sw", "no")
SIZES = (64, 256, 1024, 16_384)
LOST = {"zh": 8.0, "hi": 4.0}  # from 64 to 1,024
ENGLISH = {"train": 20.0, "train_en": 45.0, "train_web": 40.0}


def recalls(size, split):
    level = np.log2(size) if size < 16_384 else 2.0
    own = {code: 10.0 + 3 * i + level for i, code in enumerate(CODES)}
    own = {code: value - LOST.get(code, 0) * (size == 1024) for code, value in own.items()}
    return own | {"en": ENGLISH[split] + level, "": 20.0 + level}


@pytest.fixture(scope="module")
def inputs():
    rows = [
        {"batch_size": size, "examples": 2**20, "data.split": split, "data.dataset": "emoji"}
        | {recall_of(name): value for name, value in recalls(size, split).items()}
        | {recall_of(name).replace("text_to_image", "image_to_text"): 20.0 for name in CODES}
        for split in ENGLISH
        for size in SIZES
    ]
    return Inputs(cells=frame(rows))


@pytest.mark.parametrize("width", ["text", "column"])
@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_from_its_csv(inputs, name, width):
    table = EXTRA_FIGURES[name].data(inputs)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    check(EXTRA_FIGURES[name].draw(again, width=width))
    assert not len(EXTRA_FIGURES[name].data(Inputs()))


def test_changes_are_of_equal_languages_and_simultaneous_for_all(inputs):
    table = EXTRA_FIGURES["languages"].data(inputs)
    changes = table[table["panel"] == "change"]
    assert set(changes["series"]) == {
        "B = 64 to 1k (1,024 steps)",
        "B = 1k to 16k (64 steps)",  # the best to the largest, which decides nothing
    }
    first = changes[changes["series"].str.endswith("1k (1,024 steps)")]
    means, wide = (first[first["kind"] == k].set_index("x") for k in ("mean", "simultaneous"))
    assert means["value"].to_dict() == pytest.approx(
        {("iw" if c == "he" else c): 4.0 - LOST.get(c, 0.0) for c in CODES}, abs=0.4
    )
    assert (wide["low"] < means["low"]).all() and (wide["high"] > means["high"]).all()
    assert set(wide.index[wide["high"] < 0]) == {"zh"}


def test_what_languages_cost_english_is_paired_at_each_batch(inputs):
    table = EXTRA_FIGURES["language_mix"].data(inputs)
    costs = table[(table["panel"] == "cost to English") & (table["kind"] == "mean")]
    assert len(costs) == 2 * len(SIZES)
    by = costs.groupby("series")["value"].mean()
    assert by["36 languages, equally frequent"] == pytest.approx(25.0, abs=0.3)
    assert by["36 by share of the web"] == pytest.approx(5.0, abs=0.3)


def test_towers_from_scratch_have_panels_of_their_own(inputs):
    """And the tables and the other figures stay with the tower that has most cells."""
    rows = [
        {"batch_size": size, "examples": 2**20, "data.split": split, "data.dataset": "emoji"}
        | {recall_of(name): value / 2 for name, value in recalls(size, split).items()}
        | {"model.image.kind": "vit"}
        for split in ("train", "train_en")
        for size in SIZES[1:3]
    ]
    both = Inputs(cells=pd.concat([inputs.cells, frame(rows).assign(id=lambda t: "v" + t["id"])]))
    plot = EXTRA_FIGURES["language_mix"]
    table = plot.data(both)
    costs = (
        table[table["kind"] == "mean"].set_index(["panel", "series"])["value"].groupby(level=[0, 1])
    )
    costs = costs.mean()
    assert costs["cost to English", "36 languages, equally frequent"] == pytest.approx(25, abs=0.3)
    assert costs["cost to English, from scratch", "36 languages, equally frequent"] == (
        pytest.approx(12.5, abs=0.3)
    )
    for width in ("text", "column"):
        check(plot.draw(table, width=width))
    for name in ("table_2", "table_9"):
        pd.testing.assert_frame_equal(TABLES[name].data(both), TABLES[name].data(inputs))


@pytest.mark.parametrize("name", ["table_2", "table_9"])
def test_ours_stand_apart_from_the_papers_and_say_what_they_are(inputs, name):
    table = TABLES[name].data(inputs)
    wide = to_wide(table)
    sources = wide.columns.get_level_values(0).tolist()
    assert sources == sorted(sources, key=lambda source: source == "ours")
    assert "multilingual retrieval on made" in " ".join(table.attrs["notes"])
    cells = to_html(table, name).count('class="data')
    ours = [row for row in wide.index if wide.loc[row, "ours"].astype(bool).any()]
    assert cells and len(ours) >= 4


def test_recall_by_vocabulary_bottleneck_and_temperature_draws_from_its_csv():
    """The data set's own tokenizer has no name; the parameters tell its size."""
    rows = temperatures(sigmoid=4.0, softmax=2.0)
    own = {"model.text.width": 96, "data.tokenizer": None, "parameters": 96 * 16_000}
    rows.append(own | {"loss.t_init": 10.0, "quality": 31.0})
    ranks = {12: 29.0, 48: 30.0}
    rows += [own | {"model.text.bottleneck": k, "quality": q} for k, q in ranks.items()]
    plot = EXTRA_FIGURES["text_embedding"]
    table = plot.data(Inputs(cells=frame(rows, metric=recall_of(""))))
    means = table[table["kind"] == "mean"].set_index(["panel", "series", "x"])["value"]
    means = means.sort_index()
    assert means["made", "sigmoid, t fixed"].to_dict() == pytest.approx(
        {4000: 34.0, 32_000: 34.0}, abs=0.4
    )
    assert means["made", "sigmoid", 16_000] == pytest.approx(31.0, abs=0.4)
    assert means["bottleneck", "sigmoid"].to_dict() == pytest.approx({**ranks, 96: 31.0}, abs=0.4)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    for width in ("text", "column", "slide"):
        check(plot.draw(again, width=width))
