"""Table 9: recall@1 by language and batch size, mSigLIP (paper Sec. 4.3, App. D; Fig. 8).

Cells, by their fields: those of Fig. 8.
"""

from __future__ import annotations

from analysis.figures.base import Inputs
from analysis.figures.paper import fig_8
from analysis.figures.plot import points, style
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import size_of, sources
from analysis.figures.tables.table import Entry, Table
from analysis.stats.intervals import by_group, pooled_means

SHORT = {"image_to_text": "I-T", "text_to_image": "T-I"}


def table(inputs: Inputs) -> Table:
    """One row per language, the mean of all last; both directions."""
    entries: list[Entry] = []
    missing: list[str] = []
    cells = fig_8.cells_of(inputs.cells)
    for direction, printed in fig_8.DIRECTIONS.items():
        entries += [
            Entry(
                row=(row["x"],),
                column=f"{SHORT[direction]} {row['series']}",
                source="paper",
                value=row["value"],
            )
            for row in fig_8.paper_rows(direction, printed)
        ]
        for panel, suffix in cells:
            done = panel.done
            for language, metric in fig_8.languages(done, direction).items():
                means = pooled_means(by_group(done, ["batch_size"], metric))
                entries += [
                    tables.ours(
                        (language,),
                        f"{SHORT[direction]} {style.short(int(size))}{suffix}",
                        means.mean(size),
                        n,
                    )
                    for size, n in means.counts.items()
                ]
                if language == "avg":
                    missing += points.unmeasured(panel, metric)
    return tables.build(
        title="Table 9: XM3600 recall@1 (%), image to text (I-T) and text to image (T-I)",
        head=("language",),
        entries=entries,
        rows=lambda row: (row[0] == "avg", row[0]),
        columns=_order,
        missing=[*(name for panel, _ in cells for name in panel.missing()), *missing],
        provenance=sources(panel for panel, _ in cells),
    )


def _order(column: str) -> tuple[bool, bool, float]:
    scaled = column.endswith(fig_8.SCALED)
    size = column.removesuffix(fig_8.SCALED).split()[-1]
    return not column.startswith("I"), scaled, size_of(size)
