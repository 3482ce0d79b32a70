"""Offline wandb files: two readers that agree, torn ends, and records that come back whole."""

import json
import struct
import zlib

import numpy as np
import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.records.frame import cells, rows
from analysis.wandb import offline as wandb_files
from analysis.wandb import runs as wandb_runs
from study.records.record import Record
from study.records.wandb_mirror import WandbMirror

pytestmark = pytest.mark.filterwarnings("ignore")  # wandb's protobuf stubs and threads warn

TOP1 = "eval/zero_shot/test_font/top1"


class Log:
    """Writes a `.wandb` file as wandb's own writer does: chunks in blocks of 32 KiB."""

    def __init__(self, path, run_id="b16-x", group="s", start=1_700_000_000):
        from wandb.proto import wandb_internal_pb2 as pb

        self.pb, self.path = pb, path
        self.text = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
        record = self.record()
        record.run.run_id, record.run.run_group = run_id, group
        record.run.start_time.seconds = start
        self.record_run = record

    def record(self):
        return self.pb.Record()

    def items(self, items, values, nested=False):
        for key, value in values.items():
            item = items.add()
            if nested:
                item.nested_key.append(key)
            else:
                item.key = key
            item.value_json = json.dumps(value)

    def run(self, config, **more):
        self.items(self.record_run.run.config.update, config)
        self.put(self.record_run)
        return self

    def row(self, nested=False, **values):
        record = self.record()
        self.items(record.history.item, values, nested)
        self.put(record)

    def end(self, code):
        record = self.record()
        record.exit.exit_code = code
        self.put(record)
        return self.save()

    def save(self):
        self.path.write_bytes(self.text)
        return self

    def put(self, record):
        body, kinds = record.SerializeToString(), (wandb_files.FULL, wandb_files.LAST)
        first = True
        while True:
            left = 32_768 - len(self.text) % 32_768
            if left < 7:
                self.text += bytes(left)
                continue
            part, body = body[: left - 7], body[left - 7 :]
            if body:
                kind = wandb_files.FIRST if first else wandb_files.MIDDLE
            else:
                kind = kinds[0] if first else kinds[1]
            crc = zlib.crc32(part, zlib.crc32(bytes([kind])))
            self.text += struct.pack("<IHB", crc, len(part), kind) + part
            first = False
            if not body:
                break


def config(writer, cell):
    return writer.about(cell) | {"_wandb": {"t": 1}}


def logged(cell, step, attempt=1, **values):
    counts = {"global_step": step, "examples_seen": step * cell.batch_size, "attempt": attempt}
    pairs = {"pairs_seen": float(step * cell.pairs_per_step)}
    return counts | pairs | {"_step": step, "_timestamp": 1e9 + step, **values}


def big_log(path, writer, cell):
    """Many blocks, records across their borders, keys of both kinds, and numbers of all kinds."""
    log = Log(path, run_id=cell.id, group=writer.study).run(config(writer, cell))
    for step in range(1, 401):
        values = {f"train/{k}": step / (k + 3) for k in range(12)} | {"train/none": None}
        values |= {"note": "x" * (step % 97), "big": 2**52 + step, "list": [1, {"a": None}]}
        log.row(nested=step % 2 == 0, **logged(cell, step, **values))
    log.row(**logged(cell, 401, **{"train/long": 1.0, "text": "y" * 70_000}))
    return log.save()


def test_the_two_readers_agree_on_every_row(tmp_path, writer):
    cell = writer.cell(16)
    log = big_log(tmp_path / "run.wandb", writer, cell)
    log.end(0)
    assert len(log.text) > 5 * wandb_files.BLOCK
    ours, theirs = wandb_files.read(log.path), wandb_files.read_official(log.path)
    assert wandb_files.difference(ours, theirs) is None
    assert ours == theirs
    assert (ours.id, ours.group, ours.exit_code) == (cell.id, writer.study, 0)
    assert ours.config["cell"]["batch_size"] == 16
    assert len(ours.history) == 401
    assert ours.history[400]["text"] == "y" * 70_000


def test_a_difference_between_the_readers_is_told(tmp_path, writer, monkeypatch):
    cell = writer.cell(16)
    log = big_log(tmp_path / "run.wandb", writer, cell)
    log.end(0)
    theirs = wandb_files.read(log.path)
    theirs.history[7]["train/3"] = 1.0
    assert wandb_files.difference(wandb_files.read(log.path), theirs) == "row 7"
    monkeypatch.setattr(wandb_files, "read_official", lambda path: theirs)
    with pytest.raises(AnalysisError, match=r"the two readers of wandb's format differ in row 7"):
        wandb_files.runs(tmp_path)
    theirs.history.pop()
    assert "number of rows" in wandb_files.difference(wandb_files.read(log.path), theirs)


def test_a_torn_file_is_read_up_to_where_it_tears(tmp_path, writer):
    cell = writer.cell(16)
    log = big_log(tmp_path / "run.wandb", writer, cell)
    rng, whole = np.random.default_rng(0), log.text
    before = len(wandb_files.read(log.path).history)
    for cut in sorted(rng.integers(7, len(whole), 10)):
        log.path.write_bytes(whole[:cut])
        found = wandb_files.read(log.path)
        assert found.exit_code is None
        assert [row["global_step"] for row in found.history] == [*range(1, len(found.history) + 1)]
        damaged = bytearray(whole)
        damaged[cut] ^= 0xFF
        log.path.write_bytes(damaged)
        assert len(wandb_files.read(log.path).history) < before
    log.path.write_bytes(b"no log at all")
    with pytest.raises(AnalysisError, match=r"is no .wandb file"):
        wandb_files.read(log.path)
    with pytest.raises(AnalysisError, match=r"no .wandb files under"):
        wandb_files.runs(tmp_path / "nowhere")


def test_the_files_of_a_resumed_run_make_one_record_with_its_attempts(tmp_path, writer):
    cell = writer.cell(16)
    (tmp_path / "w").mkdir()
    later = Log(tmp_path / "w" / "a.wandb", cell.id, writer.study, start=2_000_000_000)
    later.run(config(writer, cell))
    first = Log(tmp_path / "w" / "b.wandb", cell.id, writer.study).run(config(writer, cell))
    record = writer.begin(cell)
    for step in range(1, 12):  # killed; its last checkpoint was at 8
        first.row(**logged(cell, step, **{"train/loss": 1.0 / step}))
        record.row(writer.seen(cell, step), **{"train/loss": 1.0 / step})
    record.close()
    record = writer.begin(cell, step=8)
    for step in range(9, 16):
        later.row(**logged(cell, step, 2, **{"train/loss": 2.0 / step, "train/new": 1.0}))
        record.row(writer.seen(cell, step), **{"train/loss": 2.0 / step, "train/new": 1.0})
    record.close()
    first.save(), later.save()
    (run,) = wandb_files.runs(tmp_path / "w", check=False)
    assert run.state == "running"
    wandb_runs.write_record(run, tmp_path / "pulled")
    ours, theirs = (rows(root).drop(columns="time") for root in (writer.root, tmp_path / "pulled"))
    pd.testing.assert_frame_equal(ours, theirs)
    assert cells(tmp_path / "pulled")["superseded_rows"].tolist() == [3]
    assert cells(tmp_path / "pulled")["status"].tolist() == ["running-or-interrupted"]


@pytest.mark.parametrize(
    "code, length, status", [(0, 1, "done"), (0, 2, "diverged"), (1, 1, "failed")]
)
def test_how_a_run_ended_is_how_its_record_ends(tmp_path, writer, code, length, status):
    cell = writer.cell(16)
    last = cell.steps // length
    log = Log(tmp_path / "run.wandb", cell.id, writer.study).run(config(writer, cell))
    log.row(**logged(cell, last, **{TOP1: 41.5, "train/loss": "NaN"}))
    log.end(code)
    (run,) = wandb_files.runs(tmp_path, check=False)
    wandb_runs.write_record(run, tmp_path / "pulled")
    row = cells(tmp_path / "pulled", writer.study).iloc[0]
    assert (row["id"], row["status"], row["step"]) == (cell.id, status, last)
    assert row["pairs_seen"] == last * cell.pairs_per_step
    assert row["batch_size"] == 16
    if status != "failed":
        assert row[TOP1] == 41.5
    assert rows(tmp_path / "pulled")["train/loss"].isna().all()


def test_a_run_that_is_named_like_a_way_out_is_refused(tmp_path):
    for study, name in (("..", "x"), ("s", "../../x"), ("s", ".hidden")):
        run = wandb_runs.Run(id=name, study=study, config={}, history=[], state="finished")
        with pytest.raises(AnalysisError, match="is not named like a cell"):
            wandb_runs.write_record(run, tmp_path)


@pytest.mark.slow
def test_what_the_mirror_wrote_comes_back_as_the_record_that_it_mirrored(
    tmp_path, writer, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    cell = writer.cell(256)
    about = writer.about(cell)
    record = Record(writer.folder(cell))
    record.begin(about, seen=writer.seen(cell, 0))
    more = {"group": writer.study, "run_id": cell.id, "name": "b256", "config": about}
    mirror = WandbMirror(record.folder, **more, enabled=True)
    for step in range(1, cell.steps + 1, max(1, cell.steps // 40)):
        values = {"train/loss": 1.0 / step, "train/gone": None}
        record.row(writer.seen(cell, step), **values)
        mirror.row(writer.seen(cell, step), record.attempt, values)
    end = {TOP1: 40.0, "train/loss": 1e-9}
    record.row(writer.seen(cell, cell.steps), **end)
    mirror.row(writer.seen(cell, cell.steps), record.attempt, end)
    record.finish(writer.seen(cell, cell.steps), status="done", summary=end | {"train/gone": None})
    mirror.finish()
    (run,) = wandb_files.runs(writer.root)  # checked against wandb's own reader
    wandb_runs.write_record(run, tmp_path / "pulled")
    ours, theirs = (
        read.drop(columns=["time", "content", "train/gone"], errors="ignore").reindex(
            columns=sorted(read.columns.drop(["time", "content", "train/gone"], errors="ignore"))
        )
        for read in (cells(writer.root), cells(tmp_path / "pulled"))
    )
    pd.testing.assert_frame_equal(ours, theirs)
    ours, theirs = rows(writer.root), rows(tmp_path / "pulled")
    assert (ours["time"] - theirs["time"]).abs().max() < 60
    ours, theirs = ours.drop(columns="time"), theirs.drop(columns="time")
    pd.testing.assert_frame_equal(ours[sorted(ours)], theirs[sorted(theirs)])
