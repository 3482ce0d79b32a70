"""The table behind a figure: one row per seed, mean or printed number, ours and the paper's alike.

Columns: panel, source ("ours", "paper"), series, kind ("seed", "mean" and what a figure adds), x,
value, low and high (95 % interval), n (seeds of a mean), seed, id (of the cell), metric.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.plot.style import format_count, format_size, is_percent
from analysis.paper.reference import provenance as paper_provenance
from analysis.records.scores import ItemReader
from analysis.select.panels import Panel
from analysis.stats.intervals import by_group, group_means, paired_differences

COLUMNS = (
    *("panel", "source", "series", "kind", "x", "value", "low", "high", "n", "seed", "id"),
    "metric",
)
Row = dict[str, Any]


def our_points(
    cells: pd.DataFrame, panel: str, metric: str, read_items: ItemReader | None = None
) -> list[Row]:
    """Seeds, and means with 95 % intervals, of finished cells that have `series` and `x`."""
    known = with_metric(cells, metric)
    common = {"panel": panel, "source": "ours", "metric": metric}
    rows = _seeds(known, common)
    means = group_means(by_group(known, ["series", "x"], metric), read_items=read_items)
    for series, x in sorted(means.means):
        mean = means.mean((series, x))
        rows.append(
            common
            | {"series": series, "kind": "mean", "x": x, "n": means.counts[(series, x)]}
            | {"value": mean.estimate, "low": mean.low, "high": mean.high}
        )
    return _within_range(rows, metric)


def _within_range(rows: list[Row], metric: str) -> list[Row]:
    """Intervals of a percentage end at 0 and 100, where the t interval goes beyond."""
    if is_percent(metric):
        for row in rows:
            row |= {end: float(np.clip(row[end], 0, 100)) for end in ("low", "high") if end in row}
    return rows


def loss_gaps(
    cells: pd.DataFrame,
    panel: str,
    metric: str,
    read_items: ItemReader | None = None,
    *,
    series: str,
) -> list[Row]:
    """Sigmoid minus softmax by batch size, paired by seed.

    `low` and `high` of a "mean" hold for its batch size alone, those of a "simultaneous" row for
    all batch sizes together (Bonferroni).
    """
    pairs = paired_differences(cells, metric)
    gaps = by_group(pairs, ["batch_size"], "difference")
    means = group_means(gaps, read_items=read_items)
    common = {"panel": panel, "source": "ours", "series": series, "metric": metric}
    rows = [
        common
        | {"kind": "seed", "x": int(row["batch_size"]), "value": float(row["difference"])}
        | {"seed": int(row["seed"])}
        for _, row in pairs.iterrows()
    ]
    for size in sorted(means.means):
        for kind, comparisons in (("mean", 1), ("simultaneous", len(means.means))):
            gap = means.contrast({size: 1.0}, comparisons=comparisons)
            rows.append(
                common
                | {"kind": kind, "x": int(size), "n": means.counts[size]}
                | {"value": gap.estimate, "low": gap.low, "high": gap.high}
            )
    return rows


def curves(lines: pd.DataFrame, cells: pd.DataFrame, panel: str, metric: str) -> list[Row]:
    """A metric along the runs of cells that have `series`: x is the examples seen.

    One row per cell and logged line, and their mean where all seeds of a series were logged at
    the same point.
    """
    if metric not in lines or not len(cells):
        return []
    table = lines[["id", "examples_seen", metric]].dropna()
    table = table.merge(cells[["id", "series", "seed"]], on="id")
    table = table[np.isfinite(table[metric].astype(float))].rename(columns={"examples_seen": "x"})
    common = {"panel": panel, "source": "ours", "metric": metric}
    rows = _seeds(table, common)
    for series, group in table.groupby("series", sort=False):
        at = group.groupby("x")[metric].agg(["mean", "count"])
        at = at[at["count"] == group["id"].nunique()]
        rows += [
            common | {"series": series, "kind": "mean", "x": x, "value": value, "n": n}
            for x, value, n in at.itertuples(name=None)
        ]
    return rows


def _seeds(table: pd.DataFrame, common: Row) -> list[Row]:
    return [
        common
        | {"series": row["series"], "kind": "seed", "x": row["x"], "value": row[common["metric"]]}
        | {"seed": row["seed"], "id": row["id"]}
        for _, row in table.iterrows()
    ]


def paper_points(
    table: pd.DataFrame, panel: str, *, series: Iterable[Any], x: Iterable[Any]
) -> list[Row]:
    """Rows of the paper's numbers: it gives no seeds and no intervals."""
    return [
        {"panel": panel, "source": "paper", "series": s, "kind": "mean", "x": at, "value": value}
        | {"metric": metric}
        for s, at, value, metric in zip(series, x, table["value"], table["metric"], strict=True)
    ]


def make_table(
    rows: list[Row],
    *,
    panels: Iterable[Panel] = (),
    missing: Iterable[str] = (),
    notes: Iterable[str] = (),
    title: str = "",
    why: str = "",
) -> pd.DataFrame:
    """The table of a figure, with the parts of its caption in `attrs`.

    Args:
      panels: the cells that the rows are from.
      why: the reason where there are no rows.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "Int64"})
    panels = [panel for panel in panels if len(panel.cells)]
    table.attrs.update(
        title=title,
        provenance=sources(panels, printed=bool((table["source"] == "paper").any())),
        missing=[name for panel in panels for name in panel.missing()] + list(missing),
        left_out=list(dict.fromkeys(note for panel in panels for note in panel.notes)),
        notes=list(dict.fromkeys(notes)),
        why=why,
    )
    return table


def round_results(rows: list[Row], digits: int = 6) -> list[Row]:
    """The rows of fits, without the digits that differ from one machine to the next."""
    return [
        {
            key: float(f"{value:.{digits}g}") if isinstance(value, float) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def sources(panels: Iterable[Panel], *, printed: bool) -> str:
    """Which records, and which file of the paper's numbers if they are `printed` too."""
    cells = [panel.cells for panel in panels if len(panel.cells)]
    records = [provenance(pd.concat(cells).drop_duplicates("id"))] if cells else []
    return " · ".join([*records, *([paper_provenance()] if printed else [])])


def provenance(cells: pd.DataFrame) -> str:
    """A short hash over the contents of the records of these cells, and their number."""
    contents = "".join(sorted(cells["content"]))
    digest = hashlib.sha256(contents.encode()).hexdigest()[:10]
    return f"records {digest} · {len(cells)} cells"


def describe_panel(panel: Panel) -> str:
    """Data set, examples seen and batch size, where all cells of a panel share them."""
    cells = panel.cells
    if not len(cells):
        return ""
    parts = [", ".join(sorted(set(cells["data.dataset"].dropna())))]
    budgets = sorted(set(cells["examples"].dropna())) if "examples" in cells else []
    if budgets and budgets[-1] < 1.01 * budgets[0]:
        parts.append(f"{format_count(budgets[-1])} examples")
    sizes = cells["batch_size"].unique()
    if len(sizes) == 1:
        parts.append(f"B = {format_size(sizes[0])}")
    return ", ".join(parts)


def count_seeds(df: pd.DataFrame, by: Sequence[str] = ("panel", "series", "x")) -> str:
    """How many seeds each point has: "3 seeds", "1 to 3 seeds"."""
    seeds = df[df["kind"] == "seed"].groupby(list(by))["id"].nunique()
    low, high = int(seeds.min()), int(seeds.max())
    if low == high:
        return f"{low} seed{'s' if low > 1 else ''}"
    return f"{low} to {high} seeds"


def with_metric(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells that have a finite value of the metric."""
    if metric not in cells:
        return cells.iloc[:0]
    return cells[np.isfinite(cells[metric].astype(float))]


def without_metric(panel: Panel, metric: str) -> list[str]:
    """The finished cells of a panel that lack the metric, as what is missing."""
    done = panel.done
    lacking = done["id"].drop(with_metric(done, metric).index)
    return [f"{name} (done, without {metric})" for name in lacking]
