"""Tables as plain text, never cut off: a pipe has no width, and a terminal can wrap."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """Columns as wide as their widest item, `right` ones flush right; empty ones are left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)] or [0]
    widths = {i: max(len(head[i]), *(len(row[i]) for row in rows), 0) for i in kept}

    def line(items: Sequence[str]) -> str:
        return "  ".join(
            items[i].rjust(widths[i]) if i in right else items[i].ljust(widths[i]) for i in kept
        ).rstrip()

    return "\n".join([line(head), *(line(row) for row in rows)])


def sort_rows(rows: Iterable[Row], value: Callable[[Row], Any], *, descending: bool) -> list[Row]:
    """Rows by a value of theirs: numbers before text, those without a value last."""
    known = [(value(row), row) for row in rows]
    filled = [pair for pair in known if pair[0] not in (None, "")]
    filled.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=descending)
    return [row for _, row in filled] + [row for value, row in known if value in (None, "")]
