"""Records: the files that a cell leaves, the only thing `study` and `analysis` share.

    <root>/<study>/<cell id>/
      cell.json      the cell, its id and hash, code and library versions, devices, data set
      metrics.jsonl  append-only; every line has step, examples_seen, pairs_seen, attempt
      checkpoints/   Orbax
      wandb/         wandb's own files (a mirror)
      FAILED.json    the last attempt's error, until a new attempt begins
      DONE.json      written last: status "done" or "diverged", and the final metrics

A line with an `event` is no measurement. `{"event": "start", "step": s, "attempt": a}` opens an
attempt that goes on from step `s`: rows of earlier attempts with a larger step are superseded.
A torn line, left by a kill in the middle of a write, is dropped by whoever reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from study.secrets import hide

CELL, METRICS, FAILED, DONE = "cell.json", "metrics.jsonl", "FAILED.json", "DONE.json"


class Seen(NamedTuple):
    """How far a run is: optimizer steps, examples and pairs, all exact integers."""

    step: int
    examples: int
    pairs: int


class RecordError(RuntimeError):
    """A record that cannot be written or trusted; the message says how to mend it."""


class Record:
    """Writes one cell's folder. Only process 0 of a run holds one.

    Raises:
      RecordError: the folder holds another cell, or the disk is full or read-only.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.attempt = 0
        self._rows: Any = None

    @property
    def done(self) -> dict[str, Any] | None:
        """The content of DONE.json, or None while the cell has not ended."""
        return read_json(self.folder / DONE)

    def begin(self, about: dict[str, Any], *, seen: Seen, **event: Any) -> int:
        """Opens an attempt that goes on from `seen`; returns its number, from 1.

        `about` becomes cell.json the first time. Later its "hash" must be the same.
        """
        with _disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            known = read_json(self.folder / CELL)
            if known is None:
                write_json(self.folder / CELL, about)
            elif known.get("hash") != about["hash"]:
                raise RecordError(
                    f"{self.folder} holds another cell (hash {str(known.get('hash'))[:8]}, "
                    f"not {about['hash'][:8]}); move it away or choose another --root"
                )
            elif known.get("dataset_fingerprint") != about.get("dataset_fingerprint"):
                raise RecordError(
                    f"{self.folder} was begun on another data set of the same name; restore that "
                    "data set, or choose another --root to start afresh"
                )
            path = self.folder / METRICS
            text = path.read_bytes() if path.exists() else b""
            self.attempt = 1 + text.count(b'"event": "start"')
            self._rows = path.open("a", encoding="utf-8")
            if text and not text.endswith(b"\n"):
                self._rows.write("\n")  # so that a torn line spoils no other
            (self.folder / FAILED).unlink(missing_ok=True)
        self.row(seen, event="start", **event)
        return self.attempt

    def row(self, seen: Seen, **values: Any) -> None:
        """Appends one line and hands it to the system, so that a killed process loses none."""
        line = {
            "step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": seen.pairs,
            "attempt": self.attempt,
            "time": round(time.time(), 3),
            **values,
        }
        with _disk(self.folder):
            self._rows.write(json.dumps(line) + "\n")
            self._rows.flush()

    def finish(self, seen: Seen, *, status: str, **more: Any) -> dict[str, Any]:
        """Writes DONE.json, after which the cell is never entered again."""
        done = {
            "status": status,
            "step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": seen.pairs,
            "attempt": self.attempt,
            "time": round(time.time(), 3),
            **more,
        }
        with _disk(self.folder):
            os.fsync(self._rows.fileno())
            write_json(self.folder / DONE, done)
        self.close()
        return done

    def summary(self, step: int) -> dict[str, Any]:
        """The last value of every metric up to `step`, superseded rows left out."""
        path = self.folder / METRICS
        rows: list[dict[str, Any]] = []
        for line in (path.read_bytes() if path.exists() else b"").split(b"\n"):
            with contextlib.suppress(ValueError):  # torn, or bytes that are no text
                row = json.loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                    continue
                if row.get("event") == "start":
                    rows = [r for r in rows if r["step"] <= row["step"]]
                rows.append(row)
        kept = [r for r in rows if r["step"] <= step]
        return {k: v for r in kept for k, v in r.items() if "/" in k}

    def items(self, correct: dict[str, np.ndarray]) -> None:
        """Keeps which evaluated examples were right, for intervals over examples.

        Bool `N` by metric, as packed bits in `items/<metric, "/" as ".">.npy`.
        """
        folder = self.folder / "items"
        with _disk(folder):
            folder.mkdir(exist_ok=True)
            for key, hits_N in correct.items():
                name = key.replace("/", ".")
                np.save(folder / f"{name}.npy", np.packbits(hits_N))
                write_json(folder / f"{name}.json", {"examples": len(hits_N)})

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None


def write_failure(folder: str | Path, *, error: str, trace: str = "") -> None:
    """Notes why the last attempt ended; a new attempt removes the note."""
    folder = Path(folder)
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        about = {"error": hide(error), "trace": hide(trace), "time": round(time.time(), 3)}
        write_json(folder / FAILED, about)


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's content, or None where it is missing, torn, or no object with something in it."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if value and isinstance(value, dict) else None


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name when the block ends, or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes the whole file or nothing."""
    with written_whole(path) as file:
        file.write(json.dumps(value, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())


class _disk:
    """Turns a full or read-only disk into one line that says what to do."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise RecordError(
                f"cannot write {self.folder}: {error.strerror or error}; make room or choose "
                "another --root and run again (what is recorded is kept)"
            ) from error
