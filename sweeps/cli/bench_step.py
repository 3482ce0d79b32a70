"""`study bench step`: our training step beside a plain one of flax and optax."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import pydantic
import typer

from sweeps.cli.table import table
from sweeps.study import StudyError


class Kind(StrEnum):
    """Which cell is trained."""

    siglit = "siglit"
    siglip = "siglip"


class Loss(StrEnum):
    """Its loss."""

    sigmoid = "sigmoid"
    softmax = "softmax"


def step(
    cells: Annotated[
        list[Kind] | None,
        typer.Option("--cell", help="siglit: cached images; siglip: both towers.  [default: both]"),
    ] = None,
    loss: Annotated[Loss, typer.Option("--loss", help="sigmoid or softmax.")] = Loss.sigmoid,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=2, help="[default: 1024 for siglit, 64 for siglip]"),
    ] = None,
    variant: Annotated[
        str, typer.Option("--variant", help="Tower and patch of siglip, such as B/16.")
    ] = "mu/8",
    image_size: Annotated[int, typer.Option("--image-size", min=1, help="Of siglip.")] = 32,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps in a round.")] = 20,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds that are timed.")] = 7,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """The training step beside a plain flax and optax step at the same work, on one device.

    A ratio is our time over the plain step's: below 1, ours is faster. The last column tells that
    both made the same parameters.
    """
    from study.bench import step as benches
    from study.config.cell import Sigmoid, Softmax, explain

    chosen = Sigmoid() if loss is Loss.sigmoid else Softmax()
    results = []
    for kind in cells or list(Kind):
        try:
            if kind is Kind.siglit:
                cell, image = benches.siglit(batch_size or 1024, chosen, steps)
            else:
                cell, image = benches.siglip(
                    batch_size or 64, chosen, steps, variant=variant, image_size=image_size
                )
        except pydantic.ValidationError as error:
            raise StudyError(explain(error)) from None
        results.append(
            benches.bench(kind.value, cell, image, steps=steps, rounds=rounds, said=_said)
        )
    _said("")
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return 0
    rows = [
        (
            r.name,
            r.loss,
            f"{r.batch_size:,}",
            f"{r.ours_seconds * 1e3:,.2f}",
            f"{r.plain_seconds * 1e3:,.2f}",
            f"{r.ratio:.3f} ({min(r.ratios):.2f} to {max(r.ratios):.2f})",
            f"{r.difference:.0e}",
        )
        for r in results
    ]
    head = ("cell", "loss", "B", "ours ms", "plain ms", "ours / plain (rounds)", "differ by")
    print(table(head, rows, right={2, 3, 4, 6}))
    return 0


def _said(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
