"""The same record in a bucket: nothing recorded is lost, though nothing can be appended."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from study.records import metrics_log as rows
from study.records.metrics_log import read_rows
from study.records.record import METRICS, Progress, Record, RecordError, write_failure
from study.records.storage import check_reachable, is_bucket, resolve
from tests.bucket import Strict

KEPT = {"step", "examples_seen", "pairs_seen", "attempt"}


@pytest.fixture
def folder(monkeypatch):
    Strict.clear()
    monkeypatch.setattr(rows, "PAUSE", 0.0)
    return resolve("bucket://lab/runs/s/x")


def about(hash_="a" * 64):
    return {"id": "x", "hash": hash_}


def attempt(folder, start, steps):
    record = Record(folder)
    record.begin(about(), seen=Progress(start, start, start))
    for step in steps:
        record.row(Progress(step, step, step), **{"a/x": step})
    return record


def lines(folder):
    """All lines without what differs from run to run."""
    logged = [json.loads(line) for line in read_rows(folder).splitlines() if line.strip()]
    logged.sort(key=lambda row: row["attempt"])
    kept = [{k: v for k, v in row.items() if k != "time"} for row in logged]
    assert all(set(row) >= KEPT for row in kept)
    return kept


def test_the_rows_of_a_bucket_are_those_of_a_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "PART", 300)  # some parts for each attempt
    for where in (folder, tmp_path / "x"):
        attempt(where, 0, range(1, 20)).close()
        record = attempt(where, 8, range(9, 30))
        record.items({"eval/top1": np.arange(13) % 3 == 0})
        assert record.attempt == 2
        assert record.summary(100) == {"a/x": 29}
        record.finish(Progress(30, 30, 30), status="done")
    assert lines(folder) == lines(tmp_path / "x")
    assert len(list((folder / "metrics").iterdir())) > 4
    name = "items/eval.top1.json"
    assert (folder / name).read_bytes() == (tmp_path / "x" / name).read_bytes()


def test_a_killed_process_loses_no_row_that_was_flushed(folder, monkeypatch):
    monkeypatch.setattr(rows, "PAUSE", 1e6)
    record = attempt(folder, 0, range(1, 6))
    assert [row["step"] for row in lines(folder)] == [0]  # the others wait
    record.flush()
    record.row(Progress(6, 6, 6))
    assert [row["step"] for row in lines(folder)] == [0, 1, 2, 3, 4, 5]  # as a kill leaves it


def test_a_discarded_record_is_not_written_again(folder, monkeypatch):
    monkeypatch.setattr(rows, "PAUSE", 1e6)
    record = attempt(folder, 0, range(1, 6))
    Strict.requests.clear()
    record.discard()
    record.flush()
    record.close()
    assert Strict.requests["write"] == 0


def test_rows_that_come_fast_are_written_together(folder, monkeypatch):
    monkeypatch.setattr(rows, "PAUSE", 1e6)
    Strict.requests.clear()
    record = attempt(folder, 0, range(1, 200))
    assert Strict.requests["write"] < 5
    monkeypatch.setattr(rows, "PAUSE", 0.0)
    record.row(Progress(200, 200, 200))  # the pause is over: this row takes the others along
    assert len(lines(folder)) == 201
    record.close()


def test_a_row_costs_no_more_than_its_part(folder, monkeypatch):
    monkeypatch.setattr(rows, "PART", 1000)
    attempt(folder, 0, range(1, 100)).close()
    sizes = [len(text) for name, (text, _) in Strict.objects.items() if "/metrics/" in name]
    assert max(sizes) <= 1000
    assert sum(sizes) > 5000


def test_what_the_bucket_refuses_is_one_line_and_the_next_row_brings_it(folder):
    record = attempt(folder, 0, [1])
    Strict.broken.append(RuntimeError("503 slow\ndown"))
    with pytest.raises(
        RecordError,
        match=r"cannot write bucket://lab/runs/s/x/metrics/\S+ \(RuntimeError: 503 slow down\);",
    ):
        record.row(Progress(2, 2, 2))
    record.row(Progress(3, 3, 3))
    record.close()
    assert [row["step"] for row in lines(folder)] == [0, 1, 2, 3]


def test_done_and_failure_are_whole_or_absent(folder):
    record = attempt(folder, 0, [1])
    write_failure(folder, error="boom")
    assert json.loads((folder / "FAILED.json").read_bytes())["error"] == "boom"
    Strict.broken.append(OSError("no"))
    with pytest.raises(RecordError, match="cannot write"):
        record.finish(Progress(2, 2, 2), status="done")
    assert record.done is None
    record.finish(Progress(2, 2, 2), status="done")
    assert record.done["step"] == 2


def test_a_new_attempt_removes_the_note_of_failure_and_another_cell_is_refused(folder):
    attempt(folder, 0, []).close()
    write_failure(folder, error="boom")
    attempt(folder, 0, []).close()
    assert not (folder / "FAILED.json").exists()
    with pytest.raises(RecordError, match="holds another cell"):
        Record(folder).begin(about("b" * 64), seen=Progress(0, 0, 0))


def test_a_record_that_was_moved_to_a_folder_goes_on_there(folder, tmp_path):
    attempt(folder, 0, range(1, 10)).close()
    for name, (text, _) in Strict.objects.items():
        path = tmp_path / name.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    moved = tmp_path / "runs/s/x"
    attempt(moved, 5, range(6, 12)).close()
    assert (moved / METRICS).exists()
    assert [row["attempt"] for row in lines(moved)] == [1] * 10 + [2] * 7
    assert Record(moved).summary(100) == {"a/x": 11}


def test_a_place_is_a_folder_or_a_bucket(tmp_path):
    assert resolve(f"file://{tmp_path}") == tmp_path
    assert not is_bucket(tmp_path)
    assert is_bucket(resolve("bucket://lab/runs") / "x")
    assert resolve(str(resolve("bucket://lab/runs") / "x")) == resolve("bucket://lab/runs/x")
    Strict.clear()
    with pytest.raises(RecordError, match=r"cannot reach bucket://lab/runs .*check its name"):
        check_reachable(resolve("bucket://lab/runs"))


def test_a_bucket_that_checkpoints_cannot_go_to_is_refused_in_one_line():
    for root in ("s3://lab/runs", "gcs://lab/runs", "az://lab/runs", "ftq://lab"):
        with pytest.raises(RecordError, match=f"^{root}: records are kept in a folder or in gs://"):
            resolve(root)


def test_a_missing_package_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for protocol in ("gs", "gcs"):  # fsspec keeps what an earlier test made it import
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(RecordError, match=r"needs gcsfs: pip install .*\[gcs\]"):
        resolve("gs://lab/runs")
