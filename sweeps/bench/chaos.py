"""Kills a small real study at random, and compares its records with an undisturbed run.

The study is `sweeps.bench.cells`, one seed per round, run as a user would run it: `study run` in
its own process, started again with the same command whenever it was killed. Only processes of
sessions started here are ever killed. On fake slices hosts are killed too, and `study cluster fake`
replaces them.
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
from sweeps.bench import cells as bench_cells
from sweeps.bench.compare import compare_cells
from sweeps.bench.sessions import Sessions, command_of, find, members
from sweeps.runner.display import duration
from sweeps.selection import select
from sweeps.study import StudyError

STUDY = (sys.executable, "-c", "from sweeps.cli.app import main; main()")
# What is killed, in proportion to how often it is listed; `Cluster.kill` explains the names.
TARGETS = ("worker", "worker", "worker", "driver", "driver", "raylet", "gcs_server", "all")
SLICE_TARGETS = ("host", "host", "process", "gang", "driver")
PAUSE_SECONDS = (2.0, 20.0)  # between two kills: at least, at most
# Share of the starts in which a kill may come before the first row.
EARLY_KILLS = 1 / 8
# Ray's titles of processes that run a cell: locally, of a slice, and on each host of a slice.
WORKER, GANG, PROCESS = "ray::run_cell", "ray::run_gang", "ray::RayTrainWorker"
CLEANUP_SECONDS = 20.0  # in which everything that a dead driver started has to end
ROUND = ("batch_size=64,256",)  # four cells of one seed
SLICE_ROUND = ("batch_size=1024",)  # two
CLUSTER_SECONDS = 120.0  # timeout for fake slices to start


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """The result.

    Attributes:
      kills: by target.
      starts: of the command, over all rounds.
      cells: that were compared, over all rounds.
      attempts: at these cells, the successful ones included.
      seconds: wall time of the disturbed runs, and of the undisturbed ones.
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
    """Kills for `minutes`, in rounds that are each compared with an undisturbed run.

    Stops after the first round that differs.

    Arguments:
      root: for data and records; must be empty or missing.
      seed: of the choice of targets and times; how far the study is then depends on the machine.
      slice_name: the type of a fake slice to run on; None: local cores.
      only: the cells of a round besides its seed, as for `--only`.

    Raises:
      HardwareError: no such slice.
      StudyError: `root` is not empty, or the fake slices do not start.
    """
    only = only or (ROUND if slice_name is None else SLICE_ROUND)
    if root.exists() and any(root.iterdir()):
        raise StudyError(f"--root {root} is not empty; name a new folder")
    root.mkdir(parents=True, exist_ok=True)
    bench_cells.prepare(root / "data")
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    kills, differences = Counter[str](), list[str]()
    cells = attempts = starts = rounds = 0
    disturbed_s = baseline_s = 0.0
    with _start_cluster(root, slice_name) as cluster:
        while time.monotonic() < until and not differences:
            selection = (f"seed={bench_cells.SEEDS[rounds % len(bench_cells.SEEDS)]}", *only)
            disturbed, baseline = (root / f"round-{rounds}" / n for n in ("disturbed", "baseline"))
            rounds += 1
            began = time.monotonic()
            command = _command(disturbed, root, parallel, selection, cluster)
            for _ in _run_disturbed(rng, until, kills, differences, command, cluster, say):
                starts += 1
            took = time.monotonic() - began
            say(f"round {rounds} took {duration(took)}; now undisturbed")
            disturbed_s += took
            began = time.monotonic()
            with Sessions() as sessions:
                command = _command(baseline, root, parallel, selection, cluster)
                sessions.start(command, baseline.parent / "log").wait()
            took = time.monotonic() - began
            baseline_s += took
            until += took  # the minutes are those of the disturbed runs
            study = select(bench_cells.study(), only=selection)
            lines, tries = compare_cells(
                study.cells, study.folder(baseline), study.folder(disturbed)
            )
            cells, attempts = cells + len(study.cells), attempts + tries
            differences += [f"round {rounds}: {line}" for line in lines]
    return Chaos(
        kills=dict(sorted(kills.items())),
        starts=starts,
        rounds=rounds,
        cells=cells,
        attempts=attempts,
        seconds=(disturbed_s, baseline_s),
        differences=tuple(differences),
    )


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where cells run, and what can be killed there.

    Attributes:
      options: of `study run`, to join the fake slices.
      slices: the leader of the fake slices' session, and the sessions it belongs to.
    """

    targets: tuple[str, ...] = TARGETS
    options: tuple[str, ...] = ()
    slices: tuple[int, Sessions] | None = None

    def kill(self, target: str, driver: int, sessions: Sessions, rng: random.Random) -> bool:
        """Kills a process of the session of `driver`, or of the fake slices, if there is one.

        target: "driver"; "all" of its session; "host", a raylet of a slice; a worker ("worker",
        "gang", "process"); or the name of a program.
        """
        leader, owner = (driver, sessions) if self.slices is None else self.slices
        match target:
            case "driver":
                leader, owner, pids = driver, sessions, [driver]
            case "all":
                pids = members(driver)
            case "host":
                pids = [p for p in find(leader, "raylet") if "--head" not in command_of(p)]
            case _:
                titles = {"worker": WORKER, "gang": GANG, "process": PROCESS}
                pids = find(leader, titles.get(target, target))
        if pids:
            owner.kill(leader, pids if target == "all" else [rng.choice(pids)])
        return bool(pids)


@contextlib.contextmanager
def _start_cluster(root: Path, slice_name: str | None) -> Iterator[Cluster]:
    if slice_name is None:
        yield Cluster()
        return
    kind, log = get_slice(slice_name).name, root / "slices.log"
    with Sessions() as sessions:
        leader = sessions.start([*STUDY, "cluster", "fake", "--slice", kind], log)
        until = time.monotonic() + CLUSTER_SECONDS
        while not (ready := re.search(r"ready at (\S+)", log.read_text())):
            if leader.poll() is not None or time.monotonic() > until:
                raise StudyError(f"fake slices of {kind} did not start; see {log}")
            time.sleep(0.2)
        yield Cluster(
            targets=SLICE_TARGETS,
            options=("--address", ready[1], "--set", f"execution.slice={kind}"),
            slices=(leader.pid, sessions),
        )


def _command(
    records: Path, root: Path, parallel: int, only: tuple[str, ...], cluster: Cluster
) -> list[str]:
    words = ["run", bench_cells.__file__, "--root", str(records), "--data", str(root / "data")]
    words += ["--workers", str(parallel), "--set", "execution.checkpoint_every_minutes=0.01"]
    words += [word for pattern in only for word in ("--only", pattern)]
    return [*STUDY, *words, *cluster.options]


def _run_disturbed(
    rng: random.Random,
    until: float,
    kills: Counter[str],
    differences: list[str],
    command: list[str],
    cluster: Cluster,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Starts `command` until it succeeds, killing its processes; yields at each start.

    A start does not wait until what the last one left behind is gone.
    """
    records = Path(command[command.index("--root") + 1])
    log = records.parent / "log"
    with Sessions() as sessions:
        code, disturbed = 1, True
        while code and disturbed:
            yield
            driver, disturbed = sessions.start(command, log), False
            may_kill = rng.random() < EARLY_KILLS
            started, next_kill = time.time(), time.monotonic() + rng.uniform(*PAUSE_SECONDS)
            while driver.poll() is None:
                time.sleep(0.2)
                if not may_kill and _has_new_rows(records, started):
                    may_kill, next_kill = True, time.monotonic() + rng.uniform(*PAUSE_SECONDS)
                if not may_kill or not next_kill <= time.monotonic() < until:
                    continue
                target = rng.choice(cluster.targets)
                next_kill = time.monotonic() + 1.0  # there may be such a process by then
                if cluster.kill(target, driver.pid, sessions, rng):
                    kills[target] += 1
                    disturbed = True
                    say(f"killed {target}; {kills.total()} kills so far")
                    next_kill = time.monotonic() + rng.uniform(*PAUSE_SECONDS)
            code = driver.wait()
            if code:
                say(f"the command ended with code {code}")
        if code:
            differences.append(f"the command ended with code {code} though undisturbed; see {log}")
        if survivors := sessions.survivors(CLEANUP_SECONDS):
            differences.append(f"processes of dead drivers were still alive: {survivors}")


def _has_new_rows(records: Path, since: float) -> bool:
    """Whether a cell has added to its record since then."""
    return any(path.stat().st_mtime > since for path in records.rglob(METRICS))
