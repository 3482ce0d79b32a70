"""The wandb mirror: readable with wandb's own tools, never asks, never stops a run."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import typing
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest

from study.records import wandb_mirror
from study.records.record import Progress
from study.records.wandb_mirror import WandbMirror, wandb_mode


def mirror(folder: Path, **more) -> WandbMirror:
    folder.mkdir(exist_ok=True)
    values = {
        "group": "s",
        "run_id": "b16-x",
        "name": "b16 sigmoid 1k s0",
        "config": {"cell": {"a": 1}},
    }
    return WandbMirror(folder, **values | {"enabled": True} | more)


def inspected(folder: Path) -> list[dict]:
    """Every record of the run, read with wandb's own reader."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [None, "online"])
def test_a_run_is_mirrored_offline_where_there_is_no_key(
    mode, tmp_path, no_key, monkeypatch, caplog
):
    """Also in online mode: wandb would ask for the key and wait. How it ends is mirrored too."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    with caplog.at_level(logging.WARNING):
        run = mirror(tmp_path / "r", tags=("v4-8", "0.1"), first_step=7)
        run.row(Progress(1, 16, 256), 1, {"train/loss": 2.5})
        run.row(Progress(2, 32, 2**60), 1, {"train/loss": 1.25})
        if mode is None:
            run.preempting()
        run.finish(ValueError("no token hf_0123456789abcdefghij"))
    assert ("no API key" in caplog.text) == (mode == "online")
    services = [child.cmdline() for child in psutil.Process().children()]
    assert all("--no-observability" in words for words in services if "wandb-core" in words[0])
    records = inspected(tmp_path / "r")
    (about,) = [r["run"] for r in records if r["type"] == "run"]
    assert (about["run_id"], about["display_name"]) == ("b16-x", "b16 sigmoid 1k s0")
    assert about["tags"] == ["v4-8", "0.1"]
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [(row["_step"], row["examples_seen"]) for row in rows] == [(7, 16), (8, 32)]
    assert [row["train/loss"] for row in rows] == [2.5, 1.25]
    assert [r["exit"]["exit_code"] for r in records if r["type"] == "exit"] == [1]
    ends = [r for r in records if r["type"] in ("alert", "preempting")]
    assert [r["type"] for r in ends] == ["alert" if mode else "preempting"]
    if mode:
        text = "b16 sigmoid 1k s0 failed: ValueError: no token hf_<hidden>"
        assert (ends[0]["alert"]["text"], ends[0]["alert"]["level"]) == (text, "ERROR")


def test_a_server_that_takes_no_run_is_not_asked_twice(tmp_path, monkeypatch, caplog):
    """The run is mirrored offline, and a network that is lost holds its end for minutes at most."""
    import wandb

    modes = []

    def init(mode, settings, **_):
        modes.append(mode)
        assert 0 < settings.finish_timeout <= 600
        if mode == "online":
            raise wandb.errors.CommError("403 for the key 0123456789abcdef")
        return MagicMock()

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb_mirror, "why_offline", lambda: None)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda code: modes.append("teardown"))
    with caplog.at_level(logging.WARNING):
        run = mirror(tmp_path / "r")
    assert modes == ["online", "teardown", "offline"] and run._run is not None
    assert "CommError; the run is mirrored offline" in caplog.text
    assert "0123456789abcdef" not in caplog.text


@pytest.mark.parametrize("host", wandb_mirror.HOSTS)
def test_a_key_that_wandb_noted_is_found_under_either_name(host, no_key, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not wandb_mirror.has_key()
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {'a' * 40}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert wandb_mirror.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not wandb_mirror.has_key()


def test_an_unreachable_server_is_tried_once(no_key, monkeypatch):
    """And the run is mirrored offline: wandb would wait half a minute in every cell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(wandb_mirror.urllib.request, "getproxies", dict)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert "127.0.0.1 does not answer" in wandb_mirror.why_offline()
    with socket.create_server(("127.0.0.1", port)):
        assert wandb_mirror.why_offline() is not None
        wandb_mirror._accepts_connections.cache_clear()
        assert wandb_mirror.why_offline() is None


def test_a_disabled_mirror_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for run in (mirror(tmp_path / "a"), mirror(tmp_path / "b", enabled=False)):
        run.row(Progress(1, 1, 1), 1, {"train/loss": 1.0})
        run.finish()
    assert not list(tmp_path.rglob("*.wandb"))


def test_a_failure_of_wandb_is_logged_once_and_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    """The message names the kind of error only: its text might quote a key."""
    import wandb

    def broken(*_, **__):
        raise wandb.Error("cannot log in with key 0123456789abcdef")

    monkeypatch.setattr(wandb, "init", broken)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with caplog.at_level(logging.WARNING):
        run = mirror(tmp_path / "r")
        run.row(Progress(1, 1, 1), 1, {"train/loss": 1.0})
        run.preempting()
        run.diverged()
        run.finish(ValueError())
    assert caplog.text.count("the run goes on without it") == 1
    assert "0123456789abcdef" not in caplog.text


def test_every_mode_that_wandb_takes_means_here_what_it_means_there(monkeypatch):
    """WANDB_DISABLED, which other tools read, means nothing to wandb."""
    import wandb

    monkeypatch.setenv("WANDB_DISABLED", "true")
    modes = typing.get_args(wandb.Settings.model_fields["mode"].annotation)
    assert {"online", "offline", "disabled", "shared", "dryrun", "run"} == set(modes)
    for mode in modes:
        monkeypatch.setenv("WANDB_MODE", mode)
        theirs = wandb.Settings(mode=mode)
        theirs.update_from_env_vars(os.environ)
        assert (wandb_mode() == "offline") == theirs._offline
        assert (wandb_mode() == "disabled") == theirs._noop
