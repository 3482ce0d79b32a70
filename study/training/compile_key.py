"""What a compiled program depends on: cells with equal keys share a program or its memory.

Imports no jax, so that planning can look up what is cached without it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from study.config import (
    Budget,
    Cell,
    Data,
    Loss,
    Negatives,
    Optimizer,
    ParamGroup,
    Sigmoid,
    Softmax,
)


def compile_key(cell: Cell) -> Cell:
    """`cell` with only that which its program depends on; cells with equal keys share a program.

    Seeds, rates, schedules, durations, the number of negatives and the first t and b are arguments
    of the program. A run shorter than one chunk has smaller arrays, which is not in the key.
    """
    loss = dataclasses.replace(cell.loss, t_init=Sigmoid().t_init)
    if isinstance(loss, Sigmoid) and loss.b_init is not None:
        loss = dataclasses.replace(loss, b_init=Sigmoid().b_init)
    if isinstance(loss, Sigmoid) and isinstance(loss.pairs, Negatives):
        loss = dataclasses.replace(loss, pairs=dataclasses.replace(loss.pairs, per_positive=1.0))
    return dataclasses.replace(
        cell,
        seed=0,
        branch=None,
        evals=(),
        data=Data(text_length=cell.data.text_length),
        model=dataclasses.replace(cell.model, init=None),
        loss=loss,
        optimizer=_without_rates(cell.optimizer),
        budget=Budget(steps=1),
    )


def start_key(cell: Cell) -> Cell:
    """`cell` with only that which the initial state depends on beside its seed, t and b."""
    loss: Loss = Softmax()
    if isinstance(cell.loss, Sigmoid) and cell.loss.b_init is not None:
        loss = Sigmoid(bias=cell.loss.bias)
    queue = cell.loss.queue_examples
    return Cell(
        model=dataclasses.replace(cell.model, init=None),
        loss=dataclasses.replace(loss, queue_examples=queue),
        optimizer=_without_numbers(cell.optimizer),
        data=Data(text_length=cell.data.text_length),
        batch_size=cell.batch_size if queue else 2,
        budget=Budget(steps=1),
    )


def memory_key(cell: Cell, chunk_examples: int) -> Cell:
    """`compile_key` with all constants at one value, which leaves arrays and operations as they
    are: cells with equal keys need the same memory.

    Arguments:
      chunk_examples: see `Execution`; only a run shorter than one chunk has smaller arrays.
    """
    return dataclasses.replace(
        compile_key(cell),
        optimizer=_without_numbers(cell.optimizer),
        budget=Budget(steps=max(1, min(cell.steps, chunk_examples // cell.batch_size))),
    )


def _without_rates(o: Optimizer) -> Optimizer:
    """`o` with rates, decays and schedule at one value, since they are not in the program."""
    data = ("learning_rate", "weight_decay", "schedule", "schedule_examples")
    durations = ("warmup", "timescale", "cooldown", "weight_decay_time")
    kept = {
        f.name: getattr(o, f.name)
        for f in dataclasses.fields(o)
        if f.name not in data and not f.name.startswith(durations)
    }
    return type(o)(**kept | _frozen_groups(o))


def _without_numbers(o: Optimizer) -> Optimizer:
    """`o` with all constants at one value too, which leaves its state and its operations."""
    kept: dict[str, Any] = _frozen_groups(o)
    if hasattr(o, "min_dim_size_to_factor"):
        kept["min_dim_size_to_factor"] = o.min_dim_size_to_factor
    return type(o)(clip_norm=None if o.clip_norm is None else 1.0, **kept)


def _frozen_groups(o: Optimizer) -> dict[str, Any]:
    groups = ("image", "text", "loss_scalars")
    return {name: ParamGroup(frozen=getattr(o, name).frozen) for name in groups}
