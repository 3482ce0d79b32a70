"""What a run refuses, in one line, before anything is recorded."""

from __future__ import annotations

import dataclasses
import json

import pytest

from study.config import CellError, ZeroShot
from study.data.formats.dataset import DataError
from study.records.record import METRICS, RecordError
from study.training.loop import Stopped, train
from tests.study.training.test_train import CELL, execution, stop_after


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"batch_size": 20}, CellError, "batch_size: 20 .* 8 devices"),
        ({"data": {"dataset": "nowhere"}}, DataError, "nowhere"),
        ({"evals": (ZeroShot(split="nope"),)}, DataError, "nope"),
        ({"evals": (ZeroShot(split="test_chars"),)}, DataError, "test_chars .* no examples"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_attempt(change, error, words, tmp_path, small_glyphs):
    if "data" in change:
        change = {"data": dataclasses.replace(CELL.data, **change["data"])}
    cell = dataclasses.replace(CELL, **change)
    with pytest.raises(error, match=words) as caught:
        train(cell, execution(small_glyphs), folder=tmp_path / "x", group="s")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "x" / METRICS).exists()


def test_another_data_set_under_the_same_name_is_refused(tmp_path, small_glyphs, one_device):
    with pytest.raises(Stopped):
        train(
            CELL,
            execution(small_glyphs),
            folder=tmp_path / "x",
            group="s",
            should_stop=stop_after(1),
        )
    about = json.loads((tmp_path / "x" / "cell.json").read_text())
    about["dataset_fingerprint"] = "0" * 64
    (tmp_path / "x" / "cell.json").write_text(json.dumps(about))
    with pytest.raises(RecordError, match="data set"):
        train(CELL, execution(small_glyphs), folder=tmp_path / "x", group="s")
