"""The leaderboard: means over seeds, the best first."""

import pytest

from analysis.errors import AnalysisError
from analysis.select.leaderboard import rank

QUALITY = {16: 30.0, 64: 50.0}


@pytest.fixture
def board(writer):
    writer.batch_panel(QUALITY, {16: 20.0, 64: 40.0}, sd=0.0, seeds=3)
    return lambda **more: rank(writer.root, writer.study, **more)


def test_seeds_are_one_row_and_the_best_is_first(board):
    rows = board().rows
    assert [row["mean"] for row in rows] == [50, 40, 30, 20]
    assert {len(row["values"]) for row in rows} == {len(row["cells"]) for row in rows} == {3}
    fields = rows[0]["fields"]
    assert (fields["batch_size"], fields["loss.kind"]) == (64, "sigmoid")
    assert {"optimizer.learning_rate", "examples"} < set(fields)


def test_by_keeps_the_best_of_each_value(board):
    rows = board(by=["batch_size"]).rows
    assert [(row["fields"]["batch_size"], row["mean"]) for row in rows] == [(64, 50), (16, 30)]


def test_a_wrong_metric_or_field_is_named(board):
    with pytest.raises(AnalysisError, match="has ended with eval/lost; metrics that they have: ev"):
        board(metric="eval/lost")
    with pytest.raises(AnalysisError, match="no field lost; fields are batch_size"):
        board(by=["lost"])


def test_the_only_evaluation_is_the_metric(writer):
    other = "eval/zero_shot/val_font/top1"
    for size, quality in QUALITY.items():
        writer.measured(writer.cell(size), {other: quality})
    board = rank(writer.root, writer.study)
    assert (board.metric, [row["mean"] for row in board.rows]) == (other, [50, 30])
