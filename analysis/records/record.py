"""The records under one root, cell by cell, and the columns that each gives to a table.

    <root>/<study>/<cell id>/{cell.json, metrics.jsonl, FAILED.json, DONE.json, items/}

The root is a folder or a bucket. `analysis.records.snapshot.Snapshot` has the same methods.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from analysis.errors import AnalysisError
from study.records.interruptions import Interruption, read_interruptions
from study.records.metrics_log import COUNTS, METRICS, PARTS, parse, read_rows
from study.records.record import CELL, DONE, FAILED
from study.records.storage import is_bucket, listdir, read

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FILES = (CELL, DONE, FAILED)  # one JSON object each
ITEMS = "items"
INTERRUPTIONS = "interruptions"
NOT_STARTED = "not started"
STATUSES = ("done", "diverged", "failed", "running-or-interrupted", NOT_STARTED)

COLUMNS = (
    *("study", "id", "status", "batch_size", "seed", "steps", "examples", "pairs_per_step", "step"),
    *("examples_seen", "pairs_seen", "attempts", "seconds", "parameters", "dataset_fingerprint"),
    "dataset_examples",
    *("code", "error", "dropped_lines", "superseded_rows", "content"),
)
MEMORY = ("memory.peak_bytes", "memory.source", "memory.compiled_bytes")
EXACT = ("pairs_seen", "pairs_per_step")  # a step of 2**32 examples has 2**64 pairs
# The prefixes of the columns that hold a cell's fields, besides `batch_size` and `seed`.
FIELDS = ("model.", "data.", "loss.", "optimizer.", "budget.", "branch.")
CELL_ID = re.compile(r"b\d+-.+-[0-9a-f]{8}$")

Given = TypeVar("Given")
Result = TypeVar("Result")
Items = dict[str, "np.ndarray"]  # whether each evaluated example was right: bool `N` by metric


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What one cell left.

    Attributes:
      files: the bytes of `FILES`; b"" for a file that does not exist.
      attempts, superseded, dropped: see `study.records.metrics_log.Log`.
      interruptions: what each cost; None in snapshots of versions that did not keep them.
      digest: sha256 over name and bytes of the record, the same when read from a snapshot.
      read_rows: the logged rows, attempts stitched.
      read_items: which evaluated examples were right; AnalysisError if a file is damaged.
    """

    id: str
    files: Mapping[str, bytes]
    attempts: int
    superseded: int
    dropped: int
    interruptions: Sequence[Interruption] | None
    digest: str
    read_rows: Callable[[], list[dict[str, Any]]] = field(repr=False)
    read_items: Callable[[], Items] = field(repr=False)

    @functools.cached_property
    def about(self) -> dict[str, Any] | None:
        return parse_json(self.files[CELL])

    @functools.cached_property
    def done(self) -> dict[str, Any] | None:
        return parse_json(self.files[DONE])

    @functools.cached_property
    def failed(self) -> dict[str, Any] | None:
        return parse_json(self.files[FAILED])

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        if done := self.done:
            return str(done.get("status", "done"))
        if self.failed:
            return "failed"
        begun = self.files[CELL] or self.attempts or self.dropped
        return "running-or-interrupted" if begun else NOT_STARTED


class RecordRoot:
    """A folder or bucket of records."""

    def __init__(self, root: Path):
        self.root = root

    def studies(self) -> list[str]:
        folders = [path for path in listdir(self.root) if not path.name.startswith(".")]
        return [path.name for path in folders if path.is_dir()]

    def records(self, study: str) -> list[CellRecord]:
        """All cells of a study that have a folder, by id."""
        folders = [path for path in listdir(self.root / study) if path.is_dir()]
        are_cells = each(self.root, _is_cell, folders)
        ids = [path.name for path, is_cell in zip(folders, are_cells, strict=True) if is_cell]
        return each(self.root, lambda cell: self.record(study, cell), ids)

    def record(self, study: str, cell: str) -> CellRecord:
        """One cell; empty if the folder does not exist."""
        folder = self.root / study / cell
        files = {name: content(folder / name) for name in FILES}
        text = read_rows(folder)
        log = parse(text)
        return CellRecord(
            id=cell,
            files=files,
            attempts=log.attempts,
            superseded=log.superseded,
            dropped=log.dropped,
            interruptions=read_interruptions(folder, text) if log.attempts > 1 else (),
            digest=digest_of(cell, files, text),
            read_rows=lambda: [_numbers(row) for row in log.rows],
            read_items=lambda: _items(folder / ITEMS),
        )


def not_started(cell: str) -> CellRecord:
    """The record of a planned cell without a folder."""
    files = dict.fromkeys(FILES, b"")
    return CellRecord(
        id=cell,
        files=files,
        attempts=0,
        superseded=0,
        dropped=0,
        interruptions=(),
        digest=digest_of(cell, files, b""),
        read_rows=list,
        read_items=dict,
    )


def parse_json(text: bytes) -> dict[str, Any] | None:
    """The JSON object that `text` holds; None where it is torn or no object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def content(path: Path) -> bytes:
    """What a file or object holds; b"" where there is none.

    Raises:
      AnalysisError: it cannot be read.
      RecordError: the same, of a bucket.
    """
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""
    except OSError as error:
        raise AnalysisError(f"cannot read {path}: {error.strerror or error}") from None


def each(root: Path, work: Callable[[Given], Result], given: Sequence[Given]) -> list[Result]:
    """`work` on each, in order: in a bucket 16 at once, because each waits for answers."""
    if not is_bucket(root):
        return [work(one) for one in given]
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(work, given))


def digest_of(name: str, files: Mapping[str, bytes], lines: bytes) -> str:
    """sha256 over the name of a cell and the bytes of its record."""
    digest = hashlib.sha256(name.encode())
    for file, text in (
        (CELL, files[CELL]),
        (METRICS, lines),
        *((n, files[n]) for n in FILES[1:]),
    ):
        digest.update(f"\0{file}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The counts, time and metrics of a row; a metric has a slash in its name."""
    return {
        key: value if key in COUNTS else float(value) if type(value) in (int, float) else math.nan
        for key, value in row.items()
        if key in COUNTS or "/" in key or key == "time"
    }


def _is_cell(folder: Path) -> bool:
    known = (*FILES, METRICS, PARTS)
    return bool(CELL_ID.match(folder.name)) or any(p.name in known for p in listdir(folder))


def _items(folder: Path) -> Items:
    """Each metric's bits; records of earlier versions keep them in a .npy next to the .json."""
    import numpy as np

    items = {}
    for path in listdir(folder):
        if path.suffix != ".json" or path.name.startswith("."):
            continue
        try:
            about = json.loads(content(path))
            metric, count = about.get("metric", path.stem.replace(".", "/")), about["examples"]
            if "correct" in about:
                packed = np.frombuffer(base64.b64decode(about["correct"], validate=True), np.uint8)
            else:
                packed = np.load(io.BytesIO(content(path.with_suffix(".npy"))), allow_pickle=False)
            if len(packed) != (count + 7) // 8:
                raise ValueError(f"{len(packed)} bytes for {count} examples")
            items[metric] = np.unpackbits(packed, count=count).astype(bool)
        except (KeyError, ValueError, TypeError, AttributeError, EOFError) as error:
            raise AnalysisError(
                f"{path} cannot be read ({error}); remove it to go on without these examples"
            ) from None
    return items


def cell_frame(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of what `cell_columns` returns for each cell: `COLUMNS` first, by batch size."""
    cells = sorted(cells, key=lambda cell: str(cell["id"]))
    names = dict.fromkeys((*COLUMNS, *(key for cell in cells for key in cell)))
    return _frame(cells, names).sort_values(["batch_size", "id", "study"], ignore_index=True)


def row_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of logged rows: study, id, counts and time, then the metrics by name."""
    return _frame(rows, row_columns(rows))


def row_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the columns of logged rows, in order."""
    metrics = {key for row in rows for key in row if "/" in key}
    return ["study", "id", *COUNTS, "time", *sorted(metrics)]


def cell_columns(study: str, record: CellRecord, plan: Mapping[str, Any]) -> dict[str, Any]:
    """One cell's columns.

    Args:
      plan: the cell as the grid lists it, for its FLOPs, and for one whose cell.json is missing or
        torn.
    """
    about, done = record.about or dict(plan), record.done
    last = done or next(reversed(record.read_rows()), {})
    seconds = (done or {}).get("seconds") or {}
    return {
        "study": study,
        "id": record.id,
        "status": record.status,
        **{k: about.get(k) for k in ("steps", "examples", "pairs_per_step", "parameters")},
        **{k: about.get(k) for k in ("dataset_fingerprint", "dataset_examples", "code")},
        **{k: last.get(k, 0) for k in ("step", "examples_seen", "pairs_seen")},
        "attempts": max(record.attempts, last.get("attempt", 0)),
        "seconds": seconds.get("total"),
        "error": (record.failed or {}).get("error"),
        "dropped_lines": record.dropped,
        "superseded_rows": record.superseded,
        "content": record.digest,
        **_interruption_columns(record),
        **{f"seconds.{k}": v for k, v in seconds.items() if k != "total"},
        **_flatten(about.get("cell") or {}),
        **_flatten({key: about.get(key) or {} for key in ("versions", "devices")}),
        **_flatten({"flops": plan.get("flops") or {}}),
        **_flatten({"memory": (done or {}).get("memory") or {}}),
        **((done or {}).get("summary") or {}),
    }


def _interruption_columns(record: CellRecord) -> dict[str, Any]:
    """A list of (attempt, seconds, steps) as JSON, of a cell with several attempts."""
    if record.attempts <= 1 or record.interruptions is None:
        return {}
    return {INTERRUPTIONS: json.dumps([list(each) for each in record.interruptions])}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names, as `pd.json_normalize`; lists become JSON text."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flatten(item, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(item) if isinstance(item, list) else item
    return flat


def _frame(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: _column([row.get(name) for row in rows], name) for name in names})


def _column(values: list[Any], name: str) -> pd.Series:
    """The narrowest type that holds every value exactly, which `convert_dtypes` does not give."""
    import pandas as pd

    given = [v for v in values if v is not None]
    kinds = {type(v) for v in given}
    if name in EXACT:
        return pd.Series(values, dtype=object)
    if "/" in name or name.startswith(("time", "seconds")):
        numbers = [v if type(v) in (int, float) else None for v in values]
        return pd.Series(numbers, dtype="float64")
    if kinds == {int} and all(abs(v) < 2**63 for v in given):
        return pd.Series(values, dtype="Int64" if len(given) < len(values) else "int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    if kinds == {str}:
        return pd.Series(values, dtype="str")
    return pd.Series(values, dtype=object)
