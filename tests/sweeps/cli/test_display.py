"""What a sweep says: events at once, progress now and then, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from study.config import Budget, Cell
from study.records.metrics_log import CellProgress
from sweeps.runner import display as report
from sweeps.runner.cell_status import CellStatus
from sweeps.runner.display import Lines, Live, Now, ProgressLine, duration, headline, rate

CELL = Cell(batch_size=16, budget=Budget(steps=100))


def status() -> CellStatus:
    return CellStatus(
        cell=CELL,
        folder=None,
        state="running",
        progress=CellProgress(step=25, examples_seen=400, attempts=2, examples_per_second=4000.0),
    )


def now() -> Now:
    return Now(
        study="s",
        cells=4,
        finished=1,
        failed=1,
        done=2000,
        target=6000,
        seconds_left=423.0,
        running=[status()],
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_events_are_lines_and_progress_fills_long_silences(monkeypatch):
    out = io.StringIO()
    lines = report.report_on(out)
    assert isinstance(lines, Lines)
    lines.line("[1/4] x done")
    lines.progress(now())
    assert out.getvalue() == "[1/4] x done\n"
    monkeypatch.setattr(report, "QUIET_SECONDS", 0.0)
    lines.progress(now())
    assert (
        out.getvalue().splitlines()[1] == f"[1/4] running {CELL.id} 25% (attempt 2), 7 min 3 s left"
    )


def test_on_a_terminal_there_is_a_bar_and_a_line_per_cell(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    live = report.report_on(out)
    assert isinstance(live, Live)
    live.progress(now())
    live.line("[1/4] x done")
    live.close()
    text = out.getvalue()
    for part in (
        "s: 1/4 cells, 1 failed",
        CELL.id,
        "25%",
        "4.0k ex/s",
        "attempt 2",
        "7 min 3 s left",
        "x done",
    ):
        assert part in text


def test_where_the_output_goes_can_move_and_come_back():
    home, away = io.StringIO(), io.StringIO()
    lines = Lines(home)
    lines.open(away)
    lines.line("away")
    lines.close()
    lines.line("home")
    assert (home.getvalue(), away.getvalue()) == ("home\n", "away\n")


def test_a_progress_line_leaves_nothing_on_a_terminal():
    out = Terminal()
    with ProgressLine(out) as steps:
        steps("rendering", 1, 2)
        steps("rendering", 2, 2)
    assert "rendering 1/2" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")  # the line is erased


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ({"eval/zero_shot/val_font/top1": 31.24, "train/loss": 1.0}, "zero-shot val_font 31.2 %"),
        ({"eval/retrieval/x/image_to_text_r1": 5.0}, "image-to-text R@1 x 5.0 %"),
        ({"train/loss": 1.23456}, "loss 1.235"),
        ({"train/loss": 1, "data/replaced_examples": 1200}, "loss 1, 1,200 examples replaced"),
        ({"eval/zero_shot/val_font/top1": None}, ""),
        ({}, ""),
    ],
)
def test_the_headline_is_the_figure_one_looks_at_first(summary, text):
    assert headline({"summary": summary}) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.12, "8.1 s"), (59.6, "60 s"), (423, "7 min 3 s"), (7500, "2 h 5 min")],
)
def test_durations_as_one_says_them(seconds, text):
    assert duration(seconds) == text


def test_rates_as_one_says_them():
    assert (rate(12.3), rate(48_250)) == ("12 ex/s", "48.2k ex/s")
