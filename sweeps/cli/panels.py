"""What each panel of a study's W&B workspace shows of the study's records, as Markdown.

Read from the workspace as W&B stores it, so that a panel is described by the keys that it has
there. A run mirrors a record row by row, so the values are those that W&B plots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

HEAD = ("panel", "as", "plots", "against", "runs", "first values", "last values")
KINDS = {
    "Run History Line Plot": "lines",
    "Scatter Plot": "points",
    "Parallel Coordinates Plot": "parallel axes",
}
CONFIG, SUMMARY, SYSTEM = "config:cell.value.", "summary:", "system/"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel, and the keys of a run that it reads.

    Attributes:
      kind: as W&B names it, such as "Scatter Plot".
      keys: of what it plots: "summary:KEY" and "config:KEY" of a run, or KEY of every row.
      x: the key of its x axis; empty where it has none.
    """

    section: str
    kind: str
    title: str
    keys: tuple[str, ...] = ()
    x: str = ""


def read_panels(spec: Mapping[str, Any]) -> list[Panel]:
    """The panels of a workspace, see `wandb_workspace.to_json`, in the order of the page."""
    found = []
    for section in spec["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            config = panel["config"]
            columns = [column["accessor"] for column in config.get("columns", ())]
            keys = (*config.get("metrics", ()), *columns)
            keys += (config["yAxis"],) if "yAxis" in config else ()
            found.append(
                Panel(
                    section=section["name"],
                    kind=panel["viewType"],
                    title=config.get("chartTitle", ""),
                    keys=keys,
                    x=config.get("xAxis", ""),
                )
            )
    return found


def describe(study: str, spec: Mapping[str, Any], cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    """A table for each section: each key of a panel, how many runs have it, and their values.

    Arguments:
      cells, rows: of the cells with a record, see `frame.cells` and `frame.rows`.
    """
    panels = [panel for panel in read_panels(spec) if panel.keys]
    lines = [
        f"# The W&B workspace of {study}",
        "",
        f"What its {len(panels)} panels with data show of {len(cells)} recorded runs: for each key "
        "how many runs have it, and the range over these runs of its first and of its last value. "
        f"Written by `study dash {study} --panels`; `study dash {study} --json` prints the "
        "workspace itself.",
    ]
    section = ""
    for panel in panels:
        if panel.section != section:
            section = panel.section
            lines += ["", f"## {section}", "", _row(HEAD), _row(["---"] * len(HEAD))]
        x = f"`{panel.x.removeprefix(SUMMARY).removeprefix(CONFIG)}`" if panel.x else ""
        for i, key in enumerate(panel.keys):
            about = [panel.title, KINDS.get(panel.kind, panel.kind)] if not i else ["", ""]
            lines.append(_row([*about, f"`{key}`", "" if i else x, *_values(key, cells, rows)]))
    return "\n".join(lines)


def _values(key: str, cells: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    """The number of runs that have a key, and the ranges of their first and last values."""
    if key.startswith(SYSTEM):
        yield from ("", "recorded by W&B itself, not in a record", "")
        return
    if key.startswith(CONFIG):
        column = cells.get(key.removeprefix(CONFIG), pd.Series(dtype=object)).dropna()
        yield from (str(len(column)), _range(column), _range(column))
        return
    name = key.removeprefix(SUMMARY)
    if name not in rows:
        yield from ("0", "", "")
        return
    by_cell = rows[rows[name].notna()].groupby("id")[name]
    yield str(by_cell.ngroups)
    yield "" if key.startswith(SUMMARY) else _range(by_cell.first())
    yield _range(by_cell.last())


def _range(values: pd.Series) -> str:
    different = sorted(set(values.tolist()))
    if not different:
        return ""
    if isinstance(different[0], str):
        return ", ".join(different)
    ends = [
        f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        for value in (different[0], different[-1])
    ]
    return " to ".join(dict.fromkeys(ends))


def _row(texts: Any) -> str:
    return f"| {' | '.join(texts)} |"
