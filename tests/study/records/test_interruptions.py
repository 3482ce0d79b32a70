"""What interruptions cost: from the end of training to the first chunk of the next attempt."""

from __future__ import annotations

import json

import pytest

from study.records.interruptions import ATTEMPTS, Interruption, find_interruptions
from study.records.interruptions import read_interruptions as read
from study.records.metrics_log import METRICS


def line(attempt, step, time, event=None):
    counts = {"step": step, "examples_seen": 16 * step, "pairs_seen": 256 * step}
    return counts | {"attempt": attempt, "time": time} | ({"event": event} if event else {})


def attempt(number, start, time, *rows, training=True):
    """A start, the first chunk 3 s later, and rows 10 s apart."""
    lines = [line(number, start, time, "start")]
    if training:
        lines.append(line(number, start + 1, time + 3.0, "training"))
    return lines + [line(number, row, time + 10.0 * k) for k, row in enumerate(rows, 1)]


FIRST = attempt(1, 0, 100.0, 20, 40)  # ends at 120


@pytest.mark.parametrize(
    ("lines", "ends", "expected"),
    [
        (FIRST, (), []),
        ([*FIRST, *attempt(2, 30, 150.0, 40)], (), [(2, 33.0, 10)]),
        ([*FIRST, *attempt(2, 40, 150.0, 60)], (), [(2, 33.0, 0)]),
        # A checkpoint after the last row, and an end that was recorded.
        ([*FIRST, *attempt(2, 45, 150.0, 60)], (125.0,), [(2, 28.0, 0)]),
        # Ends of other attempts.
        ([*FIRST, *attempt(2, 30, 150.0, 60)], (99.0, 151.0), [(2, 33.0, 10)]),
        # The second attempt never trained: it is part of the first interruption.
        (
            [*FIRST, *attempt(2, 30, 150.0, training=False), *attempt(3, 30, 200.0, 40)],
            (130.0, 160.0),
            [(3, 73.0, 10)],
        ),
        # Not training again yet.
        ([*FIRST, *attempt(2, 30, 150.0, training=False)], (), []),
        # Killed between its first chunk and its first row.
        (
            [*FIRST, *attempt(2, 30, 150.0), *attempt(3, 30, 160.0, 40)],
            (),
            [(2, 33.0, 10), (3, 10.0, 1)],
        ),
        # The first attempt never trained.
        (
            [*attempt(1, 0, 100.0, training=False), *attempt(2, 0, 150.0, 20)],
            (),
            [(2, 53.0, 0)],
        ),
        # Clocks of two hosts.
        ([*FIRST, *attempt(2, 30, 110.0, 40)], (), [(2, 0.0, 10)]),
        # Before the first chunk was logged.
        (
            [
                *attempt(1, 0, 100.0, 20, 40, training=False),
                *attempt(2, 30, 150.0, 40, training=False),
            ],
            (),
            [(2, None, 10)],
        ),
    ],
)
def test_interruptions(lines, ends, expected):
    assert find_interruptions(lines, ends) == [Interruption(*values) for values in expected]


def test_ends_are_those_of_attempts_json(tmp_path):
    assert read(tmp_path) == []
    lines = [*FIRST, *attempt(2, 30, 150.0, 40)]
    (tmp_path / METRICS).write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert read(tmp_path) == [(2, 33.0, 10)]
    for content in ("torn", "[]", '{"attempts": [1]}', '{"attempts": [{"ended": null}]}'):
        (tmp_path / ATTEMPTS).write_text(content)
        assert read(tmp_path) == [(2, 33.0, 10)]
    ended = {"attempts": [{"ended": 125.0}, {"ended": None}]}
    (tmp_path / ATTEMPTS).write_text(json.dumps(ended))
    assert read(tmp_path) == [(2, 28.0, 10)]
