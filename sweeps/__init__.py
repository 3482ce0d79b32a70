"""Many cells: studies, what they would take, and how they run.

>>> from sweeps import Study, load_study
>>> load_study("demo").cells
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.registry import find as load_study
    from sweeps.study import Assumption, Study, StudyError

_HOME = {
    "Assumption": ("sweeps.study", "Assumption"),
    "Study": ("sweeps.study", "Study"),
    "StudyError": ("sweeps.study", "StudyError"),
    "load_study": ("sweeps.registry", "find"),
}

__all__ = ["Assumption", "Study", "StudyError", "load_study"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, attribute = _HOME[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
