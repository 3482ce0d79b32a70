"""A figure or table onto the disk, with the numbers behind it, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.figures.base import Inputs, Plot, reason_to_skip
from analysis.figures.plot.style import save
from analysis.figures.tables import table as tables


@dataclass(frozen=True, kw_only=True)
class OutputFiles:
    """The files of one figure (PNG, PDF, CSV) or table (text, HTML, CSV), or in `skipped` the
    reason why there are none."""

    name: str
    path_png: Path | None = None
    path_pdf: Path | None = None
    path_csv: Path | None = None
    path_txt: Path | None = None
    path_html: Path | None = None
    missing: list[str] = field(default_factory=list)
    skipped: str | None = None

    @property
    def files(self) -> list[str]:
        paths = (self.path_png, self.path_pdf, self.path_txt, self.path_html, self.path_csv)
        return [str(path) for path in paths if path is not None]

    @property
    def line(self) -> str:
        """What a terminal is told of it."""
        if self.skipped is not None:
            return f"{self.name}: skipped, {self.skipped}"
        lacking = f"  ({len(self.missing)} cells missing)" if self.missing else ""
        return "  ".join(self.files) + lacking


def draw_each(
    figures: Mapping[str, Plot],
    written: Mapping[str, Any],
    inputs: Inputs,
    out: Path,
    *,
    prefix: str = "",
) -> list[OutputFiles]:
    """Draws these figures and writes these tables as `<out>/<prefix><name>`.

    With cells, those that no cell belongs to are skipped, whatever the paper has for them.

    Args:
      figures: by name. written: by name, modules with `table`.

    Raises:
      AnalysisError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [
            *(_draw(n, module, inputs, out / f"{prefix}{n}") for n, module in figures.items()),
            *(_write(n, module, inputs, out / f"{prefix}{n}") for n, module in written.items()),
        ]
    except OSError as error:
        raise AnalysisError(
            f"cannot write figures to {out}: {error.strerror or error}; choose another folder"
        ) from error


def _draw(name: str, plot: Plot, inputs: Inputs, stem: Path) -> OutputFiles:
    table, missing, skipped = plot.table(inputs)
    if skipped:
        return OutputFiles(name=name, missing=missing, skipped=skipped)
    path_csv = stem.with_name(f"{stem.name}.csv")
    table.to_csv(path_csv, index=False, lineterminator="\n")
    path_png, path_pdf = save(plot.draw(table), stem)
    return OutputFiles(
        name=name, path_png=path_png, path_pdf=path_pdf, path_csv=path_csv, missing=missing
    )


def _write(name: str, module: Any, inputs: Inputs, stem: Path) -> OutputFiles:
    table = module.table(inputs)
    missing = list(table.missing)
    if skipped := unlisted(table, inputs):
        return OutputFiles(name=name, missing=missing, skipped=skipped)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in ("txt", "html", "csv")}
    paths["txt"].write_text(tables.text(table) + "\n")
    paths["html"].write_text(tables.fragment(table))
    tables.frame(table).to_csv(paths["csv"], index=False, lineterminator="\n")
    return OutputFiles(
        name=name,
        path_txt=paths["txt"],
        path_html=paths["html"],
        path_csv=paths["csv"],
        missing=missing,
    )


def unlisted(table: tables.Table, inputs: Inputs) -> str | None:
    """The reason why a table of the paper is not to be shown for these cells."""
    if not len(inputs.cells) or table.ours:
        return None
    return reason_to_skip(pd.DataFrame(), list(table.missing), inputs)
