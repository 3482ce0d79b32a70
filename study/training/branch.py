"""The state of a branch at its start: from a checkpoint of another cell (`study.config.Branch`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from study.config import Cell
from study.models.two_towers import temperature
from study.records.record import RecordError
from study.records.storage import format_error
from study.training.checkpoint import orbax_path, saved_steps
from study.training.compile import TrainProgram
from study.training.step import Interval, State


def start_branch(cell: Cell, program: TrainProgram, folder: Path) -> State:
    """The parent's state, as step 0 of the branch.

    Arguments:
      folder: the record of the branch, beside that of its parent.

    Raises:
      RecordError: no such checkpoint, or it cannot be read or has other arrays; one line.
    """
    assert cell.branch is not None
    checkpoints = folder.parent / cell.branch.cell / "checkpoints"
    state: State = _load_step(checkpoints, cell.branch.step, program.state)
    own: Any = {
        "step": np.int32(0),
        "seed": np.uint32(cell.seed),
        "interval": jax.tree.map(np.asarray, Interval.empty()),
    }
    if cell.branch.bias_shift:
        own["params"] = _shift_bias(state.params, cell.branch.bias_shift)
    shardings = program.shardings
    return state._replace(**{k: jax.device_put(v, getattr(shardings, k)) for k, v in own.items()})


def _shift_bias(params: Any, shift: float) -> Any:
    """The parameters with `study.models.two_towers.bias` raised by `shift`."""
    if "r" in params:
        return params | {"r": params["r"] - shift / temperature(params)}
    return params | {"b": params["b"] + shift}


def _load_step(folder: Path, step: int, like: Any) -> Any:
    """The state of one step in the checkpoints of another cell, which may be training.

    Arguments:
      like: as for `Checkpoints.restore`.

    Raises:
      RecordError: no such checkpoint, or it cannot be read or has other arrays; one line.
    """
    steps = saved_steps(folder)
    if step not in steps:
        raise RecordError(
            f"{folder} has no checkpoint of step {step} (it has: "
            f"{', '.join(map(str, steps)) or 'none'}); train that cell first, with "
            "execution.keep_every_percent so that it keeps this step"
        )
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with ocp.CheckpointManager(orbax_path(folder), options=options) as manager:
            return manager.restore(step, args=ocp.args.StandardRestore(abstract))
    except Exception as error:  # Orbax and TensorStore raise many types
        raise RecordError(
            f"{folder}: checkpoint {step} does not fit ({format_error(error)}); a branch has its "
            "parent's towers, loss scalars and optimizer"
        ) from error
