"""Snapshots: the same frames as their records, the same bytes each time, and no change unseen."""

import json
import random

import numpy as np
import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.figures.plot import points
from analysis.records import snapshot
from analysis.records.frame import (
    cells,
    items,
    open_records,
    open_snapshot,
    rows,
    steps,
    studies,
)
from analysis.records.record import RecordRoot
from analysis.records.snapshot import MANIFEST
from study.records.record import Record, write_failure
from study.records.storage import resolve
from tests.bucket import Strict

TOP1 = "eval/zero_shot/test_font/top1"
NUMBERS = (0.5, 3, -0.0, 1e-300, 2**53 + 1, float("nan"), None, True, "word", [1, 2])
OTHERS = (1, 2**70, 0.25, "a", "", None, True, {"a": [1]}, [None])


def random_study(writer, rng, sizes):
    """Cells in every state, attempts that were cut off, torn lines, odd values."""
    for size in sizes:
        cell = writer.cell(size, seed=rng.randrange(3))
        folder = writer.folder(cell)
        if rng.random() < 0.15:
            folder.mkdir()
            continue
        start = 0
        for _ in range(rng.randint(1, 3)):
            record = writer.begin(cell, step=start)
            if rng.random() < 0.6:
                record.row(writer.seen(cell, start), event="training")
            end = start + rng.randint(0, 12)
            for step in range(start + 1, end + 1):
                values = {f"train/{k}": rng.choice(NUMBERS) for k in "abc" if rng.random() < 0.8}
                values |= {k: rng.choice(OTHERS) for k in ("note", "pi") if rng.random() < 0.2}
                pairs = rng.choice((size * step, 2**63 + step, 10**37 + step))
                record.row(writer.seen(cell, step)._replace(pairs=pairs), **values)
            if rng.random() < 0.5:
                record.items({TOP1: np.array([rng.random() < 0.5 for _ in range(19)])})
            record.close()
            start = rng.randint(start, end)
            if rng.random() < 0.4:
                with (folder / "metrics.jsonl").open("ab") as file:
                    file.write(rng.choice((b'{"step": 3, "ex', b"\xff\xfe\n", b"[1]\n\n")))
        if (end := rng.random()) < 0.3:
            write_failure(folder, error="out of memory")
        elif end < 0.7:
            summary = {TOP1: 40.0, "train/loss": rng.choice((float("nan"), 1.5, None))}
            record = writer.begin(cell, step=start)
            status = rng.choice(("done", "diverged"))
            record.finish(writer.seen(cell, start), status=status, summary=summary)
        elif end < 0.8:
            (folder / "cell.json").write_bytes(b'{"id": "b\xff')


def same(one, other):
    pd.testing.assert_frame_equal(one, other)
    assert one.attrs == other.attrs


@pytest.mark.parametrize("seed", range(6))
def test_frames_of_a_snapshot_equal_those_of_its_records(writer, tmp_path, seed, monkeypatch):
    monkeypatch.setattr(snapshot, "PART_BYTES", 20_000)
    rng = random.Random(seed)
    random_study(writer, rng, (16, 32, 64, 128, 256, 512))
    type(writer)(writer.root, "another")  # a study without a cell
    made = snapshot.write(RecordRoot(writer.root), tmp_path / "snap")
    assert studies(tmp_path / "snap") == studies(writer.root) == ["another", "synthetic"]
    for study in ("synthetic", ["another", "synthetic"], None):
        for read in (cells, rows):
            same(read(writer.root, study), read(tmp_path / "snap", study))
        if len(rows(writer.root, study)):
            same(steps(writer.root, study), steps(tmp_path / "snap", study))
    table = cells(writer.root)
    assert points.provenance(table) == points.provenance(cells(tmp_path / "snap"))
    assert points.provenance(table).split()[1] == made["records"][:10]
    for cell in table["id"]:
        ours, theirs = (items(r, "synthetic", cell) for r in (writer.root, tmp_path / "snap"))
        assert ours.keys() == theirs.keys()
        for key, hits in ours.items():
            np.testing.assert_array_equal(hits, theirs[key])


def test_a_snapshot_that_kept_no_interruptions_does_not_know_them(writer, tmp_path, monkeypatch):
    for seed, starts in enumerate([(0,), (0, 2)]):
        cell = writer.cell(16, seed=seed)
        for start in starts:
            record = writer.begin(cell, step=start)
            record.row(writer.seen(cell, start + 1), event="training")
            record.close()
    now = open_records(writer.root)
    snapshot.write(now, tmp_path / "new")
    kept = [
        record.interruptions for record in open_snapshot(tmp_path / "new").records(writer.study)
    ]
    assert [len(each) for each in kept] == [0, 1]
    assert kept == [list(record.interruptions) for record in now.records(writer.study)]
    monkeypatch.setattr("analysis.records.record._interruption_columns", lambda _: {})
    snapshot.write(now, tmp_path / "old")
    old = open_snapshot(tmp_path / "old").records(writer.study)
    assert [record.interruptions for record in old] == [[], None]


def test_pandas_opens_the_files_of_a_snapshot(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "PART_BYTES", 100)
    cell = writer.cell(64, keep="hard", ratio=1.6)
    record = writer.begin(cell)
    for step in (1, 2, 3):
        record.row(writer.seen(cell, step), **{"train/loss": 1.0 / step})
    record.items({TOP1: np.arange(5) % 2 == 0})
    record.close()
    writer.done(writer.cell(32), 40.0)
    snapshot.write(RecordRoot(writer.root), tmp_path / "snap")
    parts = {path.parent.name: path.name for path in sorted((tmp_path / "snap").glob("*/*"))}
    last = {"cells.parquet": "01", "items.parquet": "00", "rows.parquet": "03"}
    assert parts == {name: f"{part}.parquet" for name, part in last.items()}
    table = pd.read_parquet(tmp_path / "snap" / "cells.parquet").set_index("id")
    assert table["batch_size"].tolist() == [32, 64]
    assert table.loc[cell.id, "loss.pairs.keep"] == "hard"
    assert json.loads(table.loc[cell.id, "cell.json"])["cell"]["batch_size"] == 64
    assert table[TOP1].dropna().tolist() == [40.0]
    logged = pd.read_parquet(tmp_path / "snap" / "rows.parquet")
    assert logged[logged["id"] == cell.id]["train/loss"].tolist() == [1.0, 1 / 2, 1 / 3]
    (kept,) = pd.read_parquet(tmp_path / "snap" / "items.parquet").to_dict("records")
    assert (kept["id"], kept["metric"]) == (cell.id, TOP1)
    assert kept["correct"].tolist() == [True, False, True, False, True]


def test_the_same_records_give_the_same_bytes(writer, tmp_path):
    random_study(writer, random.Random(1), (16, 32, 64))
    one = snapshot.write(RecordRoot(writer.root), tmp_path / "one")
    two = snapshot.write(RecordRoot(writer.root), tmp_path / "two")
    # A copy of a snapshot.
    again = snapshot.write(open_records(tmp_path / "one"), tmp_path / "three")
    assert one == two == again
    manifests = [(tmp_path / name / MANIFEST).read_bytes() for name in ("one", "two", "three")]
    assert len(set(manifests)) == 1
    assert str(tmp_path).encode() not in manifests[0]


def test_only_the_items_that_are_asked_for_are_kept(writer, tmp_path):
    cell = writer.cell(16)
    record = writer.begin(cell)
    record.items({TOP1: np.arange(9) % 2 == 0, "eval/other/top1": np.arange(9) > 2})
    record.close()
    writer.done(cell, 10.0)
    snapshot.write(RecordRoot(writer.root), tmp_path / "snap", items=[TOP1])
    assert list(items(tmp_path / "snap", "synthetic", cell.id)) == [TOP1]
    with pytest.raises(AnalysisError, match=r"examples of eval/x; there are those of eval/other"):
        snapshot.write(RecordRoot(writer.root), tmp_path / "none", items=["eval/x"])
    assert not (tmp_path / "none").exists()


def test_an_earlier_snapshot_gives_the_cells_that_are_not_done_since(writer, tmp_path):
    written = [writer.cell(size) for size in (16, 64, 256, 1024)]
    for cell, value in zip(written[:3], (10.0, 20.0, 30.0), strict=True):
        writer.done(cell, value)
    snapshot.write(RecordRoot(writer.root), tmp_path / "earlier")
    own = cells(tmp_path / "earlier").set_index("id")["content"]
    later = type(writer)(tmp_path / "later")
    later.done(written[0], 11.0)
    later.failed(written[1])
    later.done(written[3], 40.0)
    joined = snapshot.Joined(RecordRoot(later.root), open_snapshot(str(tmp_path / "earlier")))
    snapshot.write(joined, tmp_path / "joined")
    table = cells(tmp_path / "joined").set_index("id")
    by_size = table.set_index("batch_size")[TOP1]
    assert by_size.to_dict() == {16: 11.0, 64: 20.0, 256: 30.0, 1024: 40.0}
    kept = table["content"]
    assert [kept[cell.id] == own.get(cell.id) for cell in written] == [False, True, True, False]


def test_records_in_a_bucket_read_as_those_in_a_folder(writer, tmp_path):
    cell = writer.cell(16)
    Strict.clear()
    bucket = resolve("bucket://lab/runs")
    for root in (bucket, writer.root):
        for start in (0, 3):
            record = Record(root / "synthetic" / cell.id)
            record.begin(writer.about(cell), seen=writer.seen(cell, start))
            for step in range(start + 1, start + 6):
                record.row(writer.seen(cell, step), **{"train/loss": 1 / step})
            record.items({TOP1: np.arange(11) % 2 == 0})
            record.close()
    odd = ["content", "time"]  # the bytes differ, and when they were written
    for read in (cells, rows, steps):
        one, other = (
            read(root, "synthetic").drop(columns=odd, errors="ignore")
            for root in ("bucket://lab/runs", writer.root)
        )
        pd.testing.assert_frame_equal(one, other)
    made = snapshot.write(open_records("bucket://lab/runs"), tmp_path / "snap")
    same(rows("bucket://lab/runs"), rows(tmp_path / "snap"))
    assert made["studies"]["synthetic"]["rows"] == 8
    for path in (p for p in (tmp_path / "snap").rglob("*") if p.is_file()):  # and taken there
        target = resolve("bucket://lab/snap").joinpath(*path.relative_to(tmp_path / "snap").parts)
        target.write_bytes(path.read_bytes())
    same(cells("bucket://lab/runs"), cells("bucket://lab/snap"))
    with pytest.raises(AnalysisError, match="no bucket bucket://lab/nothing"):
        cells("bucket://lab/nothing")


def test_any_changed_byte_is_named_in_one_line(writer, tmp_path):
    writer.done(writer.cell(16), 40.0)
    Record(writer.folder(writer.cell(16))).items({TOP1: np.ones(9, bool)})
    snapshot.write(RecordRoot(writer.root), tmp_path / "snap")
    files = [p for p in sorted((tmp_path / "snap").rglob("*")) if p.is_file()]
    assert open_records(tmp_path / "snap").verify() == len(files) - 1 == 3
    for path in files:
        whole = path.read_bytes()
        for torn in (whole[:-2], whole.replace(b"1", b"2", 1) + b" ", b""):
            path.write_bytes(torn)
            if path.name == MANIFEST and not torn:
                continue  # then it is no snapshot at all
            with pytest.raises(AnalysisError, match=r"changed|no snapshot") as caught:
                open_records(tmp_path / "snap").verify()
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    manifest = tmp_path / "snap" / MANIFEST
    told = json.loads(manifest.read_text())
    told["studies"]["synthetic"]["cells"] = 2
    manifest.write_text(json.dumps(told))
    with pytest.raises(AnalysisError, match=r"manifest.json was changed"):
        cells(tmp_path / "snap")


def test_a_changed_file_is_found_by_reading_it(writer, tmp_path):
    writer.done(writer.cell(16), 40.0)
    snapshot.write(RecordRoot(writer.root), tmp_path / "snap")
    for name, read in (("cells.parquet/00.parquet", cells), ("rows.parquet/00.parquet", rows)):
        path = tmp_path / "snap" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + b"?" + whole[-8:])
        with pytest.raises(AnalysisError, match=f"{name} was changed; pull the snapshot again"):
            read(tmp_path / "snap", writer.study)
        path.unlink()
        with pytest.raises(AnalysisError, match=f"{name} was changed or removed"):
            read(tmp_path / "snap", writer.study)
        path.write_bytes(whole)


def test_a_snapshot_replaces_a_snapshot_and_nothing_else(writer, tmp_path):
    writer.done(writer.cell(16), 40.0)
    source, out = RecordRoot(writer.root), tmp_path / "snap"
    out.mkdir()
    snapshot.write(source, out)
    snapshot.write(source, out)
    (out / "more").mkdir()
    snapshot.write(source, out)
    assert not (out / "more").exists()
    for mine in ("thesis.tex", MANIFEST):
        other = tmp_path / f"other-{mine}"
        other.mkdir()
        (other / mine).write_text("{}")
        with pytest.raises(AnalysisError, match="is not a snapshot; choose another --out"):
            snapshot.write(source, other)
    with pytest.raises(AnalysisError, match=r"no study nope; there are: synthetic"):
        snapshot.write(source, out, studies=["nope"])
    assert not list(tmp_path.glob(".*"))


def test_a_step_has_one_row_with_its_cell_beside_it(writer):
    cell, unborn = writer.cell(64, keep="hard", ratio=1.6), writer.cell(32)
    record = writer.begin(cell)
    for step in (1, 2):
        record.row(writer.seen(cell, step), **{"train/loss": 1.0 / step})
    record.row(writer.seen(cell, 2), **{TOP1: 40.0})
    record.close()
    writer.failed(unborn)
    table = steps(writer.root, writer.study)
    assert table["step"].tolist() == [1, 2]
    assert table["train/loss"].tolist() == [1.0, 0.5]
    assert table[TOP1].isna().tolist() == [True, False]
    assert set(table["loss.pairs.keep"]) == {"hard"}
    assert set(table["status"]) == {"running-or-interrupted"}
    assert set(table["batch_size"]) == {64}
    assert table.attrs["without_steps"] == {unborn.id: "failed"}
