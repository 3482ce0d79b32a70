"""Compares two records of the same cells: parameters bit for bit, and every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.config import Cell
from study.records.metrics_log import COUNTS, parse, read_rows
from study.records.record import DONE, read_json


def compare_cells(cells: Sequence[Cell], baseline: Path, disturbed: Path) -> tuple[list[str], int]:
    """Compares what each cell left in two record folders.

    Equal must be the cell's end, the arrays of its last checkpoint (parameters, optimizer state,
    steps), and the rows of the final history, except for timings.

    Returns:
      One line per difference, and the number of attempts in `disturbed`.
    """
    differences, attempts = [], 0
    for cell in cells:
        a, b = baseline / cell.id, disturbed / cell.id
        end_a, end_b = (read_json(folder / DONE) for folder in (a, b))
        if end_a is None or end_b is None:
            ends = {"undisturbed": end_a, "disturbed": end_b}
            unfinished = " and ".join(run for run, end in ends.items() if end is None)
            differences.append(f"{cell.id}: not finished in the {unfinished} run")
            continue
        attempts += end_b["attempt"]
        lines = [
            f"{key} {end_a[key]}, {end_b[key]}"
            for key in ("status", *COUNTS[:3])
            if end_a[key] != end_b[key]
        ]
        lines += compare_arrays(_load_arrays(a), _load_arrays(b))
        lines += compare_rows(read_rows(a), read_rows(b))
        differences += [f"{cell.id}: {line}" for line in lines]
    return differences, attempts


def _load_arrays(folder: Path) -> dict[str, Any]:
    """The arrays of a cell's last checkpoint, by path in the tree."""
    import jax
    import numpy as np

    from study.training.checkpoint import load_checkpoint, saved_steps

    steps = saved_steps(folder / "checkpoints")
    state = load_checkpoint(folder / "checkpoints", steps[-1]) if steps else {}
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def compare_arrays(baseline: dict[str, Any], disturbed: dict[str, Any]) -> list[str]:
    """Arrays that differ in any bit, NaNs and the sign of zero included, one line each."""
    if not baseline:
        return ["no checkpoint to compare"]
    lines = [f"checkpoint: {path} is in one only" for path in sorted({*baseline} ^ {*disturbed})]
    for path in sorted({*baseline} & {*disturbed}):
        a, b = baseline[path], disturbed[path]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            lines.append(f"checkpoint: {path} is {a.dtype}{a.shape}, {b.dtype}{b.shape}")
        elif a.tobytes() != b.tobytes():
            lines.append(f"checkpoint: {path} differs")
    return lines


def compare_rows(baseline: bytes, disturbed: bytes) -> list[str]:
    """Values that were lost, added, recorded twice or changed, one line each.

    Arguments:
      baseline, disturbed: the content of metrics.jsonl.
    """
    a, repeated_a = _values(baseline)
    b, repeated_b = _values(disturbed)
    lines = [f"rows: {key} of step {step} is repeated" for step, key in repeated_a + repeated_b]
    lines += [f"rows: {key} of step {step} is lost" for step, key in sorted({*a} - {*b})]
    lines += [f"rows: {key} of step {step} is new" for step, key in sorted({*b} - {*a})]
    lines += [
        f"rows: {key} of step {step} is {a[step, key]}, {b[step, key]}"
        for step, key in sorted({*a} & {*b})
        if a[step, key] != b[step, key]
    ]
    return lines


def _values(text: bytes) -> tuple[dict[tuple[int, str], Any], list[tuple[int, str]]]:
    """Values of the final history by (step, metric), and the keys that occur more than once."""
    from study.training.throughput import TIMING_METRICS

    rows = parse(text).rows
    metrics = [
        (row, key) for row in rows for key in row if "/" in key and key not in TIMING_METRICS
    ]
    values = {(row["step"], key): row[key] for row, key in metrics}
    values |= {(row["step"], key): row[key] for row in rows for key in COUNTS[1:3]}
    counts = Counter((row["step"], key) for row, key in metrics)
    return values, [step_and_key for step_and_key, n in counts.items() if n > 1]
