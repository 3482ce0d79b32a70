"""A few parameters, and the updates that a cell's optimizer makes of given gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from study.config import Adam, Budget, Cell
from study.config.schedule import schedule
from study.training.optimizer import optimizer, read_rates

PARAMS = {
    "img": {"head": {"kernel": jnp.array([[4.0]])}},
    "txt": {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([3.0])},
    "t": jnp.ones(1),
}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


def cell(kind=Adam, **optimizer):
    values = {"schedule": "constant", "clip_norm": None, "learning_rate": 0.1, "weight_decay": 0.0}
    return Cell(batch_size=10, budget=Budget(steps=100), optimizer=kind(**values | optimizer))


def updates(c, *grads, params=PARAMS):
    """The update of the last of these gradients, parameters held where they are."""
    tx = optimizer(c)
    state = tx.init(params)
    for step, g in enumerate(grads):
        rates, factor = read_rates(c), schedule(c)(step)
        update, state = tx.update(g, state, params, rates=rates, factor=factor)
    return update
