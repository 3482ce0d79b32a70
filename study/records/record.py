"""Writes records: the files that a cell leaves, and all that `study` and `analysis` share.

    <root>/<study>/<cell id>/        root: a folder, or a bucket (`study.records.storage`)
      cell.json      the cell, its id and hash, code and library versions, devices, data set
      metrics.jsonl  append-only; every line has step, examples_seen, pairs_seen, attempt
                     (in a bucket: metrics/<attempt>-<part>.jsonl, see `study.records.metrics_log`)
      checkpoints/   Orbax
      wandb/         wandb's own files (a mirror)
      items/         which evaluated examples were correct, one file per metric
      FAILED.json    the error of the last attempt, until a new attempt begins
      DONE.json      written last: status "done" or "diverged", and the final metrics

A line with an `event` is not a measurement. `{"event": "start", "step": s, "attempt": a}` opens an
attempt that continues from step `s`: rows of earlier attempts with a larger step are superseded.
`{"event": "training", ...}` follows when its first chunk of steps has finished.
Readers drop a torn line, which a kill in the middle of a write leaves.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from study.records.metrics_log import METRICS, BucketLog, FileLog, open_log, parse, read_rows
from study.records.mounts import refuse_mounted_bucket
from study.records.redact import redact
from study.records.storage import RecordError, is_bucket, mkdir, read, resolve, unlink, write

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CELL", "DONE", "FAILED", "METRICS", "Progress", "Record", "RecordError"]

CELL, FAILED, DONE = "cell.json", "FAILED.json", "DONE.json"


class Progress(NamedTuple):
    """How far a run is: optimizer steps, examples and pairs, all exact integers."""

    step: int
    examples: int
    pairs: int


class Record:
    """Writes one cell's folder. Only process 0 of a run has one.

    Raises:
      RecordError: From every method that writes, if the disk is full or read-only.
    """

    def __init__(self, folder: str | Path):
        self.folder = resolve(folder)
        self.attempt = 0
        self.lines = 0  # of earlier attempts
        self._rows: FileLog | BucketLog | None = None

    @property
    def done(self) -> dict[str, Any] | None:
        """The content of DONE.json, or None before the cell ends."""
        return read_json(self.folder / DONE)

    def check(self, cell_hash: str, dataset_fingerprint: str | None) -> bool:
        """Refuses a folder that cannot keep records, or that holds another cell or data set.

        Returns:
          Whether an attempt of the cell has begun in the folder.

        Raises:
          RecordError: The folder is in a mounted bucket, or holds another cell, or the same cell
            on another data set.
        """
        refuse_mounted_bucket(self.folder)
        about = read_json(self.folder / CELL)
        if about is None:
            return False
        if about.get("hash") != cell_hash:
            raise RecordError(
                f"{self.folder} holds another cell (hash {str(about.get('hash'))[:8]}, "
                f"not {cell_hash[:8]}); move it away or choose another --root"
            )
        if about.get("dataset_fingerprint") != dataset_fingerprint:
            raise RecordError(
                f"{self.folder} was begun on another data set of the same name; restore that "
                "data set, or choose another --root to start from the beginning"
            )
        return True

    def begin(self, about: dict[str, Any], *, seen: Progress, **event: Any) -> int:
        """Opens an attempt that continues from `seen`.

        Args:
          about: The content of cell.json, written by the first attempt and compared by `check`
            in later ones.

        Returns:
          The number of the attempt, from 1.
        """
        begun = self.check(about["hash"], about.get("dataset_fingerprint"))
        with _disk_errors(self.folder):
            mkdir(self.folder)
            if not begun:
                write_json(self.folder / CELL, about)
            rows = read_rows(self.folder)
            self.attempt = 1 + rows.count(b'"event": "start"')
            self.lines = rows.count(b"\n")
            self._rows = open_log(self.folder, self.attempt)
            unlink(self.folder / FAILED)
        self.row(seen, event="start", **event)
        return self.attempt

    def row(self, seen: Progress, **values: Any) -> None:
        """Adds one line. In a folder a killed process loses none; for a bucket, see `flush`."""
        line = {
            "step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": seen.pairs,
            "attempt": self.attempt,
            "time": round(time.time(), 3),
            **values,
        }
        with _disk_errors(self.folder):
            assert self._rows is not None, "call begin first"
            self._rows.write(json.dumps(line))

    def flush(self) -> None:
        """Waits until every row is durable; call it before a checkpoint is saved."""
        if self._rows is not None:
            with _disk_errors(self.folder):
                self._rows.flush()

    def finish(self, seen: Progress, *, status: str, **more: Any) -> dict[str, Any]:
        """Writes DONE.json, after which no further attempt begins; returns its content."""
        done = {
            "status": status,
            "step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": seen.pairs,
            "attempt": self.attempt,
            "time": round(time.time(), 3),
            **more,
        }
        self.flush()
        with _disk_errors(self.folder):
            write_json(self.folder / DONE, done)
        self.close()
        return done

    def summary(self, step: int) -> dict[str, Any]:
        """The last value of every metric up to `step`, without superseded rows."""
        rows = [row for row in parse(read_rows(self.folder)).rows if row["step"] <= step]
        return {key: value for row in rows for key, value in row.items() if "/" in key}

    def items(self, correct: dict[str, np.ndarray]) -> None:
        """Writes which evaluated examples were correct, for intervals over examples.

        The file of a metric is `items/<metric, "/" as ".">.json`: {"metric": str, "examples": N,
        "correct": the bits packed by `numpy.packbits`, as base64}. It is a single file, so a kill
        at any point leaves the old content or the new one.

        Args:
          correct: By metric, a bool array of shape (N,).
        """
        import numpy as np

        folder = self.folder / "items"
        with _disk_errors(folder):
            mkdir(folder)
            for key, hits_N in correct.items():
                bits = base64.b64encode(np.packbits(hits_N).tobytes()).decode()
                about = {"metric": key, "examples": len(hits_N), "correct": bits}
                write_json(folder / f"{key.replace('/', '.')}.json", about)

    def discard(self) -> None:
        """Ends the attempt without a further write: rows that a bucket does not have yet are lost.

        For a process that another one may have replaced as the writer of this record.
        """
        if self._rows is not None:
            with contextlib.suppress(OSError):
                self._rows.discard()
            self._rows = None

    def close(self) -> None:
        if self._rows is not None:
            with _disk_errors(self.folder):
                self._rows.close()
            self._rows = None


def write_failure(folder: str | Path, *, error: str, trace: str = "") -> None:
    """Writes FAILED.json: why the last attempt ended. A new attempt removes it."""
    folder = resolve(folder)
    with _disk_errors(folder):
        mkdir(folder)
        about = {"error": redact(error), "trace": redact(trace), "time": round(time.time(), 3)}
        write_json(folder / FAILED, about)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing, torn, empty or not an object."""
    try:
        value = json.loads(read(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if value and isinstance(value, dict) else None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when the block ends, or not at all."""
    if is_bucket(path):
        content = io.BytesIO()
        yield content
        write(path, content.getvalue())
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes the whole file or nothing."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode())
        file.flush()
        if not is_bucket(path):
            os.fsync(file.fileno())


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns the error of a full or read-only disk into one line that says how to fix it."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"cannot write {folder}: {error.strerror or error}; make room or choose another "
            "--root and run again (what is recorded is kept)"
        ) from error
