"""`study pull` as a user meets it: what it says, what it leaves, and that figures draw the same."""

from __future__ import annotations

import json

import pytest

from analysis.figures import draw_all
from analysis.wandb import api as wandb_api
from analysis.wandb import offline as wandb_files
from tests.analysis.conftest import Writer
from tests.analysis.wandb.test_api import FakeApi, FakeRun, Refused


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path / "runs")
    writer.batch_panel({16: 34.0, 64: 40.0}, {16: 30.0, 64: 38.0})
    writer.failed(writer.cell(256))
    return writer


def test_a_snapshot_says_what_it_holds_and_figures_draw_the_same_from_it(writer, study, tmp_path):
    code, out, err = study("pull", "synthetic")
    assert (code, err) == (0, "")
    assert "8 done, 1 failed" in out
    assert "snapshots/synthetic: 3 files" in out
    for root in ("runs", "snapshots/synthetic"):
        draw_all(root, "synthetic", tmp_path / "figures" / root, only=("fig_2", "table_8"))
    drawn = [
        sorted((tmp_path / "figures" / r).glob("*.*")) for r in ("runs", "snapshots/synthetic")
    ]
    assert len(drawn[0]) >= 3
    assert [p.read_bytes() for p in drawn[0]] == [p.read_bytes() for p in drawn[1]]
    code, out, err = study("pull", "--verify", "snapshots/synthetic")
    assert (code, err) == (0, "")
    assert "3 files are unchanged" in out


def test_a_changed_file_is_one_line_and_exit_code_2(writer, study, tmp_path):
    study("pull", "--out", "snap")
    changed = tmp_path / "snap" / "rows.parquet" / "00.parquet"
    changed.write_bytes(changed.read_bytes()[:-1])
    for args in (("pull", "--verify", "snap"), ("figures", "--root", "snap")):
        code, out, err = study(*args)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "rows.parquet/00.parquet was changed; pull the snapshot again" in err


@pytest.mark.parametrize(
    "args, words",
    [
        (("--from", "nowhere"), "no folder nowhere"),
        (("nope",), "no study nope; there are: synthetic"),
        (("--from", "wandb-offline:runs"), "no .wandb files under runs"),
        (("--out", "gs://lab/snap"), "--out': gs://lab/snap is not on this machine"),
        (("--out", "runs"), "runs exists and is not a snapshot; choose another --out"),
        (("--verify", "runs"), "runs is not a snapshot"),
    ],
)
def test_bad_input_is_one_line(writer, study, tmp_path, args, words):
    code, out, err = study("pull", *args)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_runs_of_a_server_are_pulled_and_a_pull_that_broke_off_goes_on(
    writer, study, tmp_path, monkeypatch
):
    runs = []
    for seed in (5, 6):
        cell = writer.cell(16, seed=seed)
        last = {"global_step": cell.steps, "examples_seen": cell.steps * 16, "attempt": 1}
        rows = [{"_step": 0, "_timestamp": 1e9, **last, "train/loss": 1.0}]
        runs.append(FakeRun(cell.id, "synthetic", writer.about(cell), rows))
    other = FakeRun("other", "x", {}, [])
    monkeypatch.setattr(wandb_api, "connect", lambda: FakeApi(*runs, other))
    runs[1].fails = Refused()
    code, _, err = study("pull", "--from", "wandb:lab/project")
    assert code == 2
    assert "wandb: Refused" in err
    before = [run.scans for run in runs]
    code, out, _ = study("pull", "--from", "wandb:lab/project", "--json")
    assert code == 0
    told = json.loads(out)
    assert runs[0].scans == before[0] > 0  # it was there already
    assert runs[1].scans > before[1]
    assert told["studies"]["synthetic"]["states"] == {"done": 2}
    assert told["notes"] == [
        "1 run was fetched before",
        "1 run does not belong to a study; skipped",
    ]
    assert told["versions"].keys() == {"pyarrow", "wandb"}
    assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {"all"}


def test_an_offline_run_without_an_end_is_refused_unless_asked(
    writer, study, tmp_path, monkeypatch
):
    cell = writer.cell(16)
    run = wandb_files.Run(
        id=cell.id, study="synthetic", config=writer.about(cell), history=[], state="running"
    )
    monkeypatch.setattr(wandb_files, "read_runs", lambda *args, **more: [run])
    code, _, err = study("pull", "--from", "wandb-offline:w")
    assert code == 2
    assert "1 run has not ended" in err
    code, out, _ = study("pull", "--from", "wandb-offline:w", "--unfinished")
    assert code == 0
    assert "1 running-or-interrupted" in out
