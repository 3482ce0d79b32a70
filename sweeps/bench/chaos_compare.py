"""Whether two records of the same cells tell the same: parameters bit for bit, and every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from study.config.cell import Cell
from study.records.metrics_log import COUNTS, parse, read_rows
from study.records.record import DONE, read_json


class Differences(NamedTuple):
    """One line for each difference, and how often the second of both began its cells."""

    lines: list[str]
    attempts: int


def differences(cells: Sequence[Cell], peace: Path, killed: Path) -> Differences:
    """Compares what each cell left in two folders of records; `peace` is taken to be right.

    Equal are to be how it ended, the arrays of the last checkpoint (parameters, optimizer state,
    steps), and after stitching the rows, apart from what a clock says of the run.
    """
    lines, attempts = [], 0
    for cell in cells:
        a, b = peace / cell.id, killed / cell.id
        ends = [read_json(folder / DONE) for folder in (a, b)]
        absent = [f.parent.parent.name for f, e in zip((a, b), ends, strict=True) if e is None]
        if ends[0] is None or ends[1] is None:
            lines.append(f"{cell.id}: is not over in {' and '.join(absent)}")
            continue
        attempts += ends[1]["attempt"]
        found = [f"{k} {ends[0][k]}, {ends[1][k]}" for k in ("status", *COUNTS[:3])
                 if ends[0][k] != ends[1][k]]  # fmt: skip
        found += of_arrays(arrays(a), arrays(b)) + of_rows(read_rows(a), read_rows(b))
        lines += [f"{cell.id}: {line}" for line in found]
    return Differences(lines, attempts)


def arrays(folder: Path) -> dict[str, Any]:
    """The arrays of a cell's last checkpoint by path in the tree."""
    import jax
    import numpy as np

    from study.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        state = checkpoints.load_latest()
    finally:
        checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def of_arrays(peace: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    """Arrays that are not the same to the last bit, NaN and the sign of nought included."""
    if not peace:
        return ["there is no checkpoint to compare"]
    lines = [f"checkpoint: {path} is in one only" for path in sorted({*peace} ^ {*killed})]
    for path in sorted({*peace} & {*killed}):
        a, b = peace[path], killed[path]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            lines.append(f"checkpoint: {path} is {a.dtype}{a.shape}, {b.dtype}{b.shape}")
        elif a.tobytes() != b.tobytes():
            lines.append(f"checkpoint: {path} differs")
    return lines


def of_rows(peace: bytes, killed: bytes) -> list[str]:
    """Measurements that were lost, were added, are recorded twice, or have another value."""
    from study.training.throughput import TIMING_METRICS

    a, twice_a = _measured(peace, TIMING_METRICS)
    b, twice_b = _measured(killed, TIMING_METRICS)
    lines = [f"rows: {key} of step {step} is there twice" for step, key in twice_a + twice_b]
    lines += [f"rows: {key} of step {step} is lost" for step, key in sorted({*a} - {*b})]
    lines += [f"rows: {key} of step {step} is new" for step, key in sorted({*b} - {*a})]
    both = sorted({*a} & {*b})
    lines += [
        f"rows: {key} of step {step} is {a[step, key]}, {b[step, key]}"
        for step, key in both
        if a[step, key] != b[step, key]
    ]
    return lines


Where = tuple[int, str]


def _measured(text: bytes, clocked: Sequence[str]) -> tuple[dict[Where, Any], list[Where]]:
    """Values by step and metric, attempts stitched, and what is there more than once."""
    rows = parse(text).rows
    metrics = [(row, key) for row in rows for key in row if "/" in key and key not in clocked]
    values = {(row["step"], key): row[key] for row, key in metrics}
    values |= {(row["step"], key): row[key] for row in rows for key in COUNTS[1:3]}
    counted = Counter((row["step"], key) for row, key in metrics)
    return values, [where for where, n in counted.items() if n > 1]
