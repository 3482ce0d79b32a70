"""A figure onto the disk: PNG, PDF and the CSV behind it, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.figures.inputs import Inputs
from analysis.style import save


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure's files, or in `skipped` the reason why there are none."""

    name: str
    path_png: Path | None = None
    path_pdf: Path | None = None
    path_csv: Path | None = None
    missing: list[str] = field(default_factory=list)
    skipped: str | None = None


def draw_each(
    figures: Mapping[str, Any], inputs: Inputs, out: Path, *, prefix: str = ""
) -> list[Drawn]:
    """Draws these figures, each by its module's `data` and `draw`, as `<out>/<prefix><name>`.

    With cells, a figure that none of them belongs to is skipped, whatever the paper has for it.

    Raises:
      AnalysisError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [
            _draw(name, module, inputs, out / f"{prefix}{name}") for name, module in figures.items()
        ]
    except OSError as error:
        raise AnalysisError(
            f"cannot write figures to {out}: {error.strerror or error}; choose another folder"
        ) from error


def _draw(name: str, module: Any, inputs: Inputs, stem: Path) -> Drawn:
    table, missing, skipped = tabled(module, inputs)
    if skipped:
        return Drawn(name=name, missing=missing, skipped=skipped)
    path_csv = stem.with_name(f"{stem.name}.csv")
    table.to_csv(path_csv, index=False, lineterminator="\n")
    path_png, path_pdf = save(module.draw(table), stem)
    return Drawn(
        name=name, path_png=path_png, path_pdf=path_pdf, path_csv=path_csv, missing=missing
    )


def tabled(module: Any, inputs: Inputs) -> tuple[pd.DataFrame, list[str], str | None]:
    """A figure's table, what it misses, and the reason where it is not to be drawn."""
    table = module.data(inputs)
    missing = list(table.attrs.get("missing", ()))
    ours = table[table["source"] != "paper"] if "source" in table else table
    if not len(table) or (len(inputs.cells) and not len(ours)):
        return table, missing, _why(table, missing, inputs)
    return table, missing, None


def _why(table: pd.DataFrame, missing: list[str], inputs: Inputs) -> str:
    if not len(inputs.cells):
        return "the paper prints no numbers for it"
    if not missing:
        return "no cell of the study belongs to it"
    metric = table.attrs.get("metric", inputs.quality)
    reason = f"none of its cells has ended with {metric}"
    others = [key for key in _qualities(inputs.cells) if key != metric]
    return f"{reason}; metrics that they have: {', '.join(others)}" if others else reason


def _qualities(cells: pd.DataFrame) -> list[str]:
    """The metrics of quality that some cell ended with."""
    return [
        key
        for key in cells
        if key.startswith("eval/") and key.endswith(("/top1", "_r1")) and cells[key].notna().any()
    ]
