"""Offline wandb files: torn ends, and records that come back whole."""

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.records.frame import cells, rows
from analysis.wandb import offline as wandb_files
from analysis.wandb import runs as wandb_runs
from analysis.wandb.offline import RunFile
from study.records.record import Record
from study.records.wandb_mirror import WandbMirror

TOP1 = "eval/zero_shot/test_font/top1"


def logged(cell, step, attempt=1, **values):
    counts = {"global_step": step, "examples_seen": step * cell.batch_size, "attempt": attempt}
    pairs = {"pairs_seen": float(step * cell.pairs_per_step)}
    return counts | pairs | {"_step": step, "_timestamp": 1e9 + step, **values}


@pytest.fixture
def read_runs(writer, monkeypatch, tmp_path):
    """`read_runs(cell, *files)`: the runs, as if wandb had read these files of `cell`."""

    def read(cell, *files):
        for file in files:
            file.id, file.group, file.config = cell.id, writer.study, writer.about(cell)
            (tmp_path / f"{len(list(tmp_path.glob('*.wandb')))}.wandb").touch()
        left = list(files)
        monkeypatch.setattr(wandb_files, "read_file", lambda path: left.pop())
        return wandb_files.read_runs(tmp_path)

    return read


def test_the_files_of_a_resumed_run_make_one_record_with_its_attempts(tmp_path, writer, read_runs):
    cell = writer.cell(16)
    first, later = RunFile(start=1e9), RunFile(start=2e9)
    record = writer.begin(cell)
    for step in range(1, 12):  # killed; its last checkpoint was at 8
        first.history.append(logged(cell, step, **{"train/loss": 1.0 / step}))
        record.row(writer.seen(cell, step), **{"train/loss": 1.0 / step})
    record.close()
    record = writer.begin(cell, step=8)
    for step in range(9, 16):
        values = {"train/loss": 2.0 / step, "train/new": 1.0}
        later.history.append(logged(cell, step, 2, **values))
        record.row(writer.seen(cell, step), **values)
    record.close()
    (run,) = read_runs(cell, first, later)
    assert run.state == "running"
    wandb_runs.write_record(run, tmp_path / "pulled")
    ours, theirs = (rows(root).drop(columns="time") for root in (writer.root, tmp_path / "pulled"))
    pd.testing.assert_frame_equal(ours, theirs)
    assert cells(tmp_path / "pulled")["superseded_rows"].tolist() == [3]
    assert cells(tmp_path / "pulled")["status"].tolist() == ["running-or-interrupted"]


@pytest.mark.parametrize(
    "code, length, status", [(0, 1, "done"), (0, 2, "diverged"), (1, 1, "failed")]
)
def test_how_a_run_ended_is_how_its_record_ends(tmp_path, writer, read_runs, code, length, status):
    cell = writer.cell(16)
    last = cell.steps // length
    row = logged(cell, last, **{TOP1: 41.5, "train/loss": "NaN"})
    (run,) = read_runs(cell, RunFile(history=[row], exit_code=code))
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
    (run,) = wandb_files.read_runs(writer.root)
    wandb_runs.write_record(run, tmp_path / "pulled")
    ours, theirs = (
        frame[sorted({*frame} - {"time", "content", "train/gone"})]
        for frame in (cells(writer.root), cells(tmp_path / "pulled"))
    )
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)  # 0.0 may come back as 0
    ours, theirs = rows(writer.root).drop(columns="train/gone"), rows(tmp_path / "pulled")
    assert (ours["time"] - theirs["time"]).abs().max() < 60
    pd.testing.assert_frame_equal(ours.drop(columns="time"), theirs.drop(columns="time"))

    (path,) = writer.root.rglob("*.wandb")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    torn = wandb_files.read_file(path)
    assert torn.exit_code is None
    assert 0 < len(torn.history) < len(run.history)
    assert torn.history == run.history[: len(torn.history)]
    path.write_bytes(whole[:4000] + bytes([whole[4000] ^ 0xFF]) + whole[4001:])
    assert wandb_files.read_file(path).exit_code is None
