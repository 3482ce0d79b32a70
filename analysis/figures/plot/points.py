"""The table behind a figure: one row per seed, mean or printed number, of both sources alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import paper
from analysis.figures.plot import style
from analysis.select.panels import Panel
from analysis.stats.intervals import by_group, pooled_means

COLUMNS = (
    *("panel", "source", "series", "what", "x", "value", "low", "high", "n", "seed", "id"),
    "metric",
)


def ours(cells: pd.DataFrame, panel: str, metric: str) -> list[dict[str, Any]]:
    """Seeds, and means with 95 % intervals, of finished cells that have `series` and `x`.

    The variance between seeds is pooled over all of them, see `intervals.pooled_means`.
    """
    known = measured(cells, metric)
    common = {"panel": panel, "source": "ours", "metric": metric}
    rows = _seeds(known, common)
    means = pooled_means(by_group(known, ["series", "x"], metric))
    for series, x in sorted(means.means):
        value, low, high = means.mean((series, x))
        rows.append(
            common
            | {"series": series, "what": "mean", "x": x, "n": means.counts[(series, x)]}
            | {"value": value, "low": low, "high": high}
        )
    return rows


def curves(
    rows: pd.DataFrame, cells: pd.DataFrame, panel: str, metric: str
) -> list[dict[str, Any]]:
    """A metric along the runs of cells that have `series`: x is the examples seen.

    One row per cell and logged line, and their mean where all seeds of a series were logged at
    the same point.
    """
    if metric not in rows or not len(cells):
        return []
    table = rows[["id", "examples_seen", metric]].dropna()
    table = table.merge(cells[["id", "series", "seed"]], on="id")
    table = table[np.isfinite(table[metric].astype(float))].rename(columns={"examples_seen": "x"})
    common = {"panel": panel, "source": "ours", "metric": metric}
    found = _seeds(table, common)
    for series, group in table.groupby("series", sort=False):
        at = group.groupby("x")[metric].agg(["mean", "count"])
        at = at[at["count"] == group["id"].nunique()]
        found += [
            common | {"series": series, "what": "mean", "x": x, "value": value, "n": n}
            for x, value, n in at.itertuples(name=None)
        ]
    return found


def _seeds(table: pd.DataFrame, common: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        common
        | {"series": row["series"], "what": "seed", "x": row["x"], "value": row[common["metric"]]}
        | {"seed": row["seed"], "id": row["id"]}
        for _, row in table.iterrows()
    ]


def printed(
    table: pd.DataFrame, panel: str, *, series: Sequence[str], x: Iterable[Any], metric: str = ""
) -> list[dict[str, Any]]:
    """Rows of the paper's numbers: it gives no seeds and no intervals."""
    return [
        {"panel": panel, "source": "paper", "series": s, "what": "mean", "x": at, "value": value}
        | {"metric": metric or name}
        for s, at, value, name in zip(series, x, table["value"], table["metric"], strict=True)
    ]


def frame(
    rows: list[dict[str, Any]],
    *,
    panels: Sequence[Panel] = (),
    missing: Iterable[str] = (),
    notes: Iterable[str] = (),
    title: str = "",
) -> pd.DataFrame:
    """The table of a figure, with what its caption says in `attrs`."""
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "Int64"})
    panels = [panel for panel in panels if len(panel.cells)]
    used = [panel.cells for panel in panels]
    sources = []
    if used:
        sources.append(style.provenance(pd.concat(used).drop_duplicates("id")))
    if (table["source"] == "paper").any():
        sources.append(paper.provenance())
    # Which fields the others differ in is more than a caption can hold.
    said = [note.partition(" (other ")[0] for panel in panels for note in panel.notes]
    table.attrs.update(
        title=title,
        provenance=" · ".join(sources),
        missing=[name for panel in panels for name in panel.missing()] + list(missing),
        notes=list(dict.fromkeys([*said, *notes])),
    )
    return table


def short_title(panel: Panel) -> str:
    """Data set, examples seen and batch size, where all cells of a panel share them."""
    cells = panel.cells
    parts = [", ".join(sorted(set(cells["data.dataset"].dropna())))]
    budgets = sorted(set(cells["examples"].dropna())) if "examples" in cells else []
    if budgets and budgets[-1] < 1.01 * budgets[0]:
        parts.append(f"{style.count(budgets[-1])} examples")
    sizes = cells["batch_size"].unique()
    if len(sizes) == 1:
        parts.append(f"B = {style.short(int(sizes[0]))}")
    return ", ".join(parts)


def measured(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells with a finite value of the metric."""
    if metric not in cells:
        return cells.iloc[:0]
    return cells[np.isfinite(cells[metric].astype(float))]


def unmeasured(panel: Panel, metric: str) -> list[str]:
    """The finished cells of a panel without this metric, as what is missing."""
    done = panel.done
    lacking = done["id"].drop(measured(done, metric).index)
    return [f"{name} (done, without {metric})" for name in lacking]
