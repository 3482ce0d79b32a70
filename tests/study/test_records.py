"""Records: append-only, atomic where whole, nothing recorded is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from study.records import METRICS, Record, RecordError, Seen, write_failure


def about(hash_="a" * 64):
    return {"id": "x", "hash": hash_}


def lines(record):
    return (record.folder / METRICS).read_text().splitlines()


def test_every_line_says_how_far_and_which_attempt(tmp_path):
    record = Record(tmp_path / "x")
    assert record.begin(about(), seen=Seen(0, 0, 0)) == 1
    record.row(Seen(3, 48, 10**30), **{"train/loss": 1.5})
    record.close()
    again = Record(tmp_path / "x")
    assert again.begin(about(), seen=Seen(3, 48, 768)) == 2
    again.close()
    rows = [json.loads(line) for line in lines(record)]
    assert [r["attempt"] for r in rows] == [1, 1, 2]
    assert rows[1]["pairs_seen"] == 10**30
    assert all({"step", "examples_seen", "pairs_seen", "attempt", "time"} <= set(r) for r in rows)


def test_a_torn_line_spoils_no_other(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    record.row(Seen(1, 1, 1), **{"a/x": 1})
    record.close()
    path = tmp_path / METRICS
    path.write_text(path.read_text() + '{"step": 2, "a/x"')
    again = Record(tmp_path)
    again.begin(about(), seen=Seen(1, 1, 1))
    again.row(Seen(2, 2, 2), **{"a/y": 2})
    again.close()
    assert again.summary(2) == {"a/x": 1, "a/y": 2}


def test_what_is_no_row_spoils_no_other(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    record.row(Seen(1, 1, 1), **{"a/x": 1})
    record.close()
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'\xcd\xfe\x00\n[1]\n3\n{"a/x": 9}\n' + bytes(512))
    again = Record(tmp_path)
    again.begin(about(), seen=Seen(1, 1, 1))
    again.close()
    assert again.summary(1) == {"a/x": 1}
    (tmp_path / METRICS).unlink()
    assert again.summary(1) == {}


def test_the_summary_leaves_out_superseded_rows(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    record.row(Seen(5, 5, 5), **{"a/x": 5})
    record.row(Seen(9, 9, 9), **{"a/x": 9, "a/only": 9})
    record.close()
    again = Record(tmp_path)
    again.begin(about(), seen=Seen(5, 5, 5))
    again.close()
    assert again.summary(100) == {"a/x": 5}


def test_another_cell_is_refused(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    record.close()
    with pytest.raises(RecordError, match="holds another cell"):
        Record(tmp_path).begin(about("b" * 64), seen=Seen(0, 0, 0))
    assert len(lines(record)) == 1


def test_done_is_whole_or_absent(tmp_path):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    assert record.done is None
    record.finish(Seen(2, 4, 8), status="done", summary={"a/x": 1.0})
    assert record.done["pairs_seen"] == 8
    for torn in (b'{"status": "do', b"", b"{}", b"[]", b"\xa7\x00"):
        (tmp_path / "DONE.json").write_bytes(torn)
        assert record.done is None
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))

    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    record._rows.close()
    record._rows = Full()
    with pytest.raises(RecordError, match=r"No space left.*make room.*is kept"):
        record.row(Seen(1, 1, 1))


def test_a_new_attempt_removes_the_note_of_failure(tmp_path):
    write_failure(tmp_path, error="boom")
    assert (tmp_path / "FAILED.json").exists()
    record = Record(tmp_path)
    record.begin(about(), seen=Seen(0, 0, 0))
    record.close()
    assert not (tmp_path / "FAILED.json").exists()


def test_items_unpack_to_what_was_kept(tmp_path):
    record = Record(tmp_path)
    hits = np.arange(13) % 3 == 0
    record.items({"eval/zero_shot/val/top1": hits})
    stored = np.load(tmp_path / "items" / "eval.zero_shot.val.top1.npy")
    count = json.loads((tmp_path / "items" / "eval.zero_shot.val.top1.json").read_text())
    np.testing.assert_array_equal(np.unpackbits(stored)[: count["examples"]], hits)
