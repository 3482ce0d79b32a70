"""A small real study while its processes are killed at random, and the same study in peace.

The study is `sweeps.bench_cells`, one seed after another, run as a user would: `study run` in a
process of its own, started again with the same words whenever it was killed. Nothing here helps
it but that. Only processes of the sessions that were started here are ever killed.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from study.records import METRICS
from sweeps import bench_cells
from sweeps.chaos_compare import differences
from sweeps.grid import StudyError
from sweeps.report import duration
from sweeps.select import select
from sweeps.sessions import Sessions, members, processes

# What is killed, as often as it is named.
VICTIMS = ("worker", "worker", "worker", "driver", "driver", "raylet", "gcs_server", "all")
PAUSE = (2.0, 20.0)  # seconds before the next kill, at least and at most
STARTING = 1 / 8  # of the starts are disturbed too; after the others a pause begins with a row
WORKER = "ray::run_cell"  # the name that Ray gives to a process while it runs a cell
LEAVE = 20.0  # seconds in which what a dead driver has left behind has to be gone
ROUND = ("batch_size=64,256",)  # four cells of one seed


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """How it went.

    Attributes:
      kills: by what was killed.
      starts: of the command, in all rounds.
      cells: that were compared, in all rounds.
      attempts: at these cells, the last and successful ones included.
      seconds: wall time of the rounds, and of the same in peace.
      differences: one line each.
    """

    kills: dict[str, int]
    starts: int
    rounds: int
    cells: int
    attempts: int
    seconds: tuple[float, float]
    differences: tuple[str, ...]


def chaos(
    root: Path,
    *,
    minutes: float,
    seed: int,
    parallel: int,
    only: tuple[str, ...] = ROUND,
    say: Callable[[str], None],
) -> Chaos:
    """Kills for so many minutes, round after round, each compared with the same in peace.

    A round that differs is the last.

    Arguments:
      root: for data and records; must be empty or missing.
      seed: of what is killed and when; how far the study is then depends on the machine.
      only: the cells of a round beside its seed, as `--only` takes them.

    Raises:
      StudyError: there is no /proc to find processes in, or `root` holds something.
    """
    if not Path("/proc/self/stat").exists():
        raise StudyError("study bench chaos finds processes in /proc, which this system lacks")
    if root.exists() and any(root.iterdir()):
        raise StudyError(f"--root {root} is not empty; name a new folder")
    root.mkdir(parents=True, exist_ok=True)
    bench_cells.prepare(root / "data")
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    kills, found, cells, attempts = Counter[str](), list[str](), 0, 0
    starts, rounds, rough, calm = 0, 0, 0.0, 0.0
    while time.monotonic() < until and not found:
        words = (f"seed={bench_cells.SEEDS[rounds % len(bench_cells.SEEDS)]}", *only)
        here, peace = (root / f"round-{rounds}" / name for name in ("killed", "peace"))
        rounds += 1
        began = time.monotonic()
        for _ in _killed(rng, until, kills, found, _command(here, root, parallel, words), say):
            starts += 1
        rough += time.monotonic() - began
        say(f"round {rounds} is over after {duration(time.monotonic() - began)}; now in peace")
        began = time.monotonic()
        with Sessions() as sessions:
            sessions.start(_command(peace, root, parallel, words), peace.parent / "log").wait()
        calm += time.monotonic() - began
        until += time.monotonic() - began  # peace is not of the minutes
        study = select(bench_cells.study(), only=words)
        of = differences(study.cells, study.folder(peace), study.folder(here))
        cells, attempts = cells + len(study.cells), attempts + of.attempts
        found += [f"round {rounds}: {line}" for line in of.lines]
    return Chaos(
        kills=dict(sorted(kills.items())),
        starts=starts,
        rounds=rounds,
        cells=cells,
        attempts=attempts,
        seconds=(rough, calm),
        differences=tuple(found),
    )


def _command(records: Path, root: Path, parallel: int, only: tuple[str, ...]) -> list[str]:
    words = ["run", bench_cells.__file__, "--root", str(records), "--data", str(root / "data")]
    words += ["--parallel", str(parallel), "--set", "execution.checkpoint_every_percent=5"]
    words += [word for pattern in only for word in ("--only", pattern)]
    return [sys.executable, "-c", "from sweeps.cli import main; main()", *words]


def _killed(
    rng: random.Random,
    until: float,
    kills: Counter[str],
    found: list[str],
    command: list[str],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Starts `command` again and again, killing, until it ends well; yields at each start.

    The next start does not wait until what the last one left behind is gone.
    """
    records = Path(command[command.index("--root") + 1])
    log = records.parent / "log"
    with Sessions() as sessions:
        code, disturbed = 1, True
        while code and disturbed:
            yield
            driver, disturbed = sessions.start(command, log), False
            begun = rng.random() < STARTING
            started, pause = time.time(), time.monotonic() + rng.uniform(*PAUSE)
            while driver.poll() is None:
                time.sleep(0.2)
                if not begun and _trained(records, started):
                    begun, pause = True, time.monotonic() + rng.uniform(*PAUSE)
                if not begun or not pause <= time.monotonic() < until:
                    continue
                what = rng.choice(VICTIMS)
                pause = time.monotonic() + 1.0  # until then there may be such a process
                if chosen := _chosen(what, driver.pid, rng):
                    sessions.kill(driver.pid, chosen)
                    kills[what] += 1
                    disturbed = True
                    say(f"killed {what}; {kills.total()} kills so far")
                    pause = time.monotonic() + rng.uniform(*PAUSE)
            code = driver.wait()
            if code:
                say(f"the command ended with code {code}")
        if code:
            found.append(f"the command ended with code {code} though undisturbed; see {log}")
        if left := sessions.outlived(LEAVE):
            found.append(f"processes of dead drivers were still there: {left}")


def _trained(records: Path, since: float) -> bool:
    """Whether a cell has added to its record since then."""
    return any(path.stat().st_mtime > since for path in records.rglob(METRICS))


def _chosen(what: str, leader: int, rng: random.Random) -> list[int]:
    if what == "driver":
        return [leader]
    if what == "all":
        return members(leader)
    there = processes(leader, WORKER if what == "worker" else what)
    return [rng.choice(there)] if there else []
