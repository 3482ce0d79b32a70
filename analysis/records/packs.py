"""Many cells of a snapshot in few files.

    <study>/cells-00.parquet    id, what a record writes whole, its columns and number of rows
    <study>/rows-00.parquet     their measurements one below the other, in the order of the cells
    <study>/items-00.parquet    id, file name and bytes of which examples were right

A column that a cell has not is empty for its rows, and left out when they are read.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from analysis.records.lines import COUNTS
from analysis.records.parquet import from_parquet, to_parquet
from analysis.records.record import WHOLE, CellRecord

CELLS = 100  # of a pack: under 1 MiB where a cell logs sixty lines


class Taken(NamedTuple):
    """What is kept of one cell."""

    record: CellRecord
    items: Mapping[str, bytes]


class Unpacked(NamedTuple):
    files: dict[str, bytes]
    rows: list[dict[str, Any]]
    items: dict[str, bytes]


Pack = dict[str, Unpacked]


def names(study: str, pack: int) -> tuple[str, str, str]:
    """Paths of the files of a pack, below the snapshot."""
    cells, rows, items = (f"{study}/{w}-{pack:02}.parquet" for w in ("cells", "rows", "items"))
    return cells, rows, items


def packed(study: str, taken: Iterable[Taken]) -> Iterable[tuple[str, bytes]]:
    """Paths and bytes of all packs of a study."""
    left = iter(taken)
    for pack in itertools.count():
        some = list(itertools.islice(left, CELLS))
        if not some:
            return
        texts = (_cells(some), _rows(some), _items(some))
        yield from zip(names(study, pack), texts, strict=True)


def unpacked(cells: bytes, rows: bytes, items: bytes) -> Pack:
    """The cells of one pack by id."""
    measured = iter(from_parquet(rows))
    kept: dict[str, dict[str, bytes]] = {}
    for one in _read(items):
        kept.setdefault(one["id"], {})[one["name"]] = one["content"]
    found = {}
    for one in _read(cells):
        own = [
            {column: row[column] for column in one["columns"]}
            for row in itertools.islice(measured, one["rows"])
        ]
        files = {name: one[name] for name in WHOLE}
        found[one["id"]] = Unpacked(files, own, kept.get(one["id"], {}))
    return found


def _cells(some: Iterable[Taken]) -> bytes:
    return _written(
        [
            {
                "id": record.id,
                **{name: record.files[name] for name in WHOLE},
                "columns": _columns(record.lines.rows),
                "rows": len(record.lines.rows),
            }
            for record, _ in some
        ]
    )


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys((*COUNTS, *(key for row in rows for key in row))))


def _rows(some: Iterable[Taken]) -> bytes:
    return to_parquet([row for record, _ in some for row in record.lines.rows], many=True)


def _items(some: Iterable[Taken]) -> bytes:
    return _written(
        [
            {"id": record.id, "name": name, "content": text}
            for record, items in some
            for name, text in items.items()
        ]
    )


def _written(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd", compression_level=19)
    return file.getvalue()


def _read(text: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(text)).to_pylist()
    return found
