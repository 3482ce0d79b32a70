"""Rows of measurements as Parquet and back, every value exactly."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.records.lines import COUNTS

_AS_JSON = {b"study": b"json"}  # marks a column of mixed types, each value as JSON


def to_parquet(rows: Sequence[Mapping[str, Any]], *, many: bool = False) -> bytes:
    """The rows, one column per key in the order of their first use.

    Args:
      many: packs metrics tighter, by the bytes of their numbers. With the rows of one cell that
        saves nothing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys((*COUNTS, *(key for row in rows for key in row)))
    fields, arrays = [], []
    for name in names:
        field, values = _typed(name, [row.get(name) for row in rows])
        fields.append(field)
        arrays.append(pa.array(values, type=field.type, from_pandas=False))
    tight: dict[str, Any] = {}
    if many:
        metrics = [field.name for field in fields if pa.types.is_floating(field.type)]
        tight = {
            "use_dictionary": [field.name for field in fields if field.name not in metrics],
            "column_encoding": dict.fromkeys(metrics, "BYTE_STREAM_SPLIT"),
            "compression_level": 19,
        }
    file = io.BytesIO()
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    pq.write_table(table, file, compression="zstd", **tight)
    return file.getvalue()


def from_parquet(text: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(text))
    columns: dict[str, list[Any]] = {}
    for field in table.schema:
        values = table[field.name].to_pylist()
        if field.metadata and b"study" in field.metadata:
            values = [None if v is None else json.loads(v) for v in values]
        elif field.name == "pairs_seen":
            values = [int(v) for v in values]
        columns[field.name] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _typed(name: str, values: list[Any]) -> tuple[Any, list[Any]]:
    """The type of a column that holds every value exactly, and the values in it."""
    import pyarrow as pa

    if name == "pairs_seen":  # beyond 64 bits: a step of 2**32 examples has 2**64 pairs
        return pa.field(name, pa.decimal256(76)), values
    kinds = {type(v) for v in values if v is not None}
    if "/" in name:  # a metric: what is no number is none, as `analysis.records.frame` has it
        numbers = [float(v) if type(v) in (int, float) else None for v in values]
        return pa.field(name, pa.float64()), numbers
    if name in COUNTS or (kinds == {int} and all(v is None or abs(v) < 2**63 for v in values)):
        return pa.field(name, pa.int64()), values
    if kinds == {float}:
        return pa.field(name, pa.float64()), values
    if kinds == {str}:
        return pa.field(name, pa.string()), values
    mixed = [None if v is None else json.dumps(v) for v in values]
    return pa.field(name, pa.string(), metadata=_AS_JSON), mixed
