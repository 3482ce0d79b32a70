"""Kills a small real study at random, and compares its records with an undisturbed run.

The study is `sweeps.bench.cells`, one seed per round, run as a user would run it: by `study run`,
or by several `study work`, each in a process of its own that is started again whenever it was
killed. Only processes of sessions started here are ever killed. On fake slices hosts are killed
too, and `study cluster fake` replaces them.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from study.records.storage import listdir
from sweeps.bench import cells as bench_cells
from sweeps.bench.compare import compare_cells
from sweeps.bench.launchers import STUDY, Launcher, launcher
from sweeps.bench.sessions import Sessions
from sweeps.runner import cell_status
from sweeps.runner.display import duration
from sweeps.selection import select
from sweeps.study import Study, StudyError

PAUSE_SECONDS = (1.0, 10.0)  # between two kills: at least, at most
RESTART_SECONDS = (0.0, 5.0)  # from the end of a killed command to its next start
# Share of the starts after which a kill may come before the first row.
EARLY_KILLS = 1 / 8
LOOK_SECONDS = 0.5
CLEANUP_SECONDS = 20.0  # in which everything that a dead command started has to end
ROUND = ("batch_size=16,64,256",)  # six cells of one seed
SLICE_ROUND = ("batch_size=1024",)  # two


@dataclass(kw_only=True)
class Chaos:
    """What happened, over all rounds.

    Attributes:
      kills: by target.
      starts: of the command.
      retries: by `study retry`, of cells that were lost too often without getting further.
      cells: that were compared.
      attempts: at these cells, the successful ones included.
      disturbed_s, undisturbed_s: wall time.
      differences: one line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    retries: int = 0
    rounds: int = 0
    cells: int = 0
    attempts: int = 0
    disturbed_s: float = 0.0
    undisturbed_s: float = 0.0
    differences: list[str] = field(default_factory=list)


def chaos(
    folder: Path,
    *,
    minutes: float,
    seed: int,
    workers: int,
    launch: Literal["run", "work"] = "run",
    slice_name: str | None = None,
    records: Path | None = None,
    only: tuple[str, ...] | None = None,
    say: Callable[[str], None],
) -> Chaos:
    """Kills for `minutes`, in rounds that are each compared with an undisturbed run.

    Stops after the first round that differs.

    Arguments:
      folder: for data, logs and the undisturbed records; must be empty or missing.
      seed: of the choice of targets and times; how far the study is then depends on the machine.
      launch: `study run` starts workers through Ray; `study work` is one worker.
      slice_name: the type of a fake slice to run on; None: local cores.
      records: of the disturbed runs, as `resolve` gives it; must be empty or missing. By default
        in `folder`.
      only: the cells of a round besides its seed, as for `--only`.

    Raises:
      HardwareError: no such slice.
      StudyError: a folder is not empty, or the fake slices do not start.
    """
    only = only or (ROUND if slice_name is None else SLICE_ROUND)
    records = records or folder / "disturbed"
    for path in (folder, records):
        if listdir(path):
            raise StudyError(f"{path} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    bench_cells.prepare(folder / "data")
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    total = Chaos()
    with launcher(launch, folder, workers, slice_name) as how:
        while time.monotonic() < until and not total.differences:
            selection = (f"seed={bench_cells.SEEDS[total.rounds % len(bench_cells.SEEDS)]}", *only)
            name = f"round-{total.rounds}"
            disturbed, baseline, log = records / name, folder / name, folder / f"{name}.log"
            total.rounds += 1
            study = select(bench_cells.study(), only=selection)
            began = time.monotonic()
            command = how.command(disturbed, folder / "data", selection)
            _Round(study, disturbed, command, how, log, rng, until, total, say).run()
            took = time.monotonic() - began
            say(f"round {total.rounds} took {duration(took)}; now undisturbed")
            total.disturbed_s += took
            began = time.monotonic()
            command = how.command(baseline, folder / "data", selection)
            with Sessions() as sessions:
                for process in [sessions.start(command, log) for _ in range(how.processes)]:
                    process.wait()
            took = time.monotonic() - began
            total.undisturbed_s += took
            until += took  # the minutes are those of the disturbed runs
            lines, attempts = compare_cells(
                study.cells, study.folder(baseline), study.folder(disturbed)
            )
            total.cells += len(study.cells)
            total.attempts += attempts
            total.differences += [f"round {total.rounds}: {line}" for line in lines]
    return total


@dataclass
class _Slot:
    """One of the processes that are kept running. disturbed: since its start."""

    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    disturbed: bool = False
    finished: bool = False


class _Round:
    """Runs a study until it is finished, and kills its processes until then."""

    def __init__(
        self,
        study: Study,
        root: Path,
        command: list[str],
        how: Launcher,
        log: Path,
        rng: random.Random,
        until: float,
        total: Chaos,
        say: Callable[[str], None],
    ):
        self._study, self._root, self._command, self._how = study, root, command, how
        self._log, self._rng, self._until, self._total, self._say = log, rng, until, total, say
        self._slots = [_Slot() for _ in range(how.processes)]
        self._started = 0.0  # when the last command started, in seconds since 1970
        self._may_kill = False
        self._next_kill = 0.0

    def run(self) -> None:
        with Sessions() as sessions:
            while not all(slot.finished for slot in self._slots):
                for slot in self._slots:
                    self._keep_running(slot, sessions)
                self._kill(sessions)
                time.sleep(LOOK_SECONDS)
            if survivors := sessions.survivors(CLEANUP_SECONDS):
                self._total.differences.append(
                    f"processes of dead commands were still alive: {survivors}"
                )

    def _keep_running(self, slot: _Slot, sessions: Sessions) -> None:
        now = time.monotonic()
        if slot.finished:
            return
        if slot.process is None:
            if now >= slot.start_at:
                # Does not wait until what the last one left behind is gone.
                slot.process, slot.disturbed = sessions.start(self._command, self._log), False
                self._total.starts += 1
                self._started = time.time()
                self._may_kill = self._rng.random() < EARLY_KILLS
                self._postpone()
            return
        code = slot.process.poll()
        if code is None:
            return
        slot.process, slot.start_at = None, now + self._rng.uniform(*RESTART_SECONDS)
        if code == 0:
            slot.finished = True
            return
        self._say(f"a command ended with code {code}")
        if not self._retry_lost() and not slot.disturbed:
            slot.finished = True
            self._total.differences.append(
                f"a command ended with code {code} though undisturbed; see {self._log}"
            )

    def _retry_lost(self) -> bool:
        """Retries failed cells if kills are all that made them fail; whether there were any."""
        failed = [s for s in cell_status.read(self._study, self._root) if s.state == "failed"]
        if not failed or any(s.attempts.all[-1].outcome != "lost" for s in failed):
            return False
        words = ["retry", bench_cells.__file__, "--failed", "--root", str(self._root)]
        subprocess.run([*STUDY, *words], check=True, capture_output=True)
        self._total.retries += len(failed)
        self._say(f"retried {len(failed)} cells that were killed without getting further")
        return True

    def _kill(self, sessions: Sessions) -> None:
        if not self._may_kill and self._has_new_rows():
            self._may_kill = True
            self._postpone()
        if not self._may_kill or not self._next_kill <= time.monotonic() < self._until:
            return
        running = {s.process.pid: s for s in self._slots if s.process and s.process.poll() is None}
        target = self._rng.choice(self._how.targets)
        self._next_kill = time.monotonic() + 1.0  # there may be such a process by then
        if running and (hit := self._how.kill(target, [*running], sessions, self._rng)):
            for leader in hit:
                running[leader].disturbed = True
            self._total.kills[target] += 1
            self._say(f"killed {target}; {self._total.kills.total()} kills so far")
            self._postpone()

    def _postpone(self) -> None:
        self._next_kill = time.monotonic() + self._rng.uniform(*PAUSE_SECONDS)

    def _has_new_rows(self) -> bool:
        """Whether a cell has added to its record since the last start."""
        times = [s.progress.time for s in cell_status.read(self._study, self._root)]
        return any(t is not None and t > self._started for t in times)
