"""Records: append-only, atomic where whole, nothing recorded is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.records.frame import AnalysisError, items
from study.records.metrics_log import read_progress
from study.records.record import METRICS, Progress, Record, RecordError, write_failure


def about(hash_="a" * 64):
    return {"id": "x", "hash": hash_}


def lines(record):
    return (record.folder / METRICS).read_text().splitlines()


def test_every_line_says_how_far_and_which_attempt(tmp_path):
    record = Record(tmp_path / "x")
    assert record.begin(about(), seen=Progress(0, 0, 0)) == 1
    record.row(Progress(3, 48, 10**30), **{"train/loss": 1.5})
    record.close()
    again = Record(tmp_path / "x")
    assert again.begin(about(), seen=Progress(3, 48, 768)) == 2
    again.close()
    rows = [json.loads(line) for line in lines(record)]
    assert [r["attempt"] for r in rows] == [1, 1, 2]
    assert rows[1]["pairs_seen"] == 10**30
    assert all({"step", "examples_seen", "pairs_seen", "attempt", "time"} <= set(r) for r in rows)


def test_a_torn_line_spoils_no_other(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    record.row(Progress(1, 1, 1), **{"a/x": 1})
    record.close()
    path = tmp_path / METRICS
    path.write_text(path.read_text() + '{"step": 2, "a/x"')
    again = Record(tmp_path)
    again.begin(about(), seen=Progress(1, 1, 1))
    again.row(Progress(2, 2, 2), **{"a/y": 2})
    again.close()
    assert again.summary(2) == {"a/x": 1, "a/y": 2}


def test_what_is_no_row_spoils_no_other(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    record.row(Progress(1, 1, 1), **{"a/x": 1})
    record.close()
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'\xcd\xfe\x00\n[1]\n3\n{"a/x": 9}\n' + bytes(512))
    again = Record(tmp_path)
    again.begin(about(), seen=Progress(1, 1, 1))
    again.close()
    assert again.summary(1) == {"a/x": 1}
    (tmp_path / METRICS).unlink()
    assert again.summary(1) == {}


def test_the_summary_leaves_out_superseded_rows(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    record.row(Progress(5, 5, 5), **{"a/x": 5})
    record.row(Progress(9, 9, 9), **{"a/x": 9, "a/only": 9})
    record.close()
    again = Record(tmp_path)
    again.begin(about(), seen=Progress(5, 5, 5))
    again.close()
    assert again.summary(100) == {"a/x": 5}


def test_another_cell_is_refused(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    record.close()
    with pytest.raises(RecordError, match="holds another cell"):
        Record(tmp_path).begin(about("b" * 64), seen=Progress(0, 0, 0))
    assert len(lines(record)) == 1


def test_done_is_whole_or_absent(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    assert record.done is None
    record.finish(Progress(2, 4, 8), status="done", summary={"a/x": 1.0})
    assert record.done["pairs_seen"] == 8
    for torn in (b'{"status": "do', b"", b"{}", b"[]", b"\xa7\x00"):
        (tmp_path / "DONE.json").write_bytes(torn)
        assert record.done is None
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))

    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    record._rows.close()
    record._rows = Full()
    with pytest.raises(RecordError, match=r"No space left.*make room.*is kept"):
        record.row(Progress(1, 1, 1))


def test_a_new_attempt_removes_the_note_of_failure(tmp_path):
    write_failure(tmp_path, error="boom")
    assert (tmp_path / "FAILED.json").exists()
    record = Record(tmp_path)
    record.begin(about(), seen=Progress(0, 0, 0))
    record.close()
    assert not (tmp_path / "FAILED.json").exists()


def test_items_unpack_to_what_was_kept(tmp_path):
    record = Record(tmp_path / "s" / "c")
    hits = np.arange(13) % 3 == 0
    record.items({"eval/zero_shot/val/top1": hits, "eval/a": hits[:8], "eval/b": hits[:0]})
    unpacked = items(tmp_path, "s", "c")
    np.testing.assert_array_equal(unpacked["eval/zero_shot/val/top1"], hits)
    np.testing.assert_array_equal(unpacked["eval/a"], hits[:8])
    assert unpacked["eval/b"].shape == (0,)


class Killed(BaseException):
    pass


# A kill leaves the file open, as this test means it to: the filter stays.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_items_are_the_old_ones_or_the_new_ones_after_a_kill_at_any_line(tmp_path):
    record, key = Record(tmp_path / "s" / "c"), "eval/top1"
    old, new = np.arange(40) % 3 == 0, np.arange(7) % 2 == 0
    seen, after = set(), 0
    while True:
        record.items({key: old})
        after, left = after + 1, [after + 1]

        def trace(frame, event, _, left=left):
            if Path(frame.f_code.co_filename).name != "record.py":
                return None
            if event == "line":
                left[0] -= 1
                if not left[0]:
                    raise Killed
            return trace

        sys.settrace(trace)
        try:
            record.items({key: new})
        except Killed:
            pass
        finally:
            sys.settrace(None)
        hits = items(tmp_path, "s", "c")[key]
        seen.add(len(hits))
        np.testing.assert_array_equal(hits, old if len(hits) == len(old) else new)
        if left[0] > 0:  # it came to its end
            break
    assert seen == {len(old), len(new)} and after > 10


def test_items_of_earlier_records_are_read_and_a_torn_pair_is_named(tmp_path):
    folder = tmp_path / "s" / "c" / "items"
    folder.mkdir(parents=True)
    hits = np.arange(13) % 3 == 0
    np.save(folder / "eval.top1.npy", np.packbits(hits))
    (folder / "eval.top1.json").write_text('{"metric": "eval/top1", "examples": 13}')
    np.testing.assert_array_equal(items(tmp_path, "s", "c")["eval/top1"], hits)
    (folder / "eval.top1.json").write_text('{"metric": "eval/top1", "examples": 40}')
    with pytest.raises(
        AnalysisError, match=r"items/eval\.top1\.json cannot be read \(2 bytes for 40"
    ):
        items(tmp_path, "s", "c")
    Record(tmp_path / "s" / "c").items({"eval/top1": ~hits})  # an attempt by this version
    np.testing.assert_array_equal(items(tmp_path, "s", "c")["eval/top1"], ~hits)


def test_progress_reads_the_tail_only(tmp_path):
    folder = tmp_path / "x"
    assert read_progress(folder).step == 0
    folder.mkdir()
    old = [
        {"step": s, "examples_seen": 16 * s, "pairs_seen": 256 * s, "attempt": 1, "time": s * 1.0}
        for s in range(1, 3000)
    ]
    start = {"step": 100, "examples_seen": 1600, "pairs_seen": 25600, "attempt": 2}
    new = [
        {"step": 100 + k, "examples_seen": 1600 + 16 * k, "pairs_seen": 1, "attempt": 2}
        | {"time": 5000.0 + 0.5 * k}
        for k in range(1, 11)
    ]
    logged = [*old, start | {"event": "start", "time": 4000.0}, *new]
    (folder / METRICS).write_text(
        "".join(json.dumps(row) + "\n" for row in logged) + '{"step": 999, "ex'
    )
    progress = read_progress(folder, tail_bytes=4096)
    assert (progress.step, progress.examples_seen, progress.attempts) == (110, 1760, 2)
    assert progress.examples_per_second == pytest.approx(32.0)  # without the start's long wait
