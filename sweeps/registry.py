"""Finds a study by name: built in (`sweeps.grids`), or in a file of the user's own.

A grid is a Python module that defines `study()`; its docstring opens with its launch command.

>>> find("demo").cells
>>> find("my_grid.py")
"""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

import pydantic

from study.config.cell import explain
from study.records.storage import format_error
from sweeps.study import Study, StudyError, nearest

# The module in `sweeps.grids` of each built-in study.
GRIDS = {
    "bias-init": "paper.bias_init",
    "demo": "glyphs.demo",
    "demo-lr": "glyphs.demo_lr",
    "examples-vs-pairs": "paper.examples_vs_pairs",
    **{
        f"fig-{n}": f"paper.fig_{n.replace('-', '_')}"
        for n in ("2-left", "2-middle", "2-right", "3", "4", "5", "6", "7", "8")
    },
    "glyphs": "glyphs.all",
    "glyphs-batch-size": "glyphs.batch_size",
    "glyphs-beta2": "glyphs.beta2",
    "glyphs-bias": "glyphs.bias",
    "glyphs-composition": "glyphs.composition",
    "glyphs-examples-vs-pairs": "glyphs.examples_vs_pairs",
    "glyphs-lr": "glyphs.lr",
    "glyphs-noise": "glyphs.noise",
    "glyphs-noise-causes": "glyphs.noise_causes",
    "glyphs-noise-scenes": "glyphs.noise_scenes",
    "glyphs-pretrained": "glyphs.start_from_pretrained",
    "glyphs-scratch": "glyphs.scratch",
    "largest-batch": "glyphs.largest_batch",
    "lr-by-batch": "paper.lr_by_batch",
    "paper": "paper.all",
    **{f"table-{n}": f"paper.table_{n}" for n in range(1, 10)},
}


def names() -> list[str]:
    """The built-in studies, in alphabetical order."""
    return sorted(GRIDS)


def find(name: str) -> Study:
    """The built-in study `name`, or the study of a grid file.

    Raises:
      StudyError: there is none, or its module is broken.
    """
    if name.endswith(".py") or "/" in name:
        return _from_file(Path(name))
    known = names()
    name = name.replace("_", "-")
    if name not in known:
        near = nearest(name, known)
        guess = f"did you mean {near[0]}? " if near else ""
        raise StudyError(
            f"no study {name!r}; {guess}there are: {', '.join(known) or 'none'}; "
            "or give the path of your own grid file (.py)"
        )
    return _call(importlib.import_module(f"sweeps.grids.{GRIDS[name]}"), name)


def _from_file(path: Path) -> Study:
    if not path.is_file():
        raise StudyError(f"no grid file {path}; built-in studies: {', '.join(names()) or 'none'}")
    spec = importlib.util.spec_from_file_location(f"grid_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends by itself is no grid
        raise _broken(path, error) from error
    return _call(module, str(path))


def _call(module: Any, name: str) -> Study:
    make = getattr(module, "study", None)
    if not callable(make):
        raise StudyError(f"{name} defines no function study() that returns a sweeps.study.Study")
    try:
        made = make()
    except StudyError:
        raise
    except Exception as error:
        raise _broken(Path(module.__file__), error) from error
    if not isinstance(made, Study):
        raise StudyError(f"{name}: study() returned a {type(made).__name__}, not a Study")
    return made


def _broken(path: Path, error: BaseException) -> StudyError:
    said = (
        explain(error).splitlines()[0]
        if isinstance(error, pydantic.ValidationError)
        else format_error(error, max_chars=1000)
    )
    return StudyError(f"{_where(error, path)}: {said}")


def _where(error: BaseException, path: Path) -> str:
    """The last line of the user's own file that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename).resolve() == path.resolve()
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)
