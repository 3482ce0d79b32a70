"""Figures: the same records give the same bytes, and what is missing is said."""

import itertools
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image

from analysis.errors import AnalysisError
from analysis.figures import (
    FIGURES,
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
from tests.analysis.figures.pictures import check

OURS = ("batch_size", "fig_6")  # those of the demo
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


def test_rows_of_panels_are_about_as_long_as_one_another():
    wide = {panels: layout.arrange(panels, wide=3) for panels in range(9)}
    assert wide[0] == [] and wide[2] == [2] and wide[4] == [2, 2] and wide[7] == [3, 2, 2]
    assert all(sum(rows) == panels for panels, rows in wide.items())
    with style.page("column"):
        assert layout.arrange(3, wide=3) == [1, 1, 1]


def table(writer, figure=batch_size):
    return figure.data(read_inputs(writer.root, writer.study))


def drawn_one(writer, out, name="batch_size"):
    (one,) = draw_each([FIGURES[name]], read_inputs(writer.root, writer.study), out)
    return one


def text_of(fig):
    return "\n".join(text.get_text() for text in fig.texts)


def caption_of(fig):
    return " ".join(fig.caption)


def test_figures_that_are_named_are_drawn_and_no_others(full, tmp_path):
    drawn = draw_all(full.root, full.study, tmp_path / "some", only=["table_1", "batch_size"])
    assert [one.name for one in drawn] == ["batch_size", "table_1"]
    paper = draw_paper(tmp_path / "paper", only=["fig_3"])
    assert [one.name for one in paper] == ["fig_3"]
    assert {path.stem for path in (tmp_path / "paper").iterdir()} == {"fig_3"}


def test_the_readers_own_settings_change_no_byte(full, tmp_path):
    data = table(full)
    plain, *_ = layout.save(batch_size.draw(data), tmp_path / "one")
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        again, *_ = layout.save(batch_size.draw(data), tmp_path / "two")
    assert plain.read_bytes() == again.read_bytes()


def test_missing_cells_are_returned_and_stand_in_the_caption(writer, tmp_path):
    writer.batch_panel(QUALITY, LOWER)
    failed = writer.failed(writer.cell(1024, "softmax", 0), "out of memory")
    writer.done(writer.cell(1024, "sigmoid", 0), 45.0)
    assert drawn_one(writer, tmp_path).missing == [
        f"{failed.id} (failed: out of memory)",
        "no record of b1024 sigmoid seed 1",
        "no record of b1024 softmax seed 1",
    ]
    data = table(writer)
    assert failed.id in caption_of(batch_size.draw(data))
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
    assert kept == {"batch_size", "fig_2", "loss_gap", "verdicts"}


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
    text = caption_of(batch_size.draw(table(full)))
    for part in ("glyphs", "cached image", "averaging text tower", "300,000 examples", "0.005"):
        assert part in text
    scratch = FIGURES["from_scratch"]
    assert "transformer text tower" in caption_of(scratch.draw(table(full, scratch)))


def test_provenance_follows_the_records(full):
    before = table(full).attrs["provenance"]
    assert before == batch_size.draw(table(full)).provenance
    assert "14 cells" in before
    full.done(full.cell(16, "sigmoid", 5), 34.0)
    assert table(full).attrs["provenance"] != before


def test_one_seed_draws_without_intervals(writer, tmp_path):
    writer.batch_panel(QUALITY, LOWER, seeds=1)
    drawn = drawn_one(writer, tmp_path)
    assert pd.read_csv(drawn.paths[-1])["low"].isna().all()
    assert "no interval" in caption_of(batch_size.draw(table(writer)))


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
@pytest.mark.parametrize(("records", "width"), [("synthetic", "column"), ("demo", "slide")])
def test_text_is_legible_inside_the_picture(name, records, width, full):
    """The demo's own numbers too: their tick labels leave less room."""
    if records == "demo":
        data = pd.read_csv(DEMO / f"demo-{name}.csv")
    else:
        data = table(full, FIGURES[name])
    check(FIGURES[name].draw(data, width=width))


def test_a_bare_picture_has_no_title_and_its_caption_beside_it(full, tmp_path):
    data = table(full)
    titled, bare = batch_size.draw(data), batch_size.draw(data, bare=True, width="slide")
    assert titled.title in text_of(titled) and not text_of(bare)
    assert (bare.get_size_inches() * bare.dpi).round().tolist() == [1920, 1080]
    png, pdf, md, tex = layout.save(bare, tmp_path / "one")
    words = " ".join(bare.caption)
    assert md.read_text().startswith(f"**{bare.title}.** {words}")
    assert bare.provenance in md.read_text()
    assert tex.read_text().splitlines()[0] == f"% {bare.provenance}"
    assert r"95 \% interval" in tex.read_text() and r"\label{fig:one}" in tex.read_text()
    with Image.open(png) as image:
        assert image.info["Description"] == words and image.info["Source"] == bare.provenance
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()
    assert "<text" in layout.render_svg(bare)


def test_latex_holds_every_character_of_the_text():
    assert layout.to_latex(r"a_b & 5 % of {x}^2 ~ \n") == (
        r"a\_b \& 5 \% of \{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{}n"
    )
    assert (
        layout.to_latex("top-1 [-0.2, 1-2] \N{PLUS-MINUS SIGN} 3") == r"top-1 [$-$0.2, 1-2] $\pm$ 3"
    )


def test_a_legend_reads_row_by_row():
    handles = [style.STYLES["sigmoid"].handle(f"series {i}" * 3) for i in range(5)]
    with style.page():
        fig, _ = layout.make_figure(pd.DataFrame(), title="", heights=2.0, legend=handles)
    check(fig)
    boxes = {text.get_text(): text.get_window_extent() for text in fig.legends[0].get_texts()}
    order = sorted(boxes, key=lambda label: (-round(boxes[label].y0), boxes[label].x0))
    assert order == sorted(boxes)


def test_batch_sizes_have_round_labels_and_those_of_the_paper():
    def labels(sizes, width, panels=1):
        with style.page(width):
            fig, (axes, *_) = layout.make_figure(
                pd.DataFrame(), title="", heights=1.6, columns=[panels]
            )
            axes.plot(sizes, sizes)
            style.batch_axis(axes, sizes)
            check(fig)
        return [text.get_text() for text in axes.get_xticklabels()]

    powers = [2**k for k in range(4, 17)]
    assert labels(powers, "column") == ["16", "64", "256", "1k", "4k", "16k", "64k"]
    paper = [4096, 8192, 16384, 32768, 98304, 307200]
    assert labels(paper, "text") == ["4k", "8k", "16k", "32k", "98k", "307k"]
    assert labels(paper, "column", 2) == ["4k", "16k", "98k", "307k"]
    assert labels([2**k for k in range(11, 21)], "column", 2) == ["4k", "64k", "1M"]
    assert labels([256, 512], "column") == ["256", "512"]
    assert labels([64], "column") == ["64"]


def test_intervals_of_percentages_end_at_zero_and_a_hundred(writer):
    writer.batch_panel({16: 0.5, 256: 99.8}, {16: 0.5, 256: 99.8}, seeds=2)
    means = table(writer)
    means = means[(means["panel"] == "ours") & (means["kind"] == "mean")]
    assert means["low"].min() >= 0 and means["high"].max() <= 100


def test_navy_and_orange_are_the_losses_alone():
    others = [look for name, look in style.STYLES.items() if name not in style.LOSSES]
    colours = {look.colour for look in [*others, *style.ORDERED_STYLES]}
    assert not colours & {style.NAVY, style.ORANGE}


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
