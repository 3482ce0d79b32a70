"""Options that several verbs of `study bench` share, and how they print ratios."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Rounds = Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Timed rounds.")]


def median_and_range(ratios: Sequence[float]) -> str:
    """The median ratio, and the range over the rounds; empty without ratios."""
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"


def print_json(results: list[Any]) -> None:
    print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
