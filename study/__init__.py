"""One cell: what it is and how it is trained.

>>> from study import Budget, Cell, Execution, Sigmoid, train
>>> cell = Cell(batch_size=256, loss=Sigmoid(), budget=Budget(examples=65_536))
>>> train(cell, Execution(), folder=f"runs/mine/{cell.id}", group="mine")

The names load when first used, so that `import study` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.config.budget import Budget
    from study.config.cell import (
        Adafactor,
        Adam,
        CachedImage,
        Cell,
        CellError,
        Corruption,
        Data,
        Execution,
        FewShot,
        FixedLoss,
        Model,
        Multilingual,
        Part,
        Retrieval,
        Sigmoid,
        Softmax,
        TextAverage,
        TextTransformer,
        ViT,
        ZeroShot,
    )
    from study.config.pairs import AllPairs, Groups, Negatives
    from study.training.loop import Stopped, train

_ROOMS = {
    "study.config.budget": ("Budget",),
    "study.config.cell": (
        *("Adafactor", "Adam", "CachedImage", "Cell", "CellError", "Corruption", "Data"),
        *("Execution", "FewShot", "FixedLoss", "Model", "Multilingual", "Part", "Retrieval"),
        *("Sigmoid", "Softmax", "TextAverage", "TextTransformer", "ViT", "ZeroShot"),
    ),
    "study.config.pairs": ("AllPairs", "Groups", "Negatives"),
    "study.training.loop": ("Stopped", "train"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Adafactor",
    "Adam",
    "AllPairs",
    "Budget",
    "CachedImage",
    "Cell",
    "CellError",
    "Corruption",
    "Data",
    "Execution",
    "FewShot",
    "FixedLoss",
    "Groups",
    "Model",
    "Multilingual",
    "Negatives",
    "Part",
    "Retrieval",
    "Sigmoid",
    "Softmax",
    "Stopped",
    "TextAverage",
    "TextTransformer",
    "ViT",
    "ZeroShot",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
