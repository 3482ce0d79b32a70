"""Writes figures and tables to a folder, with the numbers behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot.layout import StudyFigure, save
from analysis.figures.plot.style import DEFAULT_WIDTH
from analysis.figures.tables.table import PaperTable, to_html, to_text


@dataclass(frozen=True, kw_only=True)
class OutputFiles:
    """The files of one figure (PNG, PDF, caption as Markdown and LaTeX, CSV) or table (text, HTML,
    CSV), or in `skipped` the reason why there are none."""

    name: str
    paths: tuple[Path, ...] = ()
    missing: list[str] = field(default_factory=list)
    skipped: str | None = None

    @property
    def files(self) -> list[str]:
        return [str(path) for path in self.paths]

    @property
    def line(self) -> str:
        """One line for a terminal."""
        if self.skipped is not None:
            return f"{self.name}: skipped, {self.skipped}"
        lacking = f"  ({len(self.missing)} cells missing)" if self.missing else ""
        first, *others = self.paths
        suffixes = ", ".join(path.suffix.removeprefix(".") for path in others)
        return f"{first}  also as {suffixes}{lacking}"


def draw_each(
    outputs: Iterable[Plot | PaperTable],
    inputs: Inputs,
    out: Path,
    *,
    prefix: str = "",
    width: str = DEFAULT_WIDTH,
    bare: bool = False,
) -> list[OutputFiles]:
    """Writes these figures and tables as `<out>/<prefix><name>`.

    With cells, those that no cell belongs to are skipped, whatever the paper has for them.

    Args:
      width, bare: of the pictures, see `Plot.draw`.

    Raises:
      AnalysisError: `out` cannot be written.
    """
    with writing_to(out):
        return [
            _write(output, inputs, out / f"{prefix}{output.name}", width=width, bare=bare)
            for output in outputs
        ]


@contextlib.contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Creates the folder of figures; AnalysisError where it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise AnalysisError(
            f"cannot write figures to {out}: {error.strerror or error}; choose another folder"
        ) from error


def _write(
    output: Plot | PaperTable, inputs: Inputs, stem: Path, *, width: str, bare: bool
) -> OutputFiles:
    table, skipped = output.numbers(inputs)
    if skipped:
        missing = list(table.attrs.get("missing", ()))
        return OutputFiles(name=output.name, missing=missing, skipped=skipped)
    fig = output.draw(table, width=width, bare=bare) if isinstance(output, Plot) else None
    return write_output(output.name, table, fig, stem)


def write_output(
    name: str, table: pd.DataFrame, fig: StudyFigure | None, stem: Path
) -> OutputFiles:
    """Writes the files of a figure, or of a table of the paper, which has no `fig`."""
    csv = stem.with_name(f"{stem.name}.csv")
    table.to_csv(csv, index=False, lineterminator="\n")
    if fig is not None:
        paths: tuple[Path, ...] = save(fig, stem)
    else:
        paths = (stem.with_name(f"{stem.name}.txt"), stem.with_name(f"{stem.name}.html"))
        paths[0].write_text(to_text(table))
        paths[1].write_text(to_html(table, name))
    missing = list(table.attrs.get("missing", ()))
    return OutputFiles(name=name, paths=(*paths, csv), missing=missing)
