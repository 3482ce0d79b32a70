"""A small real study while its processes are killed at random, and the same study in peace.

The study is `sweeps.bench.bench_cells`, one seed after another, run as a user would: `study run` in
a process of its own, started again with the same words whenever it was killed. Nothing here helps
it but that. Only processes of the sessions that were started here are ever killed.

On fake slices too: there hosts are killed, and `study cluster fake` brings up others.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from study.config.hardware import get_slice
from study.records.record import METRICS
from sweeps.bench import bench_cells
from sweeps.bench.chaos_compare import differences
from sweeps.bench.sessions import Sessions, has_word, members, processes
from sweeps.runner.display import duration
from sweeps.selection import select
from sweeps.study import StudyError

STUDY = (sys.executable, "-c", "from sweeps.cli.app import main; main()")
# What is killed, as often as it is named; a name that is not explained in `_Ground` is a program's.
VICTIMS = ("worker", "worker", "worker", "driver", "driver", "raylet", "gcs_server", "all")
ON_SLICES = ("host", "host", "process", "gang", "driver")
PAUSE = (2.0, 20.0)  # seconds before the next kill, at least and at most
STARTING = 1 / 8  # of the starts are disturbed too; after the others a pause begins with a row
# The names that Ray gives to a process while it runs a cell; on a slice, while it holds one's
# lease, and on each of its hosts.
WORKER, GANG, PROCESS = "ray::run_cell", "ray::run_gang", "ray::RayTrainWorker"
LEAVE = 20.0  # seconds in which what a dead driver has left behind has to be gone
ROUND = ("batch_size=64,256",)  # four cells of one seed
SLICE_ROUND = ("batch_size=1024",)  # two
UP = 120.0  # seconds for fake slices to start


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
    slice_name: str | None = None,
    only: tuple[str, ...] | None = None,
    say: Callable[[str], None],
) -> Chaos:
    """Kills for so many minutes, round after round, each compared with the same in peace.

    A round that differs is the last.

    Arguments:
      root: for data and records; must be empty or missing.
      seed: of what is killed and when; how far the study is then depends on the machine.
      slice_name: a kind of fake slice that all cells run on; None: in processes here.
      only: the cells of a round beside its seed, as `--only` takes them.

    Raises:
      HardwareError: there is no such slice.
      StudyError: there is no /proc to find processes in, `root` holds something, or the slices
        do not come up.
    """
    only = only or (ROUND if slice_name is None else SLICE_ROUND)
    if not Path("/proc/self/stat").exists():
        raise StudyError("study bench chaos finds processes in /proc, which this system lacks")
    if root.exists() and any(root.iterdir()):
        raise StudyError(f"--root {root} is not empty; name a new folder")
    root.mkdir(parents=True, exist_ok=True)
    bench_cells.prepare(root / "data")
    with _ground(root, slice_name) as ground:
        return _rounds(root, minutes, seed, parallel, only, ground, say)


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """Where cells run, and what is killed there.

    Attributes:
      words: more of the command.
      slices: the process whose session the fake slices are, and that session.
    """

    victims: tuple[str, ...] = VICTIMS
    words: tuple[str, ...] = ()
    slices: tuple[int, Sessions] | None = None

    def kill(self, what: str, driver: int, sessions: Sessions, rng: random.Random) -> bool:
        """Whether there was such a process, of the session of `driver` or of the slices."""
        leader, owner = (driver, sessions) if self.slices is None else self.slices
        match what:
            case "driver":
                leader, owner, there = driver, sessions, [driver]
            case "all":
                there = members(driver)
            case "host":
                there = [p for p in processes(leader, "raylet") if not has_word(p, "--head")]
            case _:
                names = {"worker": WORKER, "gang": GANG, "process": PROCESS}
                there = processes(leader, names.get(what, what))
        if there:
            owner.kill(leader, there if what == "all" else [rng.choice(there)])
        return bool(there)


@contextlib.contextmanager
def _ground(root: Path, slice_name: str | None) -> Iterator[_Ground]:
    if slice_name is None:
        yield _Ground()
        return
    kind, log = get_slice(slice_name).name, root / "slices.log"
    with Sessions() as sessions:
        up = sessions.start([*STUDY, "cluster", "fake", "--slice", kind], log)
        until = time.monotonic() + UP
        while not (found := re.search(r"ready at (\S+)", log.read_text())):
            if up.poll() is not None or time.monotonic() > until:
                raise StudyError(f"fake slices of {kind} did not start; see {log}")
            time.sleep(0.2)
        yield _Ground(
            victims=ON_SLICES,
            words=("--address", found[1], "--set", f"execution.slice={kind}"),
            slices=(up.pid, sessions),
        )


def _rounds(
    root: Path,
    minutes: float,
    seed: int,
    parallel: int,
    only: tuple[str, ...],
    ground: _Ground,
    say: Callable[[str], None],
) -> Chaos:
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    kills, found, cells, attempts = Counter[str](), list[str](), 0, 0
    starts, rounds, rough, calm = 0, 0, 0.0, 0.0
    while time.monotonic() < until and not found:
        words = (f"seed={bench_cells.SEEDS[rounds % len(bench_cells.SEEDS)]}", *only)
        here, peace = (root / f"round-{rounds}" / name for name in ("killed", "peace"))
        rounds += 1
        began = time.monotonic()
        command = [*_command(here, root, parallel, words), *ground.words]
        for _ in _killed(rng, until, kills, found, command, ground, say):
            starts += 1
        rough += time.monotonic() - began
        say(f"round {rounds} is over after {duration(time.monotonic() - began)}; now in peace")
        began = time.monotonic()
        with Sessions() as sessions:
            command = [*_command(peace, root, parallel, words), *ground.words]
            sessions.start(command, peace.parent / "log").wait()
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
    words += ["--parallel", str(parallel), "--set", "execution.checkpoint_every_minutes=0.01"]
    words += [word for pattern in only for word in ("--only", pattern)]
    return [*STUDY, *words]


def _killed(
    rng: random.Random,
    until: float,
    kills: Counter[str],
    found: list[str],
    command: list[str],
    ground: _Ground,
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
                what = rng.choice(ground.victims)
                pause = time.monotonic() + 1.0  # until then there may be such a process
                if ground.kill(what, driver.pid, sessions, rng):
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
