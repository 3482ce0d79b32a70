"""Cells on slices: each on its own kind, whatever is taken away, and never twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DRIVER = str(HERE / "fake_driver.py")
SLOW = {"FAKE_CELL_SECONDS": "0.5"}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Slices:
    """A cluster of fake slices that a test takes things away from."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
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
    """One v4-16, of two hosts, and one v4-8."""
    folder = tmp_path_factory.mktemp("cell")
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    # Workers find fake cells as their raylets do.
    env = {**os.environ, "PYTHONPATH": path, "FAKE_CELL": str(folder), **SLOW}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_cluster.py"), "v4-16", "v4-8"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        up = Slices(process)
        yield up
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def expected(monkeypatch, tmp_path_factory) -> Callable[[int], float]:
    """The final number of a seed that was trained without Ray and without a stop."""
    monkeypatch.syspath_prepend(str(HERE))
    import fake_cell
    import fake_driver

    monkeypatch.setattr(fake_cell, "SECONDS_PER_STEP", 0.0)
    monkeypatch.setattr(fake_cell, "_among_processes", lambda: (True, lambda stop: stop()))

    def final(seed: int) -> float:
        (cell,) = fake_driver.study([seed]).cells
        folder = tmp_path_factory.mktemp("plain")
        done = fake_cell.train(cell, None, folder=folder, study="fake", should_stop=lambda: False)
        return done["summary"]["train/loss"]

    return final


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


@pytest.mark.timeout(1200)  # a minute's work on idle cores, and cores are seldom idle
def test_each_cell_runs_on_its_kind_and_goes_on_when_that_is_taken_away(
    slices, start, wait_for, tmp_path, expected
):
    root = tmp_path / "runs"
    cells = ["0@v4-16", "1@v4-16", "2@v4-8"]
    process = start(DRIVER, str(root), *cells, ADDRESS=slices.address, **SLOW)
    wait_for(lambda: len(rows(root, 0)) >= 7 or len(rows(root, 1)) >= 7, 400)
    hit = 0 if rows(root, 0) else 1
    slices("lose", "v4-16-0")  # both hosts, and not a word before
    first = slices("add", "v4-16")
    wait_for(lambda: sum(row["attempt"] == 2 for row in rows(root, hit)) >= 3, 300)
    slices("notice", first, "60")
    second = slices("add", "v4-16")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert done(root) == {seed: expected(seed) for seed in range(3)}
    where = {seed: [row["slice"] for row in rows(root, seed, "start")] for seed in range(3)}
    assert where[hit] == ["v4-16-0", first, second]
    assert where[1 - hit][0] in (first, second)  # whichever of the two asked first
    assert where[2] == ["v4-8-1"]
    assert said.count("was taken away") == 2, said
    before = [row["time"] for row in rows(root, hit) if row["attempt"] == 1]
    assert rows(root, 2)[0]["time"] < before[-1] < rows(root, 1 - hit)[0]["time"]  # one waited
    told = rows(root, hit, "start")[2]["step"]  # nothing that was trained before the notice is lost
    assert told == max(r["step"] for r in rows(root, hit) if r["attempt"] == 2)
    for seed in range(3):
        assert kept_steps(root, seed) == list(range(1, 21))
    assert not list(root.glob("fake/*/FAILED.json"))
    assert not list(root.glob("fake/*/lease.json"))
