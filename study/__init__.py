"""One cell: what it is and how it is trained.

>>> from study import Budget, Cell, Execution, Sigmoid, train
>>> cell = Cell(batch_size=256, loss=Sigmoid(), budget=Budget(examples=65_536))
>>> train(cell, Execution(), folder=f"runs/mine/{cell.id}", group="mine")

It has the names of `study.config`, and `train` with its exception `Stopped`. They load when first
used, so `import study` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.config import *  # noqa: F403
    from study.training.loop import Stopped as Stopped
    from study.training.loop import train as train

_TRAINING = ("Stopped", "train")


def __getattr__(name: str) -> Any:
    if name in _TRAINING:
        return getattr(importlib.import_module("study.training.loop"), name)
    config = importlib.import_module("study.config")
    if name == "__all__":
        return sorted([*config.__all__, *_TRAINING])
    if name in config.__all__:
        return getattr(config, name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
