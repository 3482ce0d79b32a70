"""Drivers of fake cells, in processes of their own that a test may interrupt and kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gcsfs
import pytest

from study.records.storage import resolve
from sweeps.bench.sessions import members

HERE = Path(__file__).parent
PATIENCE = 90.0  # seconds that a loaded machine gets before a test gives up waiting


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python process in a session of its own; kills what is left of it at the end."""
    started: list[subprocess.Popen[str]] = []
    # A shell that runs the tests in the background may ignore SIGINT, which children inherit.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*args: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        process = subprocess.Popen(
            [sys.executable, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=cwd or tmp_path,
            env={**os.environ, "PYTHONPATH": path, "FAKE_CELL": str(tmp_path), **env},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for left in members(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def expected(monkeypatch, tmp_path_factory) -> Callable[[int], float]:
    """The final number of a seed of fake cells that was trained without Ray and without a stop."""
    from tests.sweeps import fake_cell, fake_worker

    monkeypatch.setattr(fake_cell, "SECONDS_PER_STEP", 0.0)
    monkeypatch.setattr(fake_cell, "_among_processes", lambda: (True, lambda stop: stop()))

    def final(seed: int) -> float:
        (cell,) = fake_worker.study([seed]).cells
        folder = tmp_path_factory.mktemp("plain")
        done = fake_cell.train(cell, None, folder=folder, group="fake", should_stop=lambda: False)
        return done["summary"]["train/loss"]

    return final


@pytest.fixture
def session() -> Callable[[int], list[int]]:
    """Lists the live processes of a session. Ray's children stay in that of their driver."""
    return members


@pytest.fixture
def wait_for() -> Callable[..., None]:
    def wait(what: Callable[[], object], seconds: float = PATIENCE) -> None:
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, f"waited {seconds} s in vain"
            time.sleep(0.1)

    return wait


@pytest.fixture
def gate(gcs, monkeypatch):
    """A gate before the server, which gcsfs meets instead; it waits for no second try."""
    from tests.gate import gate

    async def at_once(seconds: float) -> None:
        return None

    with gate(gcs.url) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=at_once))
        gcsfs.GCSFileSystem.clear_instance_cache()
        running.root = resolve(f"gs://{gcs.bucket()}/runs")
        yield running
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def study(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process; gives its exit code, output and errors."""
    from sweeps.cli import app as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STUDY_ROOT", raising=False)
    monkeypatch.delenv("STUDY_DATA", raising=False)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["study", *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run
