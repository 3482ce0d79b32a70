"""What made the records of a study, and what drew them, in words."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from analysis.figures.plot import points
from analysis.records.frame import NOT_STARTED

DIRTY = "-dirty"  # ends a version of the code with uncommitted changes
DRAWN_WITH = ("pandas", "numpy", "scipy", "matplotlib")


def provenance(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value of each: hash, data, code, libraries, hardware, attempts, seconds."""
    ran = cells[cells["status"] != NOT_STARTED] if len(cells) else cells
    lines = []
    if len(ran):
        data_sets = _count(
            f"{name}, fingerprint {str(fingerprint)[:10]}"
            for name, fingerprint in zip(
                ran.get("data.dataset", ""), ran["dataset_fingerprint"], strict=True
            )
            if isinstance(fingerprint, str)
        )
        lines = [
            ("records", points.provenance(ran).removeprefix("records ")),
            ("data set", data_sets),
            ("code", f"{code_versions(ran)}: {_count(ran['code'].dropna())}"),
            ("trained with", _versions(ran)),
            ("hardware", _count(_devices(ran))),
            ("attempts", _attempts(ran)),
            ("time", _time(ran)),
            ("seen", f"{_total(ran['examples_seen'])} examples, {_total(ran['pairs_seen'])} pairs"),
        ]
    drawn = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in DRAWN_WITH)
    lines.append(("drawn with", f"Python {platform.python_version()}, {drawn}"))
    return [(name, value) for name, value in lines if value]


def _count(values: Iterable[object]) -> str:
    """Each value, with its number of cells where there are several."""
    counts = Counter(str(value) for value in values)
    if len(counts) < 2:
        return "".join(counts)
    return "; ".join(f"{value} ({n} cells)" for value, n in sorted(counts.items()))


def _versions(cells: pd.DataFrame) -> str:
    names = [name for name in cells if name.startswith("versions.")]
    words = [(name.removeprefix("versions."), sorted({*cells[name].dropna()})) for name in names]
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in words if values)


def _devices(cells: pd.DataFrame) -> list[str]:
    if "devices.kind" not in cells:
        return []
    known = cells[cells["devices.kind"].notna()]
    several = {
        name: known[f"devices.{name}"] if f"devices.{name}" in known else [1] * len(known)
        for name in ("count", "processes")
    }
    return [
        f"{int(count)} x {kind}" + (f" in {int(processes)} processes" if processes > 1 else "")
        for kind, count, processes in zip(known["devices.kind"], *several.values(), strict=True)
    ]


def _attempts(cells: pd.DataFrame) -> str:
    again = int((cells["attempts"] > 1).sum())
    words = f"{int(cells['attempts'].sum()):,} of {len(cells):,} cells"
    words += f"; {again} began more than once" if again else ""
    dropped, superseded = int(cells["dropped_lines"].sum()), int(cells["superseded_rows"].sum())
    words += f"; {superseded:,} superseded rows left out" if superseded else ""
    return words + (f"; {dropped:,} torn lines left out" if dropped else "")


def code_versions(cells: pd.DataFrame) -> str:
    """The versions of the code that made records, and whether all of it was committed.

    >>> code_versions(cells)
    'one commit, 0.1.0+1f0ad20, without uncommitted changes'
    """
    known = cells["code"].dropna()
    commits = sorted({str(version).removesuffix(DIRTY) for version in known})
    if not commits:
        return "an unknown version of the code"
    dirty = sum(str(version).endswith(DIRTY) for version in known)
    changes = "without uncommitted changes"
    if dirty:
        changes = f"{dirty} of {len(known)} cells from a working tree with uncommitted changes"
    if len(commits) == 1:
        return f"one commit, {commits[0]}, {changes}"
    return f"{len(commits)} commits, {changes}"


def core_hours(cells: pd.DataFrame) -> float:
    """Hours of one machine in cells that ended; of local cells, of one core."""
    return float(cells["seconds"].sum()) / 3600


def _time(cells: pd.DataFrame) -> str:
    total = cells["seconds"].sum()
    if not total:
        return ""
    training = cells["seconds.train"].sum() if "seconds.train" in cells else 0.0
    part = f", {training / total:.0%} of them training steps" if training else ""
    hours = f"{total / 3600:,.1f} hours" if total >= 3600 else f"{total:,.0f} seconds"
    return f"{hours} in cells that ended{part}"


def _total(column: pd.Series) -> str:
    return f"{sum(int(n) for n in column if n is not None and n == n):,}"
