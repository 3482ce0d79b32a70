"""The report is one file that loads nothing, says what is there and what is not, and escapes."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from analysis.claims import CLAIMS, judge, judge_study, parse_intervals
from analysis.errors import AnalysisError
from analysis.figures import FIGURES, TABLES, draw_all, fig_6, read_inputs
from analysis.report import Assumption, StudyInfo, prose, render_page, write_report
from analysis.report.contents import alt_text
from study.config import Model, TextTransformer, ViT
from tests.analysis.conftest import make_cell

QUALITY = {16: 34.0, 64: 40.0, 256: 44.0}
LOWER = {16: 30.0, 64: 38.0, 256: 44.0}
MASKED = {
    (None, None): (30.0, -10.0, 0.0, -10.0),
    ("random", 32.0): (22.0, -9.0, 2.0, -9.0),
    ("hard", 32.0): (29.0, -10.0, 0.0, -10.0),
}
EVIL = "<script>alert(1)</script>"
SOME = {name: FIGURES[name] for name in ("batch_size", "fig_6")}  # each takes its time
STATED = {
    "question": f"Why {EVIL}?",
    "assumptions": (Assumption("warmup", "5 %", f"not in the paper {EVIL}"),),
    "commands": ("study run x",),
}
SCRATCH = Model(image=ViT(), text=TextTransformer(), embed_dim=32)
VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text, and which tags were left open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], [""]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page(writer, *, figures=SOME, **stated):
    info = StudyInfo(study=writer.study, **stated)
    inputs = read_inputs(writer.root, info.study, planned=info.planned)
    return render_page(inputs, info, judge(inputs.cells), figures=figures, tables={})


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    from tests.analysis.conftest import Writer

    writer = Writer(tmp_path_factory.mktemp("full") / "runs")
    writer.batch_panel(QUALITY, LOWER)
    writer.composition_panel(MASKED)
    return writer


@pytest.fixture(scope="module")
def text(full):
    return page(full, **STATED)


def test_it_loads_nothing_and_names_no_path_of_this_machine(full, text):
    for tag, attrs in Page(text).elements:
        assert tag not in ("iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert re.match(r"(data:|#)", attrs.get(name, "#")), (tag, attrs)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert str(full.root) not in text
    assert len(Page(text).all("svg")) == 2 * len(SOME)  # for wide and for narrow screens


def test_what_a_grid_or_a_record_says_is_escaped(text, writer):
    assert len(Page(text).all("script")) == 1  # the page's own
    assert f"Why {EVIL}?" in Page(text).text
    assert f"not in the paper {EVIL}" in Page(text).text
    writer.failed(writer.cell(16), f"{EVIL}<img src=x onerror=alert(1)>")
    failed = Page(page(writer))
    assert len(failed.all("script")) == 1
    assert failed.all("img") == []
    assert EVIL in failed.text


def test_its_policy_forbids_what_it_does_not_need(full, text):
    policy = next(a["content"] for a in Page(text).all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_same_records_give_the_same_bytes(full, text):
    assert page(full, **STATED) == text


@pytest.mark.slow
def test_every_figure_is_shown_or_its_absence_explained(writer, tmp_path):
    """Those that are shown are written as files too, and drawn again they have the same bytes."""
    writer.batch_panel(QUALITY, LOWER)
    writer.composition_panel(MASKED)
    writer.batch_panel({16: 12.0, 256: 19.0}, {16: 9.0, 256: 17.0}, model=SCRATCH)
    info = StudyInfo(study=writer.study)
    written = write_report(tmp_path / "all.html", writer.root, info, figures=tmp_path / "figures")
    assert (tmp_path / "all.html").stat().st_size < 3_000_000
    again = draw_all(writer.root, writer.study, tmp_path / "again")
    assert [one.name for one in again] == [*FIGURES, *TABLES]
    drawn = [one for one in again if one.skipped is None]
    assert {one.name for one in drawn} >= {*SOME, "from_scratch", "fig_2", "table_5", "table_8"}
    for first, second in zip(written.figures, drawn, strict=True):
        assert first.missing == second.missing == []
        for one, two in zip(first.paths, second.paths, strict=True):
            assert one.name == two.name and one.stat().st_size > 100
            assert one.read_bytes() == two.read_bytes(), one.name
    page = Page((tmp_path / "all.html").read_text())
    shown = {a["id"].removeprefix("figure-") for a in page.all("figure") if "id" in a}
    assert {one.name for one in drawn} - {*TABLES} == shown
    assert "Table 8" in page.text
    for name in {*FIGURES} - shown:
        assert re.search(rf"\b{name} : \w+", page.text), name


def test_verdicts_have_effect_interval_and_cells(full, text):
    said = Page(text).text
    assert "With small batches the sigmoid loss is clearly better" in said
    for part in ("reproduced", "effect", "95 % interval", "cells", "points"):
        assert part in said
    assert re.search(r"95 % interval -?[\d.]+ to -?[\d.]+", said)


def test_figures_are_told_to_those_who_do_not_see_them(full, text):
    for attrs in Page(text).all("svg"):
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"]) > 100
    words = alt_text(fig_6(read_inputs(full.root, full.study)))
    for part in ("Batch composition", "learned bias", "random, hardest"):
        assert part in words
    assert "Means over 2 seeds." in Page(text).text


def test_marks_say_what_they_are_and_belong_to_a_series_that_can_be_hidden(full, text):
    figure = text.partition('<figure id="figure-batch_size"')[2].partition("</figure>")[0]
    buttons = re.findall(r'data-series="(\d+)" aria-pressed="true">(\w+)<', figure)
    assert [label for _, label in buttons] == ["sigmoid", "softmax"]
    index = dict(map(reversed, buttons))["softmax"]
    title = re.escape("softmax: batch size 64, zero-shot top-1 (%) on test font ")
    mark = rf'<circle [^>]*data-series="{index}"><title>{title}([\d.]+)</title>'
    values = list(map(float, re.findall(mark, figure.partition('class="plot column"')[0])))
    drawn = FIGURES["batch_size"].data(read_inputs(full.root, full.study))
    seeds = drawn.query("kind == 'seed' and series == 'softmax' and x == 64")["value"]
    assert sorted(values) == pytest.approx(sorted(seeds), rel=1e-3)
    assert len(values) == 2
    assert f'id="batch_size.text.series-{index}.' in figure
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_verdicts_and_figures_lead_to_each_other(text):
    claim = text.partition('id="claim-sigmoid-ahead-at-small-batch"')[2].partition("</article>")[0]
    assert 'href="#figure-batch_size"' in claim
    figure = text.partition('<figure id="figure-batch_size"')[2].partition("</figure>")[0]
    assert 'href="#claim-sigmoid-ahead-at-small-batch"' in figure
    assert {claim.figure for claim in CLAIMS} - {""} <= {*FIGURES}


def test_verdicts_and_their_cells_lead_to_each_other(full, text):
    verdicts = {one.name: one for one in judge_study(full.root, full.study)}
    small = verdicts["sigmoid ahead at small batch"]
    cells = read_inputs(full.root, full.study).cells
    assert set(small.evidence) == set(cells["id"][cells["batch_size"] == min(QUALITY)])
    rows = text.partition('id="every-cell"')[2].partition("</details>")[0].split("<tr>")[1:]
    tested = [verdict for verdict in verdicts.values() if verdict.evidence]
    assert len(tested) > 8
    for verdict in tested:
        anchor = "claim-" + re.sub(r"[^a-z0-9]+", "-", verdict.name).strip("-")
        card = text.partition(f'id="{anchor}"')[2].partition("</article>")[0]
        mark, count, again = re.search(r'data-rows="(v\d+)">(\d+), marked (v\d+)<', card).groups()
        assert mark == again and int(count) == verdict.cells == len(verdict.evidence)
        marked = [row for row in rows if f'<a href="#{anchor}">{mark}</a>' in row]
        assert {re.match("<td>([^<]+)<", row)[1] for row in marked} == {*verdict.evidence}
        assert len(marked) == text.count(f">{mark}</a>")  # which a reader of the table filters by


def test_a_true_sentence_is_not_called_contradicted(full):
    against = "Softmax leads. [sigmoid ahead at small batch: contradicted]"
    verdicts = [replace(one, verdict="contradicted") for one in judge_study(full.root, full.study)]
    inputs = read_inputs(full.root, full.study)
    info = StudyInfo(study=full.study, finding=prose.parse(against))
    said = Page(render_page(inputs, info, verdicts, figures={}, tables={})).text
    assert "Softmax leads. sigmoid ahead at small batch: the paper says otherwise" in said


def test_headings_step_down_one_at_a_time(text):
    levels = [int(tag[1]) for tag, _ in Page(text).elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert Page(text).open == [""]


def test_the_question_the_assumptions_and_how_to_reproduce_are_there(text):
    said = Page(text).text
    for part in ("Assumptions", "warmup: 5 %", "How to reproduce", "study run x"):
        assert part in said


def test_provenance_is_that_of_the_records(writer):
    for seed, code in ((0, "0.1.0+aaa"), (1, "0.1.0+bbb")):
        cell = writer.done(writer.cell(16, seed=seed), 30.0)
        path = writer.folder(cell) / "cell.json"
        more = {"code": code, "versions": {"jax": "9.9"}}
        more |= {"devices": {"kind": "TPU v4", "count": 32, "processes": 4}}
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    said = Page(page(writer, figures={})).text
    for part in (
        *("2 cells", "glyphs, fingerprint ffffffffff", "jax 9.9", "32 x TPU v4 in 4 processes"),
        *("0.1.0+aaa (1 cells); 0.1.0+bbb (1 cells)", "4 seconds", "600,000 examples"),
    ):
        assert part in said, part


def test_cells_that_are_not_done_are_listed(writer):
    writer.batch_panel(QUALITY, LOWER)
    panel = [
        make_cell(size, loss, seed)
        for size in QUALITY
        for loss in ("sigmoid", "softmax")
        for seed in (0, 1)
    ]
    failed = writer.failed(writer.cell(1024, "softmax"), "out of memory")
    diverged = writer.done(writer.cell(2048), status="diverged")
    running = writer.cell(4096)
    writer.begin(running).close()
    waiting = writer.cell(8192)
    planned = tuple(
        {"id": c.id, "cell": writer.about(c)["cell"]}
        for c in (*panel, failed, diverged, running, waiting)
    )
    said = Page(page(writer, figures={}, planned=planned)).text
    assert "12 of 16 cells are done" in said
    listed = said.partition("Cells that are not done")[2].partition("Provenance")[0]
    for part in (
        *(failed.id, "out of memory", diverged.id, "diverged", running.id),
        *("1 not started", waiting.id),
    ):
        assert part in listed, part


def test_no_cell_at_all_is_said_and_only_failed_cells_make_a_page(writer):
    said = Page(page(writer, question="Q?"))
    assert "There are no records yet." in said.text
    assert said.all("svg") == []
    assert not re.search(r"\bnan\b", said.text)
    writer.failed(writer.cell(16), "out of memory")
    said = Page(page(writer))
    assert "0 of 1 cells are done" in said.text
    assert "No claim can be tested" in said.text


def test_no_such_study_and_no_such_place_are_one_line(writer, tmp_path):
    with pytest.raises(AnalysisError, match="no study 'other'"):
        write_report(tmp_path / "x.html", writer.root, StudyInfo(study="other"))
    (tmp_path / "file").write_text("")
    with pytest.raises(AnalysisError, match=r"cannot write .*; choose another --out"):
        write_report(tmp_path / "file" / "x.html", writer.root, StudyInfo(study=writer.study))


LEADS = "Sigmoid leads when batches are small. [sigmoid ahead at small batch: {}]"


def test_a_finding_shows_the_verdict_under_each_sentence(full):
    of = prose.parse(f"## Batch\n\n> Two {EVIL} seeds.\n\n{LEADS.format('reproduced')}")
    said = Page(page(full, figures={}, finding=of))
    assert f"Two {EVIL} seeds." in said.text
    assert (
        "Sigmoid leads when batches are small. sigmoid ahead at small batch: reproduced"
        in said.text
    )
    links = [a["href"] for a in said.all("a") if "tag" in a.get("class", "")]
    assert links == ["#claim-sigmoid-ahead-at-small-batch"]
    assert "claim-sigmoid-ahead-at-small-batch" in {a.get("id") for a in said.all("article")}


def test_a_finding_that_records_no_longer_bear_out_says_so(full, tmp_path):
    info = StudyInfo(study=full.study, finding=prose.parse(LEADS.format("contradicted")))
    (line,) = write_report(tmp_path / "x.html", full.root, info).stale
    assert "for contradicted; on these records it is reproduced" in line
    said = Page((tmp_path / "x.html").read_text())
    assert "was contradicted, now reproduced" in said.text


def test_a_number_that_records_no_longer_give_is_stale(full):
    judged = judge_study(full.root, full.study)
    (lead,) = (one for one in judged if one.name == "sigmoid ahead at small batch")
    ((estimate, low, high),) = parse_intervals(lead.sentence)

    def stale(numbers):
        text = LEADS.format(lead.verdict).replace("small.", f"small, by {numbers} points.")
        return prose.stale(prose.with_verdicts(prose.parse(text), judged))

    assert stale(f"{estimate:.2f} [{low:.2f}, {high:.2f}]") == []
    assert stale(f"{-estimate:.2f} [{-high:.2f}, {-low:.2f}]") == []  # softmax minus sigmoid
    (line,) = stale(f"{estimate:.2f} [{low:.2f}, {high + 1:.2f}]")
    assert "on these records 'sigmoid ahead at small batch' do not" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Sigmoid is best.", "rests on no claim"),
        (f"{LEADS.format('reproduced')} And so on.", "'And so on.' rests on no claim"),
        ("Sigmoid is best. [sigmoid is best: reproduced]", "no claim is named 'sigmoid is best'"),
    ],
)
def test_every_sentence_of_a_finding_rests_on_a_claim(text, says):
    with pytest.raises(AnalysisError, match=says):
        prose.parse(text)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [500, 1200])  # headless Chromium's windows start at 500 pixels
def test_chromium_draws_it_within_the_window(text, tmp_path, width):
    (tmp_path / "report.html").write_text(text)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
               f"--window-size={width},2400", f"--screenshot={tmp_path / 'page.png'}",
               (tmp_path / "report.html").as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    picture = np.asarray(Image.open(tmp_path / "page.png").convert("L"), dtype=int)
    assert picture.shape == (2400, width)
    assert (np.ptp(picture[:, 16:-16], axis=1) > 100).mean() > 0.3  # ink in many rows
    assert np.ptp(picture[:, -10:]) < 12  # nothing runs out of the page on the right


def test_interruptions_are_counted_and_timed(writer):
    """(attempt, first step, time of the start, time of the first chunk)"""
    attempts = {
        0: [(0, 100.0, 101.0)],
        1: [(0, 100.0, 101.0), (2, 130.0, 140.5), (2, 150.0, 171.0)],
        2: [(0, 100.0, None), (2, 130.0, None)],
    }
    for seed, starts in attempts.items():
        cell = writer.cell(16, seed=seed)
        for start, begun, training in starts:
            record = writer.begin(cell, step=start)
            if training is not None:
                record.row(writer.seen(cell, start + 1), event="training", time=training)
            for step in range(start + 1, start + 4):
                record.row(writer.seen(cell, step), time=begun + 4 * (step - start))
            record.close()
            path = writer.folder(cell) / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines[-4 - (training is not None)]["time"] = begun
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Page(page(writer, figures={})).text
    assert "2 cells were interrupted." in text
    assert "training again: 28.8 s in the median, 29.0 s at most" in text
    interrupted, old = (writer.cell(16, seed=seed).id for seed in (1, 2))
    assert f"{interrupted} 3 28.8 29 4" in text
    assert f"{old} 2 not recorded not recorded 1" in text


def test_without_interruptions_nothing_is_said_of_them(text):
    assert "nterrupted." not in Page(text).text
    assert "#interruptions" not in {attrs["href"] for attrs in Page(text).all("a")}
