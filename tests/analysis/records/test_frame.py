"""Records read back: attempts stitched, torn lines dropped, integers exact, nothing hidden."""

import json

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.records.frame import MEMORY, cells, rows


def train(writer, cell, record, steps):
    for step in steps:
        record.row(writer.seen(cell, step), **{"train/loss": 1.0 / step})
        if step % 4 == 0:
            record.row(writer.seen(cell, step), **{"eval/zero_shot/test_font/top1": float(step)})
    record.close()


def test_stitched_attempts_equal_an_uninterrupted_record(writer):
    whole, broken = writer.cell(16, seed=0), writer.cell(16, seed=1)
    train(writer, whole, writer.begin(whole), range(1, 21))
    train(writer, broken, writer.begin(broken), range(1, 12))  # killed; last checkpoint at 8
    train(writer, broken, writer.begin(broken, step=8), range(9, 11))  # killed again, same one
    train(writer, broken, writer.begin(broken, step=8), range(9, 21))
    table = rows(writer.root, writer.study).drop(columns=["attempt", "time"])
    one, other = (
        table[table["id"] == cell.id].drop(columns="id").reset_index(drop=True)
        for cell in (whole, broken)
    )
    pd.testing.assert_frame_equal(one, other)
    row = cells(writer.root, writer.study).set_index("id").loc[broken.id]
    assert row["attempts"] == 3
    # Steps 9 to 11 of the first attempt, 9 and 10 of the second, and no evaluation among them.
    assert row["superseded_rows"] == 5


def test_torn_and_garbage_lines_are_dropped_and_counted(writer):
    cell = writer.cell(16)
    record = writer.begin(cell)
    train(writer, cell, record, range(1, 4))
    path = writer.folder(cell) / "metrics.jsonl"
    garbage = b'\xff\xfe not json\n[1, 2]\n{"step": "3", "attempt": 1}\n{"step": 4, "exam'
    path.write_bytes(path.read_bytes() + garbage)
    train(writer, cell, writer.begin(cell, step=3), range(4, 6))
    table = rows(writer.root, writer.study)
    assert table[table["train/loss"].notna()]["step"].tolist() == [1, 2, 3, 4, 5]
    assert table.attrs["dropped_lines"] == {cell.id: 4}
    assert cells(writer.root, writer.study)["dropped_lines"].tolist() == [4]


@pytest.mark.parametrize("pairs", [2**53 + 1, 2**63 + 1, 2**80 + 1])
def test_pairs_seen_is_exact_beyond_float_and_int64(writer, pairs):
    small, large = writer.cell(16, seed=0), writer.cell(16, seed=1)
    writer.done(small, 40.0)
    record = writer.begin(large)
    record.row(writer.seen(large, 1)._replace(pairs=pairs))
    record.close()
    table = rows(writer.root, writer.study)
    assert table[table["id"] == large.id]["pairs_seen"].tolist() == [pairs]
    frame = cells(writer.root, writer.study).set_index("id")
    assert frame.loc[large.id, "pairs_seen"] == pairs
    assert type(frame.loc[large.id, "pairs_seen"]) is int


def test_every_cell_stays_visible_with_its_status(writer):
    wanted = {
        writer.done(writer.cell(16), 40.0).id: "done",
        writer.done(writer.cell(32), 1.0, status="diverged").id: "diverged",
        writer.failed(writer.cell(64), "out of memory").id: "failed",
    }
    running, unborn, planned = writer.cell(128), writer.cell(256), writer.cell(512)
    writer.begin(running).close()
    writer.folder(unborn).mkdir()
    wanted |= {running.id: "running-or-interrupted", unborn.id: "not started"}
    (writer.root / writer.study / "notes").mkdir()  # no cell
    known = cells(writer.root, writer.study).set_index("id")
    assert known["status"].to_dict() == wanted
    every = [writer.cell(size) for size in (16, 32, 64, 128, 256, 512)]
    wanted[planned.id] = "not started"
    plan = [writer.about(cell) for cell in every]
    table = cells(writer.root, writer.study, planned=plan).set_index("id")
    assert table["status"].to_dict() == wanted
    assert table.loc[planned.id, "batch_size"] == 512
    assert "out of memory" in table["error"].tolist()
    assert table.attrs["unplanned"] == 0


def test_recorded_cells_that_a_grid_does_not_list_are_left_out_and_counted(writer):
    listed, other = writer.done(writer.cell(16), 40.0), writer.done(writer.cell(32), 50.0)
    plan = [writer.about(listed)]
    table = cells(writer.root, writer.study, planned=plan)
    assert (table["id"].tolist(), table.attrs["unplanned"]) == ([listed.id], 1)
    assert set(cells(writer.root, writer.study)["id"]) == {listed.id, other.id}


def test_fields_are_flattened_and_the_summary_becomes_columns(writer):
    cell = writer.done(writer.cell(64, keep="hard", ratio=1.6, seed=3), 41.5, b=-9.0)
    row = cells(writer.root, writer.study).iloc[0]
    assert row["loss.kind"] == "sigmoid"
    assert row["loss.pairs.kind"] == "negatives"
    assert row["loss.pairs.per_positive"] == 1.6
    assert row["optimizer.learning_rate"] == 5e-3
    assert row["model.text.kind"] == "mean_pool"
    assert (row["batch_size"], row["seed"]) == (64, 3)
    assert (row["steps"], row["examples"]) == (cell.steps, cell.examples)
    assert row["eval/zero_shot/test_font/top1"] == 41.5
    assert row["train/b"] == -9.0
    assert (row["seconds"], row["seconds.train"]) == (2.0, 1.5)


def test_a_diverged_summary_with_nan_is_read(writer):
    writer.done(writer.cell(16), 1.0, status="diverged", loss=float("nan"))
    assert cells(writer.root, writer.study)["train/loss"].isna().all()


def test_missing_root_and_study_are_one_line_errors(writer):
    writer.done(writer.cell(16), 40.0)
    for call in (rows, cells):
        with pytest.raises(AnalysisError, match=r"no study 'other' in .*; there are: synthetic"):
            call(writer.root, "other")
        with pytest.raises(AnalysisError, match="no folder"):
            call(writer.root / "nowhere", "synthetic")
        with pytest.raises(AnalysisError, match=r"ftq://bucket/runs: records are kept in a folder"):
            call("ftq://bucket/runs", "synthetic")


def test_a_torn_cell_json_hides_nothing(writer):
    cell = writer.done(writer.cell(16), 40.0)
    path = writer.folder(cell) / "cell.json"
    path.write_text(path.read_text()[:30])
    row = cells(writer.root, writer.study).iloc[0]
    assert (row["id"], row["status"]) == (cell.id, "done")
    assert pd.isna(row["batch_size"])


def test_an_empty_study_is_an_empty_frame(writer):
    assert len(cells(writer.root, writer.study)) == len(rows(writer.root, writer.study)) == 0


def test_the_content_hash_changes_with_any_byte_of_a_record(writer):
    cell = writer.done(writer.cell(16), 40.0)
    before = cells(writer.root, writer.study)["content"].tolist()
    assert before == cells(writer.root, writer.study)["content"].tolist()
    path = writer.folder(cell) / "DONE.json"
    done = json.loads(path.read_text())
    done["summary"]["eval/zero_shot/test_font/top1"] = 40.1
    path.write_text(json.dumps(done))
    assert before != cells(writer.root, writer.study)["content"].tolist()


def test_memory_becomes_columns_of_whole_bytes(writer):
    """As far as a record holds it: both numbers, one of them, none."""
    held = {16: (300, "device", 200), 32: (500, "process", None), 64: (None, "device", 800)}
    for size, numbers in held.items():
        memory = dict(zip(("peak_bytes", "source", "compiled_bytes"), numbers, strict=True))
        writer.done(writer.cell(size), 50.0, memory=memory)
    writer.done(writer.cell(256), 50.0)
    table = cells(writer.root).set_index("batch_size")[[*MEMORY]]
    for place, column in enumerate(MEMORY):
        given = {size: numbers[place] for size, numbers in held.items() if numbers[place]}
        assert table[column].dropna().to_dict() == given
