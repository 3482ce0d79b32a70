"""A study: a named set of cells that answers one question."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from study.config.cell import Cell, Execution, to_dict
from sweeps.matched import Matched, check

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StudyError(ValueError):
    """A study that cannot be found, read or run; the message says what to do."""


@dataclass(frozen=True)
class Assumption:
    """A choice that the paper does not state (or states twice), what was taken, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A named set of cells that answers one question.

    Attributes:
      name: letters, digits, ".", "_" and "-".
      question: one line.
      cells: no two alike.
      execution: how and where its cells run: the same for all, or a function of the cell.
      prepare: makes the data set under the data root it is given, if it is not there yet; a
        function, or "module:function" so that listing studies need not import it. If it has a
        parameter `progress`, that is called with what is done, how much, and of how much; if it
        has one `cells`, it is given those that will run.
      paper: the figure, table or section of the paper it belongs to, or "".
      assumptions: what its settings rest on where the paper says nothing.
      hardware: chips and days that the paper used, where it says so.
      group: the folder under the root of all records that holds those of its cells; its own name
        if not given. Studies that share cells (Fig. 3 is rows of Table 8) share a folder, so that
        a cell is trained once and found by each.
      seconds: a cell's time on one CPU core, by what was measured; None where nobody knows.
      matched: cells that are said to see equally many pairs, or examples.

    Raises:
      StudyError: no cells, equal cells, a name that cannot be a folder, or cells that are said to
        match and do not.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    execution: Execution | Callable[[Cell], Execution] = dataclasses.field(
        default_factory=Execution
    )
    prepare: str | Callable[..., object] | None = None
    paper: str = ""
    assumptions: tuple[Assumption, ...] = ()
    hardware: str = ""
    group: str = ""
    seconds: Callable[[Cell], float] | None = None
    matched: tuple[Matched, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.name)
        for what, name in (("name", self.name), ("group", self.group)):
            if not _NAME.fullmatch(name):
                raise StudyError(
                    f"study {what} {name!r}: use letters, digits, '.', '_' and '-' only, "
                    "because it names a folder"
                )
        object.__setattr__(self, "cells", tuple(self.cells))
        for cell in self.cells:
            if not isinstance(cell, Cell):
                raise StudyError(f"study {self.name}: {cell!r} is not a Cell")
        if not self.cells:
            raise StudyError(f"study {self.name} has no cells")
        twice = [cell_id for cell_id, n in Counter(c.id for c in self.cells).items() if n > 1]
        if twice:
            raise StudyError(
                f"study {self.name}: {len(twice)} cells appear more than once ({twice[0]}); "
                "every cell of a study differs from the others in some field"
            )

        if said := check(self.matched, self.cells):
            raise StudyError(f"study {self.name}: {said}")

    @functools.cached_property
    def run_names(self) -> dict[str, str]:
        """The name of each cell's run in wandb, by cell id: what varies within this study."""
        return run_names(self.cells)

    def execution_of(self, cell: Cell) -> Execution:
        return self.execution if isinstance(self.execution, Execution) else self.execution(cell)

    def folder(self, root: Any) -> Any:
        """Where under `root`, a path, its records lie; those of other studies may lie there too."""
        return root / self.group

    @property
    def data_root(self) -> str:
        """The folder of the data sets, which all cells share."""
        return self.execution_of(self.cells[0]).data_root

    def cell(self, name: str) -> Cell:
        """The cell with this id, or with an id that starts with `name`.

        Raises:
          StudyError: no cell, or several.
        """
        ids = {cell.id: cell for cell in self.cells}
        if name in ids:
            return ids[name]
        found = [cell_id for cell_id in ids if cell_id.startswith(name)]
        if len(found) == 1:
            return ids[found[0]]
        if found:
            raise StudyError(
                f"{name!r} begins {len(found)} cells of {self.name}: {some(found)}; "
                "write more of it"
            )
        near = nearest(name, ids)
        raise StudyError(
            f"study {self.name} has no cell {name!r}; nearest: {some(near or list(ids))} "
            "(study status shows all of them)"
        )


def run_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Short names for cells that are compared with each other, by cell id.

    A name has the batch size, the loss, the budget and the seed, and between them each further
    field that tells two cells apart, unless its value is that of most cells:
    "b512 sigmoid 450M s0", "b16384 sigmoid 5B b2=0.95 s0".
    """
    groups = {cell.id: _base_name(cell) for cell in cells}
    extras: dict[str, str] = dict.fromkeys(groups, "")
    flat = {cell.id: _flatten(to_dict(cell)) for cell in cells}
    for path in dict.fromkeys(path for fields in flat.values() for path in fields):
        values = {key: _format(fields.get(path)) for key, fields in flat.items()}
        split = {key: f"{group} {values[key]}" for key, group in groups.items()}
        if path in _IN_BASE_NAME or len(set(split.values())) == len(set(groups.values())):
            continue
        groups = split
        label = re.sub(r"^(model|data|optimizer)\.(?!kind)", "", path)
        usual, count = Counter(values.values()).most_common(1)[0]
        for key, value in values.items():
            if value != usual or count <= len(cells) / 2:
                extras[key] += f" {label}={value}"
    return {cell.id: f"{_base_name(cell)}{extras[cell.id]} s{cell.seed}" for cell in cells}


_IN_BASE_NAME = {
    *("batch_size", "seed", "loss.kind", "loss.pairs.keep", "loss.pairs.per_positive"),
    *("loss.pairs.size", "budget.examples", "budget.pairs", "budget.steps"),
}


def _base_name(cell: Cell) -> str:
    parts = (f"b{cell.batch_size}", cell.loss.kind, cell.pairs.tag, cell.budget.label)
    return " ".join(part for part in parts if part)


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of nested dictionaries, by dotted path."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= (
            _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
        )
    return flat


def union(studies: Sequence[Study]) -> tuple[Cell, ...]:
    """The cells of all of them, each once."""
    return tuple({cell.id: cell for study in studies for cell in study.cells}.values())


def nearest(name: str, known: Any) -> list[str]:
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)


def some(items: Sequence[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
