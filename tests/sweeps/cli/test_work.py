"""`study work`: two shells finish a study between them, and two processes are one worker."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from analysis.records.frame import rows
from study.records.metrics_log import parse, read_rows
from study.training.throughput import TIMING_METRICS
from sweeps.bench import cells as bench
from sweeps.runner.attempts import Attempts
from sweeps.runner.store import ATTEMPTS, DONE, LEASE, open_store
from tests.xla import FAST_COMPILE, xla_flags

pytestmark = pytest.mark.slow
README = Path(__file__).parents[3] / "README.md"
GRID = bench.__file__
APP = "from sweeps.cli.app import main; main()"
CELL = ("--only", "seed=0", "--only", "batch_size=64", "--only", "loss.kind=sigmoid")
EXAMPLES = 10_000
LONG = 40_000  # examples of a cell that is stopped long before its end


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The data set of the cells; written once."""
    root = tmp_path_factory.mktemp("data")
    bench.prepare(root)
    return root


@pytest.fixture
def work(start, data, tmp_path, monkeypatch):
    """Starts `study work` of the small cells."""
    monkeypatch.chdir(tmp_path)

    def work(*args: str, root: str = "runs", devices: int = 1, **env: str):
        settings = ("--set", "execution.wandb=false", "--data", str(data), "--root", root)
        return start("-c", APP, "work", GRID, *args, *settings, XLA_FLAGS=xla_flags(devices), **env)

    return work


def pair(work, *args: str, root: str = "runs", devices: int = 1):
    """The two processes of one worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ("--coordinator", address, "--process-count", "2", "--process-id")
    return [work(*args, *hosts, str(k), root=root, devices=devices) for k in range(2)]


def ends(*processes) -> list[str]:
    return [process.communicate(timeout=240)[0] for process in processes]


def examples(n: int) -> tuple[str, str]:
    return "--set", f"budget.examples={n}"


def record(root) -> Path:
    (folder,) = [path for path in Path(root, "bench").iterdir() if path.is_dir()]
    return folder


def outcomes(folder) -> list[str | None]:
    content = open_store(folder.parent).read(folder.name, ATTEMPTS)
    return [attempt.outcome for attempt in Attempts.parse(content).all]


def values(root):
    """The rows of all cells without what differs from run to run."""
    frame = rows(root, "bench")
    drop = {"time", "content", "attempt", "memory.peak_bytes", *TIMING_METRICS}
    return frame.drop(columns=[c for c in frame if c in drop or c.startswith("seconds")])


def saved(root) -> bool:
    folder = Path(root, "bench")
    return any(path.name.isdecimal() for path in folder.glob("*/checkpoints/*"))


def test_two_shells_finish_a_study_as_readme_says(start, data, tmp_path):
    block = re.search(
        r"Two of these, in two shells.*?```sh\n(.*?)```", README.read_text(), re.DOTALL
    )
    assert block
    command = shlex.split(block[1], comments=True)
    assert command[:2] == ["study", "work"]
    command = [str(README.parent / word) if word.endswith(".py") else word for word in command]
    env = {"STUDY_DATA": str(data), "WANDB_MODE": "disabled", "XLA_FLAGS": FAST_COMPILE}
    shells = [start("-c", APP, *command[1:], **env) for _ in range(2)]
    outputs = ends(*shells)
    assert [shell.returncode for shell in shells] == [0, 0], outputs
    folders = [path for path in (tmp_path / "runs/bench").iterdir() if path.is_dir()]
    assert len(folders) == 4
    for folder in folders:
        assert (folder / DONE).exists() and not (folder / LEASE).exists()
        assert outcomes(folder) == ["done"]
        log = parse(read_rows(folder))
        assert (log.attempts, log.superseded) == (1, 0)  # no step was done twice
    starts = [len(re.findall(r"started$", output, re.MULTILINE)) for output in outputs]
    assert sum(starts) == 4


def test_two_processes_are_one_worker_with_one_lease_and_one_record(work, tmp_path):
    two = pair(work, *CELL, *examples(EXAMPLES), root="two")
    one = work(*CELL, *examples(EXAMPLES), root="one", devices=2)
    outputs = ends(*two, one)
    assert [process.returncode for process in (*two, one)] == [0, 0, 0], outputs
    assert " started" in outputs[0] and " started" not in outputs[1]
    folder = record("two")
    assert outcomes(folder) == ["done"] and not (folder / LEASE).exists()
    about = json.loads((folder / "cell.json").read_text())
    assert about["devices"]["processes"] == 2
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["0.log", "1.log"]
    two_rows, one_rows = values("two"), values("one")
    assert list(two_rows.columns) == list(one_rows.columns)
    for column in two_rows.select_dtypes("number"):
        np.testing.assert_allclose(
            two_rows[column], one_rows[column], rtol=2e-3, atol=2e-4, err_msg=column
        )


def test_sigterm_of_one_process_saves_on_both_and_a_kill_of_one_ends_the_other(work, wait_for):
    """Then the same command continues, bit for bit as if nothing had happened."""
    args = (*CELL, *examples(LONG), "--set", "execution.log_every_percent=1")
    first = pair(work, *args)
    wait_for(lambda: list(Path("runs").glob("bench/*/metrics.jsonl")))
    wait_for(lambda: read_rows(record("runs")).count(b"\n") > 3)
    first[1].send_signal(signal.SIGTERM)
    outputs = ends(*first)
    assert [process.returncode for process in first] == [3, 3], outputs
    folder = record("runs")
    assert outcomes(folder) == ["preempted"] and not (folder / LEASE).exists()
    assert saved("runs")
    reached = parse(read_rows(folder)).rows[-1]["step"]

    second = pair(work, *args)
    wait_for(lambda: parse(read_rows(folder)).rows[-1]["step"] > reached)
    os.kill(second[1].pid, signal.SIGKILL)
    outputs = ends(*second)
    assert second[0].returncode != 0, outputs

    third = pair(work, *args)
    outputs = ends(*third)
    assert [process.returncode for process in third] == [0, 0], outputs
    assert outcomes(folder)[0] == "preempted" and outcomes(folder)[-1] == "done"
    assert len(outcomes(folder)) == 3

    undisturbed = pair(work, *args, root="undisturbed")
    outputs = ends(*undisturbed)
    assert [process.returncode for process in undisturbed] == [0, 0], outputs
    left, right = values("runs"), values("undisturbed")
    assert left.equals(right)


def test_bad_input_is_one_line(start, tmp_path):
    for args, line in (
        (("--machine", "v4-33"), "v4-33"),
        (("--machine", "v4-32"), "no cell of bench runs on v4-32"),
        (("--machine", "local-999"), "no cell of bench runs on local-999"),
        (("--coordinator", "h:1"), "give --coordinator, --process-count and --process-id"),
    ):
        process = start("-c", APP, "work", GRID, *args, "--data", str(tmp_path))
        output = process.communicate(timeout=90)[0]
        assert process.returncode == 2, output
        assert line in output.splitlines()[-1]
