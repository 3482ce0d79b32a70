"""Offline `.wandb` files, read by wandb's own command `wandb leet inspect --json`.

The file of a live or killed run ends in the middle; it is read up to there.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.wandb.runs import Run

TIMEOUT = 300  # seconds for one file: wandb starts slowly on a loaded machine


@dataclass(kw_only=True)
class RunFile:
    """What one `.wandb` file holds of its run.

    `exit_code` is None if the file has no end, or ends where the run was stopped to go on later.
    """

    id: str = ""
    group: str = ""
    start: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None


def read_runs(folder: Path, *, progress: Callable[[str], None] = lambda name: None) -> list[Run]:
    """The runs of all `.wandb` files under `folder`; the files of a resumed run make one.

    Args:
      progress: called with the name of each file that was read.

    Raises:
      AnalysisError: there are no such files, or wandb cannot read one.
    """
    paths = sorted(path for path in folder.rglob("*.wandb") if path.is_file())
    if not paths:
        raise AnalysisError(f"no .wandb files under {folder}")

    def read(path: Path) -> RunFile:
        file = read_file(path)
        progress(path.name)
        return file

    with ThreadPoolExecutor() as pool:
        files = [file for file in pool.map(read, paths) if file.id]  # else killed at once
    files.sort(key=lambda file: (file.group, file.id, file.start))
    runs = []
    for (group, run_id), same in itertools.groupby(files, key=lambda file: (file.group, file.id)):
        parts, config = list(same), dict[str, Any]()
        for part in parts:
            _merge(config, part.config)
        code = parts[-1].exit_code
        state = "running" if code is None else "failed" if code else "finished"
        history = [row for part in parts for row in part.history]
        runs.append(Run(id=run_id, study=group, config=config, history=history, state=state))
    return runs


def read_file(path: Path) -> RunFile:
    """Reads one `.wandb` file.

    Raises:
      AnalysisError: wandb cannot read it.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    environ = {**os.environ, "WANDB_ERROR_REPORTING": "false"}  # else it looks up wandb's server
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environ)
    if done.returncode:
        message = " ".join(done.stderr.split())[-200:]
        raise AnalysisError(f"{path}: wandb cannot read it: {message}")
    file, preempting = RunFile(), False
    for line in filter(None, done.stdout.split("\n")):  # not splitlines: values hold U+0085
        record = json.loads(line)
        kind = record.get("type")
        if kind == "run":
            run = record["run"]
            file.id, file.group = run.get("run_id", ""), run.get("run_group", "")
            if started := run.get("start_time"):
                file.start = datetime.fromisoformat(started).timestamp()
            _merge(file.config, (run.get("config") or {}).get("update") or {})
        elif kind == "config":
            _merge(file.config, record["config"].get("update") or {})
        elif kind == "history":
            file.history.append(record["history"].get("item") or {})
        elif kind == "preempting":
            preempting = True
        elif kind == "exit":
            file.exit_code = record["exit"].get("exit_code", 0)
    if preempting and file.exit_code:
        file.exit_code = None
    if "corrupt" in done.stderr:  # wandb skips damaged blocks; do not take the rest for a whole run
        file.exit_code = None
    return file


def _merge(config: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merges nested objects."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value
