"""Every figure: `data(cells, metric)` makes its table, `draw(table)` draws it.

>>> from analysis.figures import draw_all
>>> draw_all("runs", "glyphs", "figures")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.figures import batch_composition, batch_size, from_scratch
from analysis.frame import cells as read_cells
from analysis.panels import TOP1
from analysis.style import save

FIGURES: Mapping[str, Any] = {
    "batch_size": batch_size,
    "batch_composition": batch_composition,
    "from_scratch": from_scratch,
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure's files, or in `skipped` the reason why there are none."""

    name: str
    path_png: Path | None = None
    path_pdf: Path | None = None
    path_csv: Path | None = None
    missing: list[str] = field(default_factory=list)
    skipped: str | None = None


def draw_all(
    root: str | Path,
    study: str,
    out: str | Path,
    *,
    metric: str = TOP1,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> list[Drawn]:
    """Draws every figure that the study has cells for: PNG, PDF, and the CSV behind each.

    The same records give the same bytes. Files are named `<study>-<figure>`.

    Args:
      metric: the column of quality.
      planned: the grid's cells, so that those without a record are missed; see `frame.cells`.
      records: the folder of the study's records, if it shares one; see `frame.cells`.

    Raises:
      AnalysisError: no such root or study, or `out` cannot be written.
    """
    cells = read_cells(root, study, planned=planned, records=records)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_draw(name, cells, out / f"{study}-{name}", metric) for name in FIGURES]
    except OSError as error:
        raise AnalysisError(
            f"cannot write figures to {out}: {error.strerror or error}; choose another folder"
        ) from error


def _qualities(cells: Any) -> list[str]:
    """The metrics of quality that some cell ended with."""
    return [
        key
        for key in cells
        if key.startswith("eval/") and key.endswith(("/top1", "_r1")) and cells[key].notna().any()
    ]


def _draw(name: str, cells: Any, stem: Path, metric: str) -> Drawn:
    table = FIGURES[name].data(cells, metric)
    missing = list(table.attrs["missing"])
    if not len(table):
        reason = "no cell of the study belongs to it"
        if missing:
            reason = f"none of its cells has ended with {metric}"
            if others := [key for key in _qualities(cells) if key != metric]:
                reason += f"; metrics that they have: {', '.join(others)}"
        return Drawn(name=name, missing=missing, skipped=reason)
    path_csv = stem.with_name(f"{stem.name}.csv")
    table.to_csv(path_csv, index=False, lineterminator="\n")
    path_png, path_pdf = save(FIGURES[name].draw(table), stem)
    return Drawn(
        name=name, path_png=path_png, path_pdf=path_pdf, path_csv=path_csv, missing=missing
    )
