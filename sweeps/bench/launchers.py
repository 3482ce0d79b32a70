"""How `study bench chaos` runs its study, and what it can kill of that."""

from __future__ import annotations

import contextlib
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.config.hardware import get_slice
from sweeps.bench import cells
from sweeps.bench.sessions import Sessions, command_of, find, members
from sweeps.study import StudyError

STUDY = (sys.executable, "-c", "from sweeps.cli.app import main; main()")
# What is killed, in proportion to how often it is listed; `Launcher.kill` explains the names.
RAY_TARGETS = ("worker", "worker", "worker", "driver", "driver", "raylet", "gcs_server", "all")
SLICE_TARGETS = ("host", "host", "process", "supervisor", "driver")
WORK_TARGETS = ("worker", "worker", "worker", "all")
# Ray's titles of processes: a local worker, the supervisor of a slice, and each host of a slice.
TITLES = {
    "worker": "ray::LocalWorker",
    "supervisor": "ray::SliceWorker",
    "process": "ray::HostWorker",
}
CLUSTER_SECONDS = 120.0  # timeout for fake slices to start


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """How the study is run.

    Attributes:
      verb: "run" starts workers through Ray, "work" is one worker.
      processes: of the command, at a time.
      options: of the command.
      slices: the leader of the fake slices' session, and the sessions it belongs to.
    """

    verb: Literal["run", "work"]
    targets: tuple[str, ...]
    processes: int = 1
    options: tuple[str, ...] = ()
    slices: tuple[int, Sessions] | None = None

    def command(self, root: Path, data: Path, only: Sequence[str]) -> list[str]:
        """Trains the cells that `only` selects, with a checkpoint at every look at the clock."""
        words = [self.verb, cells.__file__, "--root", str(root), "--data", str(data)]
        words += ["--set", "execution.checkpoint_every_minutes=0.01"]
        words += [word for pattern in only for word in ("--only", pattern)]
        return [*STUDY, *words, *self.options]

    def kill(
        self, target: str, leaders: Sequence[int], sessions: Sessions, rng: random.Random
    ) -> list[int]:
        """Kills a process that `target` names; the leaders whose sessions that was in.

        Arguments:
          target: "driver"; "all" of the sessions; "host", a raylet of a slice; "worker",
            "supervisor" or "process" (of a host); or the name of a program.
          leaders: process ids of the commands that run, each the leader of its session.
        """
        if target == "all":
            for leader in leaders:
                sessions.kill(leader, members(leader))
            return list(leaders)
        if target == "driver" or self.verb == "work":
            leader = rng.choice(leaders)
            sessions.kill(leader, [leader])
            return [leader]
        leader, owner = (leaders[0], sessions) if self.slices is None else self.slices
        if target == "host":
            pids = [p for p in find(leader, "raylet") if "--head" not in command_of(p)]
        else:
            pids = find(leader, TITLES.get(target, target))
        if not pids:
            return []
        owner.kill(leader, [rng.choice(pids)])
        return list(leaders)


@contextlib.contextmanager
def launcher(
    verb: Literal["run", "work"], folder: Path, workers: int, slice_name: str | None
) -> Iterator[Launcher]:
    """Starts fake slices if there is a `slice_name`, with their log in `folder`.

    Raises:
      HardwareError: no such slice.
      StudyError: the fake slices do not start.
    """
    if verb == "work":
        if slice_name is not None:
            raise StudyError("--launch work has no slices; leave out --slice")
        yield Launcher(verb="work", targets=WORK_TARGETS, processes=workers)
        return
    if slice_name is None:
        yield Launcher(verb="run", targets=RAY_TARGETS, options=("--workers", str(workers)))
        return
    kind, log = get_slice(slice_name).name, folder / "slices.log"
    with Sessions() as sessions:
        leader = sessions.start([*STUDY, "cluster", "fake", "--slice", kind], log)
        until = time.monotonic() + CLUSTER_SECONDS
        while not (ready := re.search(r"ready at (\S+)", log.read_text())):
            if leader.poll() is not None or time.monotonic() > until:
                raise StudyError(f"fake slices of {kind} did not start; see {log}")
            time.sleep(0.2)
        yield Launcher(
            verb="run",
            targets=SLICE_TARGETS,
            options=("--address", ready[1], "--set", f"execution.slice={kind}"),
            slices=(leader.pid, sessions),
        )
