"""`study best`: the leaderboard of a study."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sweeps.cli.options import Json, Metric, Only, Root, Set, StudyName, root_of
from sweeps.cli.recorded import recorded_study

SHORT_NAMES = {"loss.kind": "loss", "optimizer.learning_rate": "rate"}


def best(
    name: StudyName,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    metric: Metric = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Keep the best of each value of a field, such as batch_size (repeatable).",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of entries to show.")] = 10,
    as_json: Json = False,
) -> int:
    """Rank the finished cells of a study by quality.

    Cells that differ in their seed alone are one line: the mean, and how many they are. A metric
    that ends in "loss" is better when lower.
    """
    from analysis.select.leaderboard import ALWAYS, rank
    from sweeps.cli.table import table

    root = root_of(root)
    study, where = recorded_study(name, root, settings, only)
    board = rank(root, study, metric=metric, by=by or [], **where)
    rows = board.rows[:top]
    if as_json:
        print(json.dumps({"study": study, "metric": board.metric, "rows": rows}, indent=1))
        return 0
    fields = [
        field
        for field in rows[0]["fields"]
        if field in (*ALWAYS, *(by or ())) or len({row["fields"][field] for row in rows}) > 1
    ]
    head = ["quality", "range", "seeds", *(SHORT_NAMES.get(f, f) for f in fields), "cell"]
    lines = [
        [
            f"{row['mean']:.4g}",
            _range(row["values"]),
            str(len(row["values"])),
            *(_text(row["fields"][field]) for field in fields),
            row["cells"][0],
        ]
        for row in rows
    ]
    print(table(head, lines, right=range(len(head) - 1)))
    print(f"{study}: {len(rows)} of {len(board.rows)} by {board.metric}, the mean over seeds")
    return 0


def _range(values: list[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}" if len(values) > 1 else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
