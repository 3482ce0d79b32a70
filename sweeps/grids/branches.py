"""Branches of one cell of a study, as a study of their own: what `study branch` writes.

>>> branches("critical-batch", "b64-sigmoid-s0-2c369490", at_percents=(25,), batch_sizes=(64, 1024),
...          examples=65_536)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from study.config import Budget, Cell, CellError, Optimizer, branch_from
from study.config.budget import SUFFIXES
from study.config.cell import explain
from study.config.schedule import schedule
from sweeps.grids.rules import PowerRule
from sweeps.registry import load_study
from sweeps.selection import select
from sweeps.study import Study, StudyError

# The exponent of the batch size in the rate: for any, for Adam and for SGD (`PowerRule`).
RATE_RULES = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
DURATIONS = ("warmup", "timescale", "cooldown", "weight_decay_time")

Schedule = Literal["hold", "continue"]


def branches(
    study: str,
    cell: str,
    *,
    at_percents: Sequence[float],
    batch_sizes: Sequence[int],
    examples: int | None = None,
    rate_rule: str = "sqrt",
    schedule: Schedule = "hold",
    shift_bias: bool = False,
    settings: Sequence[str] = (),
) -> Study:
    """A cell of a study, and cells that go on from its checkpoints at several batch sizes.

    They share the folder of that study, where the checkpoints are. A worker trains the cell itself
    first, unless it is done or another one trains it.

    Arguments:
      study: a built-in study, or a grid file.
      cell: its id, or a unique prefix.
      at_percents: of the cell; a checkpoint of each must be kept, see `Execution.kept_steps`.
      examples: of each branch; None is what is left of the cell's run.
      rate_rule: of `RATE_RULES`: how the learning rate follows the batch size.
      schedule: "hold" keeps the rate and the decay that the cell has at that point; "continue" goes
        on with the cell's own schedule, to its end at most.
      shift_bias: as for `study.config.branch_from`.
      settings: of every cell of the study, as for `--set`.

    Raises:
      StudyError, CellError: no such study or cell, or branches that cannot be; one line.
    """
    of = select(load_study(study), settings=settings)
    parent = of.cell(cell)
    if rate_rule not in RATE_RULES:
        raise StudyError(f"rate rule {rate_rule!r}: give one of {', '.join(RATE_RULES)}")
    made = [
        _branch(parent, percent, size, examples, RATE_RULES[rate_rule], schedule, shift_bias)
        for percent in at_percents
        for size in batch_sizes
    ]
    return dataclasses.replace(
        of,
        name=f"{parent.id}-branches",
        question=f"How does {parent.id} go on at other batch sizes?",
        cells=(parent, *{one.id: one for one in made}.values()),
        matched=(),
    )


def _branch(
    parent: Cell,
    percent: float,
    batch_size: int,
    examples: int | None,
    exponent: float,
    schedule: Schedule,
    shift_bias: bool,
) -> Cell:
    rate = PowerRule(value=parent.optimizer.learning_rate, at=parent.batch_size, exponent=exponent)(
        batch_size
    )
    at = branch_from(parent, percent=percent, batch_size=parent.batch_size, budget=Budget(steps=1))
    assert at.branch is not None
    whole = parent.optimizer.schedule_examples or parent.examples
    left = whole - at.branch.examples
    if schedule == "continue" and (examples or 1) > left:
        raise StudyError(
            f"{parent.id} has {left:,} examples left at {percent:g} %, not {examples or 1:,}; "
            "hold the schedule, lower the examples, or branch earlier"
        )
    if examples is None and left < batch_size:
        raise StudyError(f"{parent.id} has ended at {percent:g} %; give the examples of a branch")
    try:
        if schedule == "continue":
            optimizer = _continued(parent, rate, whole)
        else:
            optimizer = _held(parent, at.branch.step, batch_size, rate)
        return branch_from(
            parent,
            percent=percent,
            batch_size=batch_size,
            budget=Budget(examples=examples or left),
            optimizer=optimizer,
            shift_bias=shift_bias,
        )
    except pydantic.ValidationError as error:
        raise CellError(
            f"B = {batch_size} at {percent:g} % of {parent.id}: {explain(error)}"
        ) from None


def _continued(parent: Cell, rate: float, whole: int) -> Optimizer:
    o, batch_size = parent.optimizer, parent.batch_size
    in_examples: dict[str, Any] = {}
    for name in DURATIONS:
        if steps := getattr(o, f"{name}_steps"):
            in_examples |= {f"{name}_steps": None, f"{name}_examples": steps * batch_size}
    return dataclasses.replace(o, learning_rate=rate, schedule_examples=whole, **in_examples)


def _held(parent: Cell, step: int, batch_size: int, rate: float) -> Optimizer:
    """Rate and decay as the schedule leaves them after a step, for good."""
    factor = float(schedule(parent)(step))
    if factor <= 0:
        raise StudyError(
            f"the learning rate of {parent.id} is zero after step {step:,}, so nothing would be "
            "trained; branch earlier"
        )
    decay = dataclasses.replace(parent, batch_size=batch_size).weight_decay
    unset: dict[str, Any] = {f"{name}_{suffix}": None for name in DURATIONS for suffix in SUFFIXES}
    return dataclasses.replace(
        parent.optimizer,
        **unset,
        learning_rate=rate * factor,
        weight_decay=decay * factor,
        schedule="constant",
        schedule_examples=None,
    )
