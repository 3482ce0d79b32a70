"""Columns of `study status`: what --columns, --sort and --state choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sweeps.cli.table import sort_rows, table
from sweeps.runner.cell_status import STATES, CellStatus
from sweeps.runner.display import duration, headline, percent, rate
from sweeps.selection import MISSING, field_of
from sweeps.study import StudyError

if TYPE_CHECKING:
    from sweeps.study import Study

Row = TypeVar("Row")
# A value to sort by, and its text.
Column = Callable[[Row], tuple[Any, str]]


def check_states(states: Sequence[str] | None) -> Sequence[str]:
    """The states named in --state, all of them by default.

    Raises:
      StudyError: no such state.
    """
    if unknown := set(states or ()) - set(STATES):
        raise StudyError(
            f"--state {', '.join(sorted(unknown))}: no such state; choose from {', '.join(STATES)}"
        )
    return states or STATES


def format_rows(
    rows: Sequence[Row],
    columns: Mapping[str, Column[Row]],
    *,
    sort: str | None,
    chosen: Sequence[str],
) -> str:
    """A table of these columns; `sort` is the name of one, with "-" in front to begin at its end.

    Raises:
      StudyError: no such column.
    """
    name = (sort or "").removeprefix("-")
    for one in (*chosen, *([name] if sort else ())):
        if one not in columns:
            raise StudyError(f"no column {one}; columns are {', '.join(columns)}")
    if sort:
        rows = sort_rows(rows, lambda r: columns[name](r)[0], descending=sort.startswith("-"))
    lines = [[columns[one](row) for one in chosen] for row in rows]
    right = {
        i
        for i in range(len(chosen))
        if not any(isinstance(line[i][0], str) for line in lines if line[i][1])
    }
    return table(chosen, [[text for _, text in line] for line in lines], right=right)


def cell_columns(study: Study, more: Sequence[str]) -> dict[str, Column[CellStatus]]:
    """The columns of a study's cells; `more` are fields of cells, or metrics that they ended with.

    Raises:
      StudyError: no cell has such a field.
    """

    def speed(e: CellStatus) -> tuple[float | None, str]:
        value = e.progress.examples_per_second if e.state == "running" else None
        return value, rate(value) if value else ""

    def left(e: CellStatus) -> tuple[float | None, str]:
        return e.seconds_left, duration(e.seconds_left) if e.seconds_left is not None else ""

    def result(e: CellStatus) -> tuple[str, str]:
        text = e.error or headline(e.done) or (str(e.owner) if e.owner else "")
        return text, text

    columns: dict[str, Column[CellStatus]] = {
        "cell": lambda e: (e.cell.id, e.cell.id),
        "state": lambda e: (e.state, e.state),
        "machine": lambda e: (machine := study.execution_of(e.cell).slice or "", machine),
        "seen": lambda e: (
            e.progress.examples_seen / e.cell.examples,
            percent(e) if e.progress.examples_seen else "",
        ),
        "rate": speed,
        "left": left,
        "attempt": lambda e: (
            e.progress.attempts,
            str(e.progress.attempts) if e.progress.attempts > 1 else "",
        ),
        "result": result,
    }
    for name in more:
        if name not in columns:
            columns[name] = _field_or_metric(study, name)
    return columns


def _field_or_metric(study: Study, name: str) -> Column[CellStatus]:
    is_metric = "/" in name
    if not is_metric and all(field_of(cell, name) is MISSING for cell in study.cells):
        raise StudyError(
            f"no column {name}; columns are cell, state, machine, seen, rate, left, attempt, "
            "result, a field of the cell such as optimizer.learning_rate, or a metric such as "
            "eval/zero_shot/test_font/top1"
        )

    def column(e: CellStatus) -> tuple[Any, str]:
        value = e.done.get("summary", {}).get(name) if is_metric else field_of(e.cell, name)
        if value is None or value is MISSING:
            return None, ""
        return value, f"{value:.4g}" if isinstance(value, float) else str(value)

    return column
