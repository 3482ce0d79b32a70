"""Loads a study by name: a built-in one (`sweeps.grids`), or a grid file of the user's own.

A grid is a Python module that defines `study()`; its docstring opens with its launch command.

>>> load_study("demo").cells
>>> load_study("my_grid.py")
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
from sweeps.study import Study, StudyError, close_matches

# Where in `sweeps.grids` each built-in study is made: a module with a function `study`, or
# "module:function".
GRIDS = {
    "batch-warmup": "glyphs.batch_warmup",
    "beyond": "glyphs.beyond",
    "bias-init": "paper.bias_init",
    "critical-batch": "glyphs.critical_batch",
    "demo": "glyphs.demo",
    "demo-lr": "glyphs.demo_lr",
    "emoji": "emoji.all",
    "emoji-batch-size": "emoji.batch_size",
    "emoji-bottleneck": "emoji.bottleneck",
    "emoji-lr": "emoji.lr",
    "emoji-multilingual": "emoji.multilingual",
    "emoji-same-caption": "emoji.same_caption",
    "emoji-scratch": "emoji.scratch",
    "emoji-temperature": "emoji.temperature",
    "emoji-vocabulary": "emoji.vocabulary",
    "examples-vs-pairs": "paper.examples_vs_pairs",
    "fig-2-left": "paper.table_8:fig_2_left",
    "fig-2-middle": "paper.table_5:fig_2_middle",
    "fig-2-right": "paper.table_2:fig_2_right",
    "fig-3": "paper.table_8:fig_3",
    **{f"fig-{n}": f"paper.fig_{n}" for n in range(4, 8)},
    "fig-8": "paper.table_9:fig_8",
    "glyphs": "glyphs.all",
    "glyphs-batch-size": "glyphs.batch_size",
    "glyphs-beta2": "glyphs.beta2",
    "glyphs-bias": "glyphs.bias",
    "glyphs-composition": "glyphs.composition",
    "glyphs-constant-rate": "glyphs.constant_rate",
    "glyphs-examples-vs-pairs": "glyphs.examples_vs_pairs",
    "glyphs-lr": "glyphs.lr",
    "glyphs-noise": "glyphs.noise",
    "glyphs-noise-causes": "glyphs.noise_causes",
    "glyphs-noise-scenes": "glyphs.noise_scenes",
    "glyphs-pairs-lr": "glyphs.pairs_lr",
    "glyphs-pretrained": "glyphs.pretrained",
    "glyphs-scratch": "glyphs.scratch",
    "glyphs-scratch-lr": "glyphs.scratch_lr",
    "largest-batch": "glyphs.largest_batch",
    "lr-by-batch": "paper.lr_by_batch",
    "pairs-beyond": "glyphs.pairs_beyond",
    "paper": "paper.all",
    "scaling-rules": "glyphs.scaling_rules",
    **{f"table-{n}": f"paper.table_{n}" for n in range(1, 10)},
}


def builtin_studies() -> list[str]:
    """Names of the built-in studies, sorted."""
    return sorted(GRIDS)


def load_study(name: str) -> Study:
    """Loads the built-in study `name`, or the study of a grid file (a path ending in .py).

    Raises:
      StudyError: no such study, or its module is broken.
    """
    if name.endswith(".py") or "/" in name:
        return _load_file(Path(name))
    name = name.replace("_", "-")
    if name not in GRIDS:
        nearest = close_matches(name, GRIDS)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise StudyError(
            f"no study {name!r}; {hint}`study list` shows them all; "
            "or give the path of your own grid file (.py)"
        )
    module, _, function = GRIDS[name].partition(":")
    return _call_study(importlib.import_module(f"sweeps.grids.{module}"), name, function or "study")


def _load_file(path: Path) -> Study:
    if not path.is_file():
        raise StudyError(f"no grid file {path}; `study list` shows the built-in studies")
    spec = importlib.util.spec_from_file_location(f"grid_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a grid file may be a script that exits
        raise _grid_error(path, error) from error
    return _call_study(module, str(path))


def _call_study(module: Any, name: str, function_name: str = "study") -> Study:
    function = getattr(module, function_name, None)
    if not callable(function):
        raise StudyError(f"{name} defines no function study() that returns a sweeps.Study")
    try:
        study = function()
    except StudyError:
        raise
    except Exception as error:
        raise _grid_error(Path(module.__file__), error) from error
    if not isinstance(study, Study):
        raise StudyError(f"{name}: study() returned a {type(study).__name__}, not a Study")
    return study


def _grid_error(path: Path, error: BaseException) -> StudyError:
    """The error in one line that starts with the line of the grid file that raised it."""
    where = str(path)
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        if lines := [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]:
            where = f"{path}:{lines[-1]}"
    if isinstance(error, pydantic.ValidationError):
        return StudyError(f"{where}: {explain(error).splitlines()[0]}")
    return StudyError(f"{where}: {format_error(error, max_chars=1000)}")
