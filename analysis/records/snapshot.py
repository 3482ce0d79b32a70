"""Snapshots: a hashed copy of records, small and typed, that figures are drawn from.

    <snapshot>/
      cells.parquet/   one row a cell: its fields, status and final metrics as columns, as
                       `analysis.records.frame.cells` has them, and the bytes of cell.json,
                       DONE.json and FAILED.json
      rows.parquet/    the logged rows of all cells, attempts stitched
      items.parquet/   study, id, metric and, for each evaluated example, whether it was right
      manifest.json    studies and counts, what their grids state, versions, sha256 of each file

The tables are folders of parts below 1 MiB; `pd.read_parquet` opens each whole. The same records,
grids and version of pyarrow give the same bytes. `sha256` in the manifest is over all the rest of
it; `records` is over what was recorded alone, and its first ten digits are what a figure shows in
its corner, whether drawn from the records or from the snapshot. Every file is checked as it is
read. Checkpoints and wandb's files are left out.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.records.record import (
    EXACT,
    FILES,
    INTERRUPTIONS,
    CellRecord,
    Items,
    RecordRoot,
    cell_columns,
    cell_frame,
    content,
    parse_json,
    row_columns,
)
from study.records.interruptions import Interruption

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "batch-size-study snapshot 2"
MANIFEST = "manifest.json"  # its presence makes a folder a snapshot
CELLS, ROWS, ITEMS = "cells.parquet", "rows.parquet", "items.parquet"
PART_BYTES = 2**20  # of one file, which a repository takes


class Snapshot:
    """A snapshot opened for reading, with the methods of `RecordRoot`.

    Raises:
      AnalysisError: from every method, in one line, if a file was changed.
    """

    def __init__(self, root: Path, manifest: bytes):
        self.root = root
        self.manifest = parse_json(manifest) or {}
        if self.manifest.get("format") != FORMAT:
            raise AnalysisError(f"{root}: this version reads no snapshot with such a {MANIFEST}")
        if _manifest_digest(self.manifest) != self.manifest.get("sha256"):
            raise AnalysisError(f"{root}: {MANIFEST} was changed; pull the snapshot again")

    def studies(self) -> list[str]:
        return sorted(self.manifest["studies"])

    def records(self, study: str) -> list[CellRecord]:
        """All cells of a study, by id."""
        return [self._cells[key] for key in sorted(self._cells) if key[0] == study]

    def record(self, study: str, cell: str) -> CellRecord:
        """One cell.

        Raises:
          AnalysisError: the snapshot does not hold it.
        """
        if (study, cell) not in self._cells:
            raise AnalysisError(f"{self.root}: no cell {cell} of {study}")
        return self._cells[study, cell]

    def verify(self) -> int:
        """Reads every file; returns how many there are."""
        for path in self.manifest["files"]:
            self._read(path)
        return len(self.manifest["files"])

    @functools.cached_property
    def _cells(self) -> dict[tuple[str, str], CellRecord]:
        names = ["study", "id", "attempts", "superseded_rows", "dropped_lines", "content", *FILES]
        table = self._table(CELLS)
        if INTERRUPTIONS in table.column_names:
            names.append(INTERRUPTIONS)
        return {
            (cell["study"], cell["id"]): CellRecord(
                id=cell["id"],
                files={name: cell[name] or b"" for name in FILES},
                attempts=cell["attempts"],
                superseded=cell["superseded_rows"],
                dropped=cell["dropped_lines"],
                interruptions=_interruptions(cell),
                digest=cell["content"],
                read_rows=functools.partial(self._read_rows, cell["study"], cell["id"]),
                read_items=functools.partial(self._read_items, cell["study"], cell["id"]),
            )
            for cell in table.select(names).to_pylist()
        }

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self._table(ROWS).to_pylist():
            logged = {key: value for key, value in row.items() if value is not None}
            logged["pairs_seen"] = int(logged["pairs_seen"])
            rows.setdefault((logged.pop("study"), logged.pop("id")), []).append(logged)
        return rows

    def _read_rows(self, study: str, cell: str) -> list[dict[str, Any]]:
        return self._rows.get((study, cell), [])

    @functools.cached_property
    def _items(self) -> dict[tuple[str, str], Items]:
        items: dict[tuple[str, str], Items] = {}
        table = self._table(ITEMS)
        keys = zip(*(table[name].to_pylist() for name in ("study", "id", "metric")), strict=True)
        for (study, cell, metric), correct in zip(keys, table["correct"], strict=True):
            bits = correct.values.to_numpy(zero_copy_only=False)
            items.setdefault((study, cell), {})[metric] = bits
        return items

    def _read_items(self, study: str, cell: str) -> Items:
        return self._items.get((study, cell), {})

    def _table(self, name: str) -> pa.Table:
        """One file, as earlier snapshots have, or all parts of a folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = [path for path in self.manifest["files"] if path.partition("/")[0] == name]
        return pa.concat_tables(pq.read_table(io.BytesIO(self._read(path))) for path in paths)

    def _read(self, path: str) -> bytes:
        text = content(self.root.joinpath(*path.split("/")))
        if hashlib.sha256(text).hexdigest() != self.manifest["files"][path]["sha256"]:
            removed = "" if text else " or removed"
            raise AnalysisError(
                f"{self.root}: {path} was changed{removed}; pull the snapshot again"
            )
        return text


def _interruptions(cell: Mapping[str, Any]) -> list[Interruption] | None:
    if text := cell.get(INTERRUPTIONS):
        return [Interruption(*values) for values in json.loads(text)]
    return [] if cell["attempts"] <= 1 else None


class Joined:
    """Records, and those cells of an earlier snapshot that the records have not finished.

    So a study can be carried on after its records are gone. Has the methods of `RecordRoot` that
    `write` needs.
    """

    def __init__(self, records: RecordRoot | Snapshot, earlier: Snapshot):
        self.root = records.root
        self._sources = (records, earlier)

    def studies(self) -> list[str]:
        return sorted({study for source in self._sources for study in source.studies()})

    def records(self, study: str) -> list[CellRecord]:
        chosen: dict[str, CellRecord] = {}
        for source in self._sources:
            for record in source.records(study) if study in source.studies() else ():
                if record.id not in chosen or chosen[record.id].done is None:
                    chosen[record.id] = record
        return [chosen[cell] for cell in sorted(chosen)]


class Selected:
    """Records without some of their cells. Has the methods of `RecordRoot` that `write` needs.

    left_out: ids by study.
    """

    def __init__(
        self, records: RecordRoot | Snapshot | Joined, left_out: Mapping[str, Collection[str]]
    ):
        self.root = records.root
        self._records, self._left_out = records, left_out

    def studies(self) -> list[str]:
        return self._records.studies()

    def records(self, study: str) -> list[CellRecord]:
        left_out = self._left_out.get(study, ())
        return [record for record in self._records.records(study) if record.id not in left_out]


def write(
    source: RecordRoot | Snapshot | Joined | Selected,
    out: Path,
    *,
    studies: Sequence[str] | None = None,
    kind: str = "records",
    versions: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda cell: None,
    items: Sequence[str] | None = None,
    grids: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a snapshot to the folder `out`, whole or not at all; returns its manifest.

    Args:
      studies: which; None for all.
      kind: where the records came from, for the manifest: "records", "wandb-offline", "wandb".
      versions: of what else made it.
      progress: called with the id of each cell that is done.
      items: metrics of which to keep the evaluated examples; None for all.
      grids: what the grid of a study states and no record holds, by its name: "folder" of its
        records, question, paper, assumptions, and the ids of its "cells".

    Raises:
      AnalysisError: `out` holds something else, or cannot be written.
    """
    import pyarrow as pa

    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _is_snapshot(out)):
        raise AnalysisError(f"{out} exists and is not a snapshot; choose another --out")
    known = source.studies()
    if unknown := sorted({*(studies or ())} - {*known}):
        raise AnalysisError(
            f"no study {', '.join(unknown)}; there are: {', '.join(known) or 'none'}"
        )
    if not known:
        raise AnalysisError(f"no records in {source.root}; `study run STUDY` makes them")
    cells: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    evaluated: set[str] = set()
    counts: dict[str, dict[str, Any]] = {}
    for study in studies or known:
        counts[study] = {"cells": 0, "rows": 0, "dropped_lines": 0, "states": {}}
        for record in source.records(study):
            key = {"study": study, "id": record.id}
            logged = record.read_rows()
            correct = record.read_items()
            cells.append({**cell_columns(study, record, {}), **record.files})
            rows += [{**key, **row} for row in logged]
            kept += [
                {**key, "metric": metric, "correct": correct[metric].tolist()}
                for metric in sorted(correct)
                if items is None or metric in items
            ]
            evaluated |= set(correct)
            count = counts[study]
            count["cells"] += 1
            count["rows"] += len(logged)
            count["dropped_lines"] += record.dropped
            count["states"][record.status] = count["states"].get(record.status, 0) + 1
            progress(record.id)
    if missing := sorted({*(items or ())} - evaluated):
        raise AnalysisError(
            f"no cell holds the evaluated examples of {', '.join(missing)}; there are those of "
            + (", ".join(sorted(evaluated)) or "nothing")
        )
    fields = {"study": pa.string(), "id": pa.string()}
    bits = pa.schema({**fields, "metric": pa.string(), "correct": pa.list_(pa.bool_())})
    logged_fields = pa.schema([_row_field(name) for name in row_columns(rows)])
    tables = {
        CELLS: _cell_table(cells),
        ITEMS: pa.Table.from_pylist(kept, bits),
        ROWS: pa.Table.from_pylist(rows, logged_fields),
    }
    contents = {
        f"{name}/{part:02}.parquet": text
        for name, table in tables.items()
        for part, text in enumerate(_parts(table))
    }
    digests = sorted(cell["content"] for cell in cells)
    manifest = {
        "format": FORMAT,
        "from": kind,
        # As `analysis.figures.plot.style.provenance` has it.
        "records": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "studies": counts,
        "files": {
            path: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
            for path, text in contents.items()
        },
        "versions": {"pyarrow": pa.__version__, **(versions or {})},
    }
    if stated := {k: grid for k, grid in (grids or {}).items() if grid["folder"] in counts}:
        manifest["grids"] = stated
    manifest["sha256"] = _manifest_digest(manifest)
    contents[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    part_folder = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part_folder, ignore_errors=True)
        for path, text in contents.items():
            file = part_folder.joinpath(*path.split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        shutil.rmtree(out, ignore_errors=True)
        part_folder.rename(out)
    except OSError as error:
        raise AnalysisError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part_folder, ignore_errors=True)
    return manifest


def _cell_table(cells: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for name, values in cell_frame(cells).items():
        if name in FILES:
            columns[name] = pa.array(values, pa.binary())
        elif name in EXACT:
            columns[name] = pa.array(values, pa.decimal128(38))
        else:
            try:
                columns[name] = pa.array(values, from_pandas=True)
            except (pa.ArrowInvalid, pa.ArrowTypeError):  # fields of several types
                texts = [None if value is None else json.dumps(value) for value in values]
                columns[name] = pa.array(texts, pa.string())
    return pa.table(columns)


def _row_field(name: str) -> pa.Field:
    import pyarrow as pa

    if name in ("study", "id"):
        return pa.field(name, pa.string())
    if name in EXACT:
        return pa.field(name, pa.decimal128(38))
    return pa.field(name, pa.float64() if "/" in name or name == "time" else pa.int64())


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in table.column_names if name not in (*floats, *FILES)],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),  # half the size of PLAIN
    )
    return file.getvalue()


def _parts(table: pa.Table) -> list[bytes]:
    """The files of a table, below `PART_BYTES` each unless a single row is larger."""
    texts, size = [_parquet(table)], table.num_rows
    while size > 1 and max(map(len, texts)) >= PART_BYTES:
        count = max(math.ceil(sum(map(len, texts)) / PART_BYTES), len(texts) + 1)
        size = min(size - 1, math.ceil(table.num_rows / count))
        texts = [_parquet(table.slice(at, size)) for at in range(0, table.num_rows, size)]
    return texts


def _is_snapshot(folder: Path) -> bool:
    kind = (parse_json(content(folder / MANIFEST)) or {}).get("format")
    return str(kind).startswith(FORMAT.rpartition(" ")[0])


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
