"""Many cells: studies, what they would cost, and how they run.

>>> from sweeps import load_study, run
>>> run(load_study("demo")).states

The names load when first used, so that `import sweeps` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.registry import builtin_studies, load_study
    from sweeps.runner.run import Result, run
    from sweeps.study import Assumption, Matched, Study, StudyError

_MODULES = {
    "Assumption": "sweeps.study",
    "Matched": "sweeps.study",
    "Result": "sweeps.runner.run",
    "Study": "sweeps.study",
    "StudyError": "sweeps.study",
    "builtin_studies": "sweeps.registry",
    "load_study": "sweeps.registry",
    "run": "sweeps.runner.run",
}

__all__ = [
    "Assumption",
    "Matched",
    "Result",
    "Study",
    "StudyError",
    "builtin_studies",
    "load_study",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
