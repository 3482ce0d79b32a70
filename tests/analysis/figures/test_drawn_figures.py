"""Figures: the same records give the same bytes, and what is missing is said."""

import itertools
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.figures import (
    FIGURES,
    TABLES,
    batch_size,
    draw_all,
    draw_paper,
    fig_6,
    read_inputs,
)
from analysis.figures.figure_io import draw_each
from analysis.figures.plot import layout, style
from analysis.records.frame import cells
from study.config import Model, TextTransformer, ViT

OURS = ("batch_size", "fig_6", "from_scratch")  # those of the demo
DEMO = Path(__file__).parents[3] / "results" / "glyphs" / "demo"
QUALITY = {16: 34.0, 64: 40.0, 256: 44.0}
LOWER = {16: 30.0, 64: 38.0, 256: 44.0}
MASKED = {
    (None, None): (30.0, -10.0, 0.0, -10.0),
    ("random", 32.0): (22.0, -9.0, 2.0, -9.0),
    ("hard", 32.0): (29.0, -10.0, 0.0, -10.0),
    ("easy", 32.0): (15.0, -8.0, 1.0, -8.0),
}
SCRATCH = Model(image=ViT(), text=TextTransformer(), embed_dim=32)


@pytest.fixture
def full(writer):
    writer.batch_panel(QUALITY, LOWER)
    writer.composition_panel(MASKED)
    writer.batch_panel({16: 12.0, 256: 19.0}, {16: 9.0, 256: 17.0}, model=SCRATCH)
    return writer


def table(writer, figure=batch_size):
    return figure.data(read_inputs(writer.root, writer.study))


def drawn_one(writer, out, name="batch_size"):
    (one,) = draw_each([FIGURES[name]], read_inputs(writer.root, writer.study), out)
    return one


def text_of(fig):
    return "\n".join(text.get_text() for text in fig.texts)


def test_drawn_twice_gives_the_same_bytes(full, tmp_path):
    first = draw_all(full.root, full.study, tmp_path / "one")
    second = draw_all(full.root, full.study, tmp_path / "two")
    assert [drawn.name for drawn in first] == [*FIGURES, *TABLES]
    whole = {one.name for one in first if one.skipped is None}
    assert whole >= {*OURS, "fig_2", "table_5", "table_8"}
    for a, b in zip(first, second, strict=True):
        assert a.missing == []
        for one, two in zip(a.files, b.files, strict=True):
            assert Path(one).read_bytes() == Path(two).read_bytes()
            assert Path(one).stat().st_size > 500


def test_figures_that_are_named_are_drawn_and_no_others(full, tmp_path):
    drawn = draw_all(full.root, full.study, tmp_path / "some", only=["table_1", "batch_size"])
    assert [one.name for one in drawn] == ["batch_size", "table_1"]
    paper = draw_paper(tmp_path / "paper", only=["fig_3"])
    assert [one.name for one in paper] == ["fig_3"]
    assert {path.stem for path in (tmp_path / "paper").iterdir()} == {"fig_3"}


def test_the_readers_own_settings_change_no_byte(full, tmp_path):
    data = table(full)
    plain, _ = layout.save(batch_size.draw(data), tmp_path / "one")
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        again, _ = layout.save(batch_size.draw(data), tmp_path / "two")
    assert plain.read_bytes() == again.read_bytes()


def test_missing_cells_are_returned_and_written_into_the_figure(writer, tmp_path):
    writer.batch_panel(QUALITY, LOWER)
    failed = writer.failed(writer.cell(1024, "softmax", 0), "out of memory")
    writer.done(writer.cell(1024, "sigmoid", 0), 45.0)
    assert drawn_one(writer, tmp_path).missing == [
        f"{failed.id} (failed: out of memory)",
        "no record of b1024 sigmoid seed 1",
        "no record of b1024 softmax seed 1",
    ]
    data = table(writer)
    assert failed.id in text_of(batch_size.draw(data))
    # What is there is drawn all the same.
    ours = data[(data["panel"] == "ours") & (data["kind"] == "mean")]
    assert 1024 in ours[ours["series"] == "sigmoid"]["x"].tolist()


def test_figures_without_cells_are_skipped_with_a_reason(writer, tmp_path):
    writer.batch_panel(QUALITY, LOWER)
    for name in ("fig_6", "from_scratch"):
        one = drawn_one(writer, tmp_path, name)
        assert one.skipped == "no cell of the study belongs to it"
        assert one.files == []
    assert not list(tmp_path.glob("*.*"))
    inputs = read_inputs(writer.root, writer.study)
    kept = {name for name, plot in FIGURES.items() if not plot.numbers(inputs)[1]}
    assert kept == {"batch_size", "fig_2", "loss_gap"}


def test_a_panel_with_nothing_finished_says_which_cells_it_waits_for(writer, tmp_path):
    running = writer.cell(16)
    writer.begin(running).close()
    drawn = drawn_one(writer, tmp_path)
    assert "none of its cells has ended" in drawn.skipped
    assert drawn.missing[0] == f"{running.id} (running-or-interrupted)"


def test_a_done_cell_without_the_metric_is_missing(full):
    bare = full.done(full.cell(16, "sigmoid", 2))
    assert any(bare.id in name and "without" in name for name in table(full).attrs["missing"])


def test_the_table_holds_what_the_records_say(full):
    data = table(full)
    seeds = data[(data["panel"] == "ours") & (data["kind"] == "seed")]
    known = cells(full.root, full.study).set_index("id")["eval/zero_shot/test_font/top1"]
    assert len(seeds) == 14  # two of them the reference of the masked cells
    assert (seeds.set_index("id")["value"] == known[seeds["id"]]).all()
    means = data[(data["panel"] == "ours") & (data["kind"] == "mean")]
    expected = seeds.groupby(["series", "x"])["value"].mean()
    assert means.set_index(["series", "x"])["value"].to_dict() == pytest.approx(expected.to_dict())
    gaps = data[(data["panel"] == "difference") & (data["kind"] == "mean")]
    wide = expected.unstack("series").dropna()
    assert gaps["value"].tolist() == pytest.approx((wide["sigmoid"] - wide["softmax"]).tolist())
    assert (gaps["low"] < gaps["value"]).all()


def test_the_unmasked_batch_stands_at_its_own_ratio(full):
    data = table(full, fig_6)
    unmasked = data[(data["series"] == "all") & (data["kind"] == "mean")]
    assert set(unmasked["x"]) == {511.0}
    assert set(data["metric"]) == {
        *("eval/zero_shot/test_font/top1", "train/b", "train/pos_logit_mean"),
        *("train/neg_logit_mean", "train/kept_logit_mean"),
    }


def test_caption_says_data_towers_budget_and_learning_rate(full):
    text = " ".join(text_of(batch_size.draw(table(full))).split())
    for part in ("glyphs", "cached image", "averaging text tower", "300,000 examples", "0.005"):
        assert part in text
    scratch = FIGURES["from_scratch"]
    assert "transformer text tower" in " ".join(text_of(scratch.draw(table(full, scratch))).split())


def test_provenance_follows_the_records(full):
    before = table(full).attrs["provenance"]
    assert before in text_of(batch_size.draw(table(full)))
    assert "14 cells" in before
    full.done(full.cell(16, "sigmoid", 5), 34.0)
    assert table(full).attrs["provenance"] != before


def test_one_seed_draws_without_intervals(writer, tmp_path):
    writer.batch_panel(QUALITY, LOWER, seeds=1)
    drawn = drawn_one(writer, tmp_path)
    assert pd.read_csv(drawn.paths[-1])["low"].isna().all()
    assert "no interval" in text_of(batch_size.draw(table(writer)))


def test_one_batch_size_and_one_loss_draw(writer, tmp_path):
    writer.done(writer.cell(16), 30.0)
    writer.done(writer.cell(512, keep="hard", ratio=8.0), 30.0, b=-9.0)
    for name in ("batch_size", "fig_6"):
        assert drawn_one(writer, tmp_path, name).paths[0].exists()


def test_an_unwritable_folder_is_one_line(full, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AnalysisError, match="cannot write figures to"):
        draw_all(full.root, full.study, tmp_path / "file")


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("records", ["synthetic", "demo"])
def test_text_is_large_enough_and_inside_the_figure(name, records, full):
    """The demo's own numbers too: their tick labels leave less room."""
    if records == "demo":
        data = pd.read_csv(DEMO / f"demo-{name}.csv")
    else:
        data = table(full, FIGURES[name])
    fig = FIGURES[name].draw(data)
    fig.set_dpi(style.RC["savefig.dpi"])  # letters are not as wide at every resolution
    with style.context():
        fig.canvas.draw()
    frame = fig.bbox
    for text in fig.findobj(mpl.text.Text):
        if not text.get_text().strip() or not text.get_visible():
            continue
        assert text.get_fontsize() >= 5.5
        box = text.get_window_extent()
        edge = 0.005 * frame.width  # text that touches the edge looks cut off
        assert box.x0 >= frame.x0 + edge, text
        assert box.x1 <= frame.x1 - edge, text
        assert box.y0 >= frame.y0 - 1
        assert box.y1 <= frame.y1 + 1


def test_notes_of_many_ids_end_inside_the_figure():
    """Digits are wider than letters."""
    fig, _ = layout.make_figure(
        heights=[1.0], title="", caption=["b16384-sigmoid-s0-00888888; " * 8]
    )
    fig.set_dpi(style.RC["savefig.dpi"])
    with style.context():
        fig.canvas.draw()
    assert all(text.get_window_extent().x1 < 0.99 * fig.bbox.width for text in fig.texts)


def test_series_differ_in_lightness_marker_and_line():
    for names in (("sigmoid", "softmax"), ("random", "hard", "easy")):
        looks = [style.STYLES[name] for name in names]
        assert (
            len({look.marker for look in looks}) == len({str(k.line) for k in looks}) == len(names)
        )
        grey = sorted(
            sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
            for rgb in (mpl.colors.to_rgb(look.colour) for look in looks)
        )
        assert min(b - a for a, b in itertools.pairwise(grey)) > 0.12
