"""A sweep ends with every cell over, whatever dies on the way, and leaves no process behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import pytest

from sweeps.bench.sessions import command_of

DRIVER = str(Path(__file__).parents[1] / "fake_driver.py")
SLOW = {"FAKE_CELL_SECONDS": "0.3"}
SURVIVORS = 15.0  # seconds until the last process of a dead driver is gone

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def lines(root: Path, event: str | None = None) -> list[dict]:
    found = []
    for path in root.glob("fake/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found += [row for row in rows if row.get("event") == event]
    return found


def ended(root: Path) -> dict[int, dict]:
    """DONE.json by seed."""
    return {
        int(path.parent.name.split("-s")[-1].split("-")[0]): json.loads(path.read_text())
        for path in root.glob("fake/*/DONE.json")
    }


def finish(process, seconds: float = 150) -> str:
    said, _ = process.communicate(timeout=seconds)
    return said


def held(root: Path) -> list[Path]:
    """Leases that nobody has released."""
    return [path for path in root.glob("fake/*/lease.json") if path.read_bytes()]


def test_cells_that_fail_crash_diverge_or_are_bad_do_not_stop_the_others(
    start, session, tmp_path, expected
):
    root = tmp_path / "runs"
    (tmp_path / "1.raise").write_text("1")
    (tmp_path / "2.raise").write_text("3")
    (tmp_path / "3.crash").write_text("1")
    (tmp_path / "4.bad").write_text("1")
    process = start(DRIVER, str(root), *map(str, [0, 1, 2, 3, 4, 666]))
    said = finish(process)
    assert process.returncode == 1, said
    done = ended(root)
    assert sorted(done) == [0, 1, 3, 666]
    assert done[666]["status"] == "diverged"
    assert {seed: done[seed]["summary"]["train/loss"] for seed in (0, 1, 3)} == {
        seed: expected(seed) for seed in (0, 1, 3)
    }
    attempts = {seed: done[seed]["attempt"] for seed in done}
    assert attempts == {0: 1, 1: 2, 3: 2, 666: 1}
    failures = [json.loads(path.read_text()) for path in root.glob("fake/*/FAILED.json")]
    assert sorted(f["error"] for f in failures) == [
        "ZeroDivisionError: told to raise",
        "batch_size: bad as told",
    ]
    assert all("Traceback" in f["trace"] for f in failures)
    assert said.count("attempt 1 of 3 failed") == 2
    assert said.count("attempt 2 of 3 failed") == 1
    assert said.count("its worker died; it continues from 50%") == 1
    starts = lines(root, "start")
    assert len([row for row in starts if row["pid"]]) == 1 + 2 + 3 + 2 + 1 + 1
    assert len({row["pid"] for row in starts}) <= 3  # of two workers, one of which was killed
    assert {row["OMP_NUM_THREADS"] for row in starts} == {"1"}
    assert not [noise for noise in ("raylet", "\x1b", "Warning") if noise in said], said
    assert session(process.pid) == []
    assert not held(root)
    assert not list(root.glob("fake/.stop/*"))

    again = start(DRIVER, str(root), *map(str, [0, 1, 3, 666]))  # all of these are over
    assert finish(again) == ""
    assert again.returncode == 0
    result = json.loads((root / "result.json").read_text())
    assert result["states"] == {"done": 3, "diverged": 1}
    assert result["ran"] == []
    assert result["ray"] is False


def test_a_cell_has_as_many_cores_as_it_asks_for_to_itself(start, tmp_path):
    root = tmp_path / "runs"
    process = start(DRIVER, str(root), "0", "1@2", "2@2")  # of two cores
    said = finish(process)
    assert process.returncode == 0, said
    threads, when = {}, {}
    for seed in range(3):
        (path,) = root.glob(f"fake/*-s{seed}-*/metrics.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        threads[seed] = rows[0]["NPROC"]
        when[seed] = (rows[0]["time"], rows[-1]["time"])
    assert threads == {0: "1", 1: "3", 2: "3"}
    first, second, third = sorted(when.values())
    assert first[1] <= second[0] and second[1] <= third[0]
    spent = json.loads((root / "result.json").read_text())["train_seconds"]
    train = {seed: done["seconds"]["train"] for seed, done in ended(root).items()}
    assert spent == pytest.approx(train[0] + 2 * train[1] + 2 * train[2])


def test_a_killed_driver_leaves_no_process_and_the_next_goes_on(
    start, session, wait_for, tmp_path, expected
):
    root = tmp_path / "runs"
    first = start(DRIVER, str(root), "0", "1", "2", **SLOW)
    wait_for(lambda: len(lines(root)) >= 12)
    commands = " ".join(itertools.chain(*map(command_of, session(first.pid))))
    assert "raylet" in commands  # and nothing of Ray that only a dashboard or a cluster needs
    assert not any(name in commands for name in ("dashboard.py", "monitor.py", "log_monitor.py"))
    first.kill()
    finish(first)
    wait_for(lambda: session(first.pid) == [], SURVIVORS)
    seen = max(row["step"] for row in lines(root))
    assert 0 < seen < 20

    second = start(DRIVER, str(root), "0", "1", "2")
    said = finish(second)
    assert second.returncode == 0, said
    done = ended(root)
    assert {seed: done[seed]["summary"]["train/loss"] for seed in done} == {
        seed: expected(seed) for seed in range(3)
    }
    assert {row["step"] for row in lines(root, "start") if row["attempt"] == 2} != {0}


def test_ctrl_c_saves_the_cells_and_ends_the_sweep(start, session, wait_for, tmp_path):
    root = tmp_path / "runs"
    process = start(DRIVER, str(root), "0", "1", "2", **SLOW)
    wait_for(lambda: len(lines(root)) >= 6)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    said = finish(process)
    assert process.returncode == 130, said
    assert "stopping: 2 running cells are saved" in said
    wait_for(lambda: session(process.pid) == [], SURVIVORS)
    saved = [json.loads(path.read_text())[0] for path in root.glob("fake/*/saved.json")]
    assert len(saved) == 2
    assert sorted(saved) == sorted(  # nothing that was trained is lost
        max(row["step"] for row in lines(path)) for path in _one_cell_each(root)
    )
    assert ended(root) == {}
    assert not held(root)


def test_when_ray_dies_it_is_started_again_and_no_number_changes(
    start, session, wait_for, tmp_path, expected
):
    root = tmp_path / "runs"
    process = start(DRIVER, str(root), "0", "1", **SLOW)
    wait_for(lambda: len(lines(root)) >= 12)
    (raylet,) = [
        pid
        for pid in session(process.pid)
        if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"
    ]
    os.kill(raylet, signal.SIGKILL)
    said = finish(process)
    assert process.returncode == 0, said
    assert "Ray stopped (raylet); starting it again" in said
    done = ended(root)
    assert {seed: done[seed]["summary"]["train/loss"] for seed in done} == {
        seed: expected(seed) for seed in range(2)
    }
    wait_for(lambda: session(process.pid) == [], SURVIVORS)


def _one_cell_each(root: Path) -> list[Path]:
    """A root for each cell that has begun, so that `lines` reads one cell."""
    roots = []
    for path in root.glob("fake/*/metrics.jsonl"):
        alone = root.parent / "alone" / path.parent.name
        (alone / "fake").mkdir(parents=True)
        (alone / "fake" / path.parent.name).symlink_to(path.parent)
        roots.append(alone)
    return roots
