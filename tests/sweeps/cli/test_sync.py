"""`study sync`: which offline runs it uploads, in which order, and what it says is left."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.records import wandb_mirror
from study.records.storage import resolve
from tests.sweeps.cli.test_cli import CELLS, GRID, held


@pytest.fixture
def wandb(monkeypatch):
    """wandb's own command, which uploads all but the names in `refused`."""
    command = SimpleNamespace(calls=[], refused=())

    def run(words, *, env, check):
        assert words[1:4] == ["-m", "wandb", "sync"] and "WANDB_MODE" not in env
        assert env["WANDB_RESUME"] == "allow"
        files = [Path(word) for word in words[4:]]
        command.calls.append([file.name for file in files])
        for file in files:
            assert file.read_bytes() == b"rows"
            if file.name not in command.refused:
                file.with_name(f"{file.name}.synced").touch()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(wandb_mirror, "why_offline", lambda: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return command


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_each_offline_run_is_uploaded_once_and_attempts_in_order(where, study, wandb, request):
    root = "runs" if where == "folder" else f"gs://{request.getfixturevalue('gcs').bucket()}/runs"
    Path("own.py").write_text(GRID)

    def mirror(cell, stamp, name):
        folder = resolve(root) / "own" / cell.id / "wandb" / f"offline-run-{stamp}-x"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.wandb").write_bytes(b"rows")

    for stamp, name in (("20260102_000000", "second"), ("20260101_000000", "first")):
        mirror(CELLS[0], stamp, name)
    mirror(CELLS[1], "20260101_000000", "other")
    command = ("sync", "own.py", "--root", root)
    code, out, _ = study(*command, "--dry-run")
    assert (code, out.count(".wandb\n"), wandb.calls) == (0, 3, [])
    wandb.refused = ("other.wandb",)
    assert study(*command)[:2] == (1, "uploaded 2 of 3 files\n")
    assert wandb.calls == [["first.wandb", "second.wandb", "other.wandb"]]
    wandb.refused = ()
    assert study(*command)[:2] == (0, "uploaded 1 of 1 files\n")
    assert study(*command)[:2] == (0, "0 files to upload\n")
    assert len(wandb.calls) == 2


def test_a_root_without_records_of_the_study_is_an_error(study, wandb):
    Path("own.py").write_text(GRID)
    for option in ((), ("--dry-run",)):
        code, out, err = study("sync", "own.py", "--root", "nowhere", *option)
        assert (code, out, err) == (
            *(2, ""),
            "study: no records of own in nowhere; `study run` creates them\n",
        )


def test_a_cell_that_is_trained_and_a_host_without_a_key_upload_nothing(study, wandb, monkeypatch):
    Path("own.py").write_text(GRID)
    folder = Path("runs/own", CELLS[0].id, "wandb", "offline-run-1-x")
    folder.mkdir(parents=True)
    (folder / "run.wandb").write_bytes(b"rows")
    lease = held(CELLS[0])
    code, out, _ = study("sync", "own.py")
    assert code == 0 and f"being trained: {CELLS[0].id}\n" in out and "0 files to upload" in out
    lease.release()
    monkeypatch.setattr(wandb_mirror, "why_offline", lambda: "no API key")
    code, _, err = study("sync", "own.py")
    assert code == 2 and "nothing is uploaded: no API key" in err
    assert wandb.calls == []
