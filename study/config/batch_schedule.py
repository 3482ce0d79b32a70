"""Branches of a cell, and a batch size that changes during a run: a chain of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from study.config.branch import Branch
from study.config.budget import Budget
from study.config.cell import Cell, CellError
from study.config.optimizer import Optimizer


def branch_from(
    parent: Cell,
    *,
    percent: float,
    batch_size: int,
    budget: Budget,
    optimizer: Optimizer | None = None,
    shift_bias: bool = False,
) -> Cell:
    """A cell that goes on from `parent` after some percent of it.

    Arguments:
      percent: of the parent's steps; a multiple of the `Execution.keep_every_percent` with which
        the parent is trained.
      budget: of the branch alone.
      optimizer: None is the parent's. Its state must be of the same arrays.
      shift_bias: Whether the bias, if the loss has one, moves with the log odds of a positive from
        one batch size to the other, so that the loss goes on where it was.

    Raises:
      CellError: the parent has no such step, or has a queue, whose batches have another size.
    """
    step = round(parent.steps * percent / 100)
    if not 0 < step <= parent.steps:
        raise CellError(f"branch: {percent:g} % of {parent.id} is step {step} of {parent.steps}")
    branch = Branch(cell=parent.id, step=step, examples=parent.origin + step * parent.batch_size)
    cell = dataclasses.replace(
        parent,
        batch_size=batch_size,
        budget=budget,
        optimizer=optimizer or parent.optimizer,
        model=dataclasses.replace(parent.model, init=None),
        branch=branch,
    )
    if not (shift_bias and parent.loss.has_bias):
        return cell
    shift = cell.prior_log_odds - parent.prior_log_odds
    return dataclasses.replace(cell, branch=dataclasses.replace(branch, bias_shift=shift))


def batch_schedule(
    run: Cell,
    sizes: Sequence[tuple[float, int]],
    *,
    rate: Callable[[int], float],
    shift_bias: bool = False,
) -> tuple[Cell, ...]:
    """The cells of a run whose batch size changes, in order; the last one ends the run.

    Each goes on from the end of the one before, over the same stream and the same schedule of the
    learning rate. With one batch size throughout, the chain ends with the bits of the
    uninterrupted run, but for dropout and random negatives.

    >>> batch_schedule(run, ((0, 256), (20, 1024)), rate=lambda size: 0.01 * (size / 256) ** 0.5)

    Arguments:
      run: its budget, in examples, is that of the whole chain. Its batch size and learning rate are
        not used.
      sizes: percent of the run from which a batch size is used, rising from 0. A batch size ends
        with a whole step, the nearest one.
      rate: the learning rate of a batch size.
      shift_bias: as for `branch_from`, at each change of the batch size.

    Raises:
      CellError: `run` has another kind of budget or is itself a branch, or percents do not rise
        from 0 by a step at least.
    """
    total, percents = run.budget.examples, [percent for percent, _ in sizes]
    if total is None or run.branch is not None:
        raise CellError("batch schedule: give a run with budget.examples that is not a branch")
    if not sizes or percents[0] != 0 or max(percents) >= 100:
        raise CellError(f"batch schedule: percents begin at 0 and stay below 100, not {percents}")
    cells: list[Cell] = []
    begin = 0
    for (_, batch_size), end in zip(sizes, [*percents[1:], 100], strict=True):
        left = total * end / 100 - begin
        # The last partial step of a run is not taken.
        steps = int(left // batch_size) if end == 100 else round(left / batch_size)
        if steps < 1:
            raise CellError(
                f"batch schedule: B = {batch_size} ends at {end:g} % of {total} examples, less "
                f"than a step after it begins, at example {begin}; give percents further apart"
            )
        optimizer = dataclasses.replace(
            run.optimizer, learning_rate=rate(batch_size), schedule_examples=total
        )
        budget = Budget(examples=steps * batch_size)
        if cells:
            cell = branch_from(
                cells[-1],
                percent=100,
                batch_size=batch_size,
                budget=budget,
                optimizer=optimizer,
                shift_bias=shift_bias,
            )
        else:
            cell = dataclasses.replace(
                run, batch_size=batch_size, budget=budget, optimizer=optimizer
            )
        cells.append(cell)
        begin += cell.examples
    return tuple(cells)
