"""Tables as plain text, never cut off: a pipe has no width, and a terminal can wrap."""

from __future__ import annotations

from collections.abc import Collection, Sequence


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
