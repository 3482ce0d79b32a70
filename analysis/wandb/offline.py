"""Offline `.wandb` files, read in two ways that are checked against each other.

`read` is our own: a LevelDB log (blocks of 32 KiB, chunks with a checksum) of protobuf records,
whose classes wandb ships but calls internal. `read_official` is wandb's own reader, the command
`wandb leet inspect --json`. A file of a live or killed run ends in the middle; both read up to
there. wandb is imported by `read` alone.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.wandb.runs import Run

BLOCK = 32_768
HEADER = struct.Struct("<4sHB")  # of the file: ":W&B", a magic number, a version
CHUNK = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAGIC = (b":W&B", 0xBEE1)
PATIENCE = 300  # seconds for the official reader: it starts slowly on a loaded machine


@dataclass(kw_only=True)
class RunFile:
    """What one `.wandb` file tells of its run. `exit_code` is None where it has not ended."""

    id: str = ""
    group: str = ""
    start: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None


def runs(
    folder: Path, *, check: bool = True, progress: Callable[[str], None] = lambda name: None
) -> list[Run]:
    """The runs of all `.wandb` files under `folder`; the files of a resumed run make one.

    Args:
      check: read each file with wandb's own reader too, which takes seconds for each.
      progress: told the name of each file that was read.

    Raises:
      AnalysisError: no such files, or the two readers differ.
    """
    paths = sorted(path for path in folder.rglob("*.wandb") if path.is_file())
    if not paths:
        raise AnalysisError(f"no .wandb files under {folder}")

    def one(path: Path) -> RunFile:
        ours = read(path)
        if check and (what := difference(ours, read_official(path))) is not None:
            raise AnalysisError(
                f"{path}: the two readers of wandb's format differ in {what}; was it made by a "
                "newer wandb than this one?"
            )
        progress(path.name)
        return ours

    with ThreadPoolExecutor(2) as pool:
        files = sorted(pool.map(one, paths), key=lambda file: file.start)
    by_run: dict[tuple[str, str], list[RunFile]] = {}
    for file in files:
        if not file.id:  # killed before it had said whose run it is
            continue
        by_run.setdefault((file.group, file.id), []).append(file)
    return [_run(parts) for _, parts in sorted(by_run.items())]


def read(path: Path) -> RunFile:
    """Reads a `.wandb` file with our own reader.

    Raises:
      AnalysisError: it is no such file.
    """
    from wandb.proto import wandb_internal_pb2 as pb

    found = RunFile()
    for text in _chunks(path):
        record: Any = pb.Record.FromString(text)  # type: ignore[attr-defined]
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.group = run.run_id, run.run_group
            found.start = run.start_time.seconds + run.start_time.nanos / 1e9
            _update(found.config, _values(run.config.update))
        elif kind == "config":
            _update(found.config, _values(record.config.update))
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, _values(record.history.item))
            found.history.append(row)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def read_official(path: Path) -> RunFile:
    """Reads a `.wandb` file with wandb's own reader.

    Raises:
      AnalysisError: wandb cannot read it.
    """
    from datetime import datetime

    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:]
        raise AnalysisError(f"{path}: wandb cannot read it: {said}")
    found = RunFile()
    for line in filter(None, done.stdout.split("\n")):  # values hold U+0085 and the like
        record = json.loads(line)
        if record.get("type") == "run":
            run = record["run"]
            found.id, found.group = run.get("run_id", ""), run.get("run_group", "")
            if when := run.get("start_time"):
                found.start = datetime.fromisoformat(when).timestamp()
            _update(found.config, (run.get("config") or {}).get("update") or {})
        elif record.get("type") == "config":
            _update(found.config, record["config"].get("update") or {})
        elif record.get("type") == "history":
            found.history.append(record["history"].get("item") or {})
        elif record.get("type") == "exit":
            found.exit_code = record["exit"].get("exit_code", 0)
    return found


def difference(ours: RunFile, theirs: RunFile) -> str | None:
    """What two readings of one file differ in; None where they agree.

    A live file may have grown between the two, so the shorter reading decides how many rows.
    """
    for name in ("id", "group", "config"):
        if getattr(ours, name) != getattr(theirs, name):
            return name
    live = ours.exit_code is None
    if not live and (len(ours.history), ours.exit_code) != (len(theirs.history), theirs.exit_code):
        return "the number of rows or the end"
    for number, (one, other) in enumerate(zip(ours.history, theirs.history, strict=False)):
        if _plain(one) != _plain(other):
            return f"row {number}"
    return None


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """NaN equals itself; and what is no number in JSON is a word there."""
    words = {key: str(v) if type(v) is float and v - v != 0 else v for key, v in row.items()}
    return {k: {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(v, v)
            if isinstance(v, str) else v for k, v in words.items()}  # fmt: skip


def _run(parts: Sequence[RunFile]) -> Run:
    config: dict[str, Any] = {}
    for part in parts:
        _update(config, part.config)
    ended = parts[-1].exit_code
    state = "running" if ended is None else "failed" if ended else "finished"
    history = [row for part in parts for row in part.history]
    first = parts[0]
    return Run(id=first.id, study=first.group, config=config, history=history, state=state)


def _chunks(path: Path) -> Iterator[bytes]:
    """The records of a log, up to the first that is torn."""
    text = path.read_bytes()
    if len(text) < HEADER.size or HEADER.unpack_from(text)[:2] != MAGIC:
        raise AnalysisError(f"{path} is no .wandb file")
    at, parts = HEADER.size, b""
    while at + CHUNK.size <= len(text):
        left = BLOCK - at % BLOCK
        if left < CHUNK.size:  # too little for a chunk: filled with zeros
            at += left
            continue
        checksum, length, kind = CHUNK.unpack_from(text, at)
        if kind == 0 and length == 0:  # room that was never written
            at += left
            continue
        body = text[at + CHUNK.size : at + CHUNK.size + length]
        if len(body) < length or zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            return
        at += CHUNK.size + length
        parts = body if kind in (FULL, FIRST) else parts + body
        if kind in (FULL, LAST):
            yield parts


def _values(items: Any) -> dict[str, Any]:
    """Key and value of each item; newer writers say `nested_key` where others say `key`."""
    values: dict[str, Any] = {}
    for item in items:
        *above, last = list(item.nested_key) or [item.key]
        inner = values
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = json.loads(item.value_json)
    return values


def _update(config: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merges nested objects."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _update(config[key], value)
        else:
            config[key] = value
