"""Cells on slices: each on its own type, whatever is taken away, and never twice.

The slices, and the study of real cells on two hosts, are those of the README.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from study.config import Execution
from study.records.metrics_log import read_rows
from study.training.loop import train
from study.training.throughput import TIMING_METRICS
from sweeps.bench import cells as bench_cells
from sweeps.bench.compare import compare_rows
from sweeps.runner.marks import request_stop
from sweeps.selection import select

HERE = Path(__file__).parents[1]
ROOT = HERE.parents[1]
DRIVER = str(HERE / "fake_driver.py")
SLOW = {"FAKE_CELL_SECONDS": "0.5"}
# A server of wandb's that nobody listens at, and a key for it.
NO_WANDB = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": 40 * "0"}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def readme(verb: str) -> list[str]:
    """The words after `study` of the README's command for fake slices that begins with `verb`."""
    text = (ROOT / "README.md").read_text().replace("\\\n", "")
    (block,) = (b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "cluster fake" in b)
    (line,) = (x for x in block.splitlines() if x.startswith(f"study {verb}"))
    return shlex.split(line, comments=True)[1:]


class Slices:
    """A cluster of fake slices that a test takes things away from.

    folder: where files tell fake cells what to do.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path):
        self.process, self.folder = process, folder
        self.address = self._line()

    def __call__(self, *words: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the cluster ended"
        return line


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Iterator[Slices]:
    """The README's, a v4-16 of two hosts and a v4-8, and a host of CPUs in addition to the head."""
    kinds = [word for word in readme("cluster fake") if word[0] == "v"]
    assert kinds == ["v4-16", "v4-8"]
    folder = tmp_path_factory.mktemp("cell")
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    # Workers find fake cells as their raylets do.
    env = {**os.environ, "PYTHONPATH": path, "FAKE_CELL": str(folder), **SLOW, **NO_WANDB}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_cluster.py"), *kinds, "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        yield Slices(process, folder)
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def rows(root: Path, seed: int, event: str | None = None) -> list[dict]:
    found = []
    for path in root.glob(f"fake/*-s{seed}-*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found += [row for row in lines if row.get("event") == event]
    return found


def done(root: Path) -> dict[int, float]:
    return {
        int(path.parent.name.split("-s")[-1].split("-")[0]): json.loads(path.read_text())[
            "summary"
        ]["train/loss"]
        for path in root.glob("fake/*/DONE.json")
    }


def kept_steps(root: Path, seed: int) -> list[int]:
    """The steps of a record that no later attempt supersedes."""
    kept: list[int] = []
    (path,) = root.glob(f"fake/*-s{seed}-*/metrics.jsonl")
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row.get("event") == "start":
            kept = [step for step in kept if step <= row["step"]]
        else:
            kept.append(row["step"])
    return kept


def attempts(root: Path, seed: int) -> list[str]:
    """The outcomes of a cell's attempts."""
    (path,) = root.glob(f"fake/*-s{seed}-*/attempts.json")
    return [attempt["outcome"] for attempt in json.loads(path.read_text())["attempts"]]


def lines_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process prints, up to the line that contains `text`."""
    printed = ""
    while text not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    return printed


def rows_on(root: Path, slice_name: str) -> int:
    """Rows of the cell that a slice trains, since it trains it."""
    begun = [r for seed in (0, 1) for r in rows(root, seed, "start") if r["slice"] == slice_name]
    return sum(r["time"] > begun[-1]["time"] for s in (0, 1) for r in rows(root, s)) if begun else 0


@pytest.mark.timeout(1200)  # a minute's work on idle cores, and cores are seldom idle
def test_each_cell_runs_on_its_type_and_goes_on_when_that_is_taken_away(
    slices, start, wait_for, tmp_path, expected
):
    """Meanwhile the disk of another study's records on another slice is full."""
    root, other = tmp_path / "runs", tmp_path / "other"
    cells = ["0@v4-16", "1@v4-16", "3@cpux2"]
    (slices.folder / "2.full").write_text("1")
    full = start(DRIVER, str(other), "2@v4-8", ADDRESS=slices.address)
    process = start(DRIVER, str(root), *cells, ADDRESS=slices.address)
    wait_for(lambda: rows_on(root, "v4-16-0") >= 7, 400)
    hit = 0 if rows(root, 0) else 1
    slices("kill", "v4-16-0")  # one of its hosts, without notice
    wait_for(lambda: "v4-16" in slices("asked"))  # as an autoscaler would be told
    said_before = lines_until(process, "the cluster has no complete v4-16")
    first = slices("replace")
    said, _ = full.communicate(timeout=400)
    assert full.returncode == 1, said
    assert "RecordError: cannot write there" in said
    assert not list(other.glob("fake/*/FAILED.json"))  # the disk's fault, not the cell's
    again = start(DRIVER, str(other), "2@v4-8", ADDRESS=slices.address)
    # The other cell has further to go, so it comes first.
    wait_for(lambda: rows_on(root, first) >= 3, 300)
    slices("notice", first, "60")
    second = slices("add", "v4-16")
    said = said_before + process.stdout.read()
    assert process.wait() == 0, said
    assert done(root) == {seed: expected(seed) for seed in (0, 1, 3)}
    where = {seed: [row["slice"] for row in rows(root, seed, "start")] for seed in (0, 1)}
    assert where == {hit: ["v4-16-0", second], 1 - hit: [first, second]}
    assert attempts(root, hit) == ["lost", "done"]
    assert attempts(root, 1 - hit) == ["preempted", "done"]
    for line in ("its worker died", "preempted; it continues", "the cluster has no complete v4-16"):
        assert line in said, said
    assert not [noise for noise in ("raylet", "\x1b", "Warning") if noise in said], said
    told = rows(root, 1 - hit, "start")[1]["step"]  # nothing trained before the notice is lost
    assert told == max(r["step"] for r in rows(root, 1 - hit) if r["attempt"] == 1)
    assert again.wait(200) == 0
    assert done(other) == {2: expected(2)}
    assert [row["slice"] for row in rows(other, 2, "start")] == ["v4-8-1", "v4-8-1"]
    for seed, where_to in ((0, root), (1, root), (2, other), (3, root)):
        assert kept_steps(where_to, seed) == list(range(1, 21))
    for folder in root.glob("fake/*-s[013]-*"):
        assert len(list((folder / "logs").iterdir())) == 2, folder  # a process on each host
    assert not list(tmp_path.glob("*/fake/*/FAILED.json"))
    assert not [p for p in tmp_path.glob("*/fake/*/lease.json") if p.read_bytes()]


@pytest.mark.timeout(600)
def test_detached_workers_go_on_without_their_driver_and_end_when_asked(
    slices, start, wait_for, tmp_path, expected
):
    root = tmp_path / "runs"
    leaver = start(DRIVER, str(root), "0@v4-8", "1@v4-8", ADDRESS=slices.address, DETACH="1")
    said, _ = leaver.communicate(timeout=200)
    assert leaver.returncode == 0, said
    result = json.loads((root / "result.json").read_text())
    assert result["detached"] == 1
    wait_for(lambda: len(done(root)) == 1 and rows_on(root, "v4-8-1"), 200)
    request_stop(root / "fake", result["run_id"])
    wait_for(lambda: "stopped" in [*attempts(root, 0), *attempts(root, 1)], 100)
    assert len(done(root)) == 1
    # The slice is free again, and what was saved is used.
    finisher = start(DRIVER, str(root), "0@v4-8", "1@v4-8", ADDRESS=slices.address)
    said, _ = finisher.communicate(timeout=200)
    assert finisher.returncode == 0, said
    assert done(root) == {seed: expected(seed) for seed in (0, 1)}
    assert sorted(len(attempts(root, seed)) for seed in (0, 1)) == [1, 2]


def final(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "DONE.json").read_text())["summary"]
    return {key: value for key, value in summary.items() if key not in TIMING_METRICS}


def starts(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in read_rows(folder).splitlines()]
    return [row for row in rows if row.get("event") == "start"]


@pytest.mark.timeout(1200)
def test_the_readmes_cells_on_two_hosts_outlive_their_driver_and_equal_one_process(
    slices, start, session, wait_for, tmp_path
):
    """wandb is down all the while."""
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    words = [slices.address if word == "ADDRESS" else word for word in readme("run")]
    command = ("-c", "from sweeps.cli.app import main; main()", *words)
    online = NO_WANDB | {"WANDB_MODE": "online"}
    records = tmp_path / "runs" / "bench"

    def trained() -> int:
        paths = records.glob("*/metrics.jsonl")
        return sum(path.read_text().count('"train/loss"') for path in paths)

    killed = start(*command, **online)
    wait_for(lambda: trained() >= 15, 400)
    killed.kill()
    assert not list(records.glob("*/DONE.json"))
    again = start(*command, **online)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "2 done" in said, said
    wait_for(lambda: session(killed.pid) == [])

    set_to = [b for a, b in itertools.pairwise(words) if a == "--set" and "slice" not in b]
    study = select(bench_cells.study(), only=["seed=0", "batch_size=256"], settings=set_to)
    hit = max(study.cells, key=lambda cell: len(starts(records / cell.id)))  # was under way
    assert len(starts(records / hit.id)) > 1
    assert starts(records / hit.id)[0]["step"] == 0
    alone, here = tmp_path / "alone" / hit.id, records / hit.id
    train(hit, Execution(data_root=str(tmp_path / "data"), wandb=False), folder=alone, group="")
    lines = compare_rows(read_rows(alone), read_rows(here))
    assert not [line for line in lines if "lost" in line or "twice" in line], lines
    one, two = final(alone), final(here)
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=2e-3)
    for cell in study.cells:
        logs = "".join(p.read_text() for p in (records / cell.id / "logs").iterdir())
        assert "wandb: 127.0.0.1 does not answer" in logs
        assert not re.search("[Cc]heckpoint", logs), logs  # Orbax's forty lines for each
        about = json.loads((records / cell.id / "cell.json").read_text())
        assert about["devices"] == {"kind": "cpu", "count": 8, "processes": 2}
