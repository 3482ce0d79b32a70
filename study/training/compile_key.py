"""What a compiled program depends on: cells with equal keys share a program or its memory.

Imports no jax, so that planning can look up what is cached without it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from study.config import Budget, Cell, Data, Negatives, ParamGroup, Sigmoid


def compile_key(cell: Cell) -> Cell:
    """`cell` without its seed, data and evaluations; cells with equal keys share a program.

    Rates, schedules and durations are constants of the program, so they stay.
    """
    data = Data(text_length=cell.data.text_length)
    return dataclasses.replace(cell, seed=0, evals=(), data=data)


def memory_key(cell: Cell, chunk_examples: int) -> Cell:
    """`compile_key` with all constants at one value, which leaves arrays and operations as they
    are: cells with equal keys need the same memory.

    Arguments:
      chunk_examples: see `Execution`; only a run shorter than one chunk has smaller arrays.
    """
    o, loss = cell.optimizer, cell.loss
    kept: dict[str, Any] = {
        name: ParamGroup(frozen=getattr(o, name).frozen)
        for name in ("image", "text", "loss_scalars")
    }
    if hasattr(o, "min_dim_size_to_factor"):
        kept["min_dim_size_to_factor"] = o.min_dim_size_to_factor
    optimizer = type(o)(clip_norm=None if o.clip_norm is None else 1.0, **kept)
    if isinstance(loss, Sigmoid):
        pairs = loss.pairs
        if isinstance(pairs, Negatives):
            pairs = dataclasses.replace(pairs, per_positive=1.0)
        loss = Sigmoid(b_init=None if loss.b_init is None else -10.0, pairs=pairs)
    else:
        loss = type(loss)()
    return dataclasses.replace(
        compile_key(cell),
        model=dataclasses.replace(cell.model, init=None),
        loss=loss,
        optimizer=optimizer,
        budget=Budget(steps=max(1, min(cell.steps, chunk_examples // cell.batch_size))),
    )
