"""A study: a named set of cells that answers one question."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.config import Budget, Cell, Execution, to_dict
from study.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

By = Literal["pairs", "examples"]


class StudyError(UserError, ValueError):
    """A study that cannot be found, read or run; the message is one line with a remedy."""


@dataclass(frozen=True)
class Assumption:
    """A setting that the paper leaves open or states twice: the value chosen here, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Cells declared to see equally many pairs, or equally many examples; `Study` checks it.

    A run ends with a whole step, so totals may differ by less than one step of either cell.
    `match_budget` computes the budget that makes one cell match another.
    """

    by: By
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A named set of cells that answers one question.

    Attributes:
      name: letters, digits, ".", "_" and "-".
      question: one line.
      cells: all different.
      execution: how and where cells run: one value for all, or a function of the cell.
      prepare: writes what is missing of the data set under the data root; a function, or
        "module:function", which is imported only when it is needed. It is called with the data
        root, and with `progress(what, done, total)` and `cells` (those that will run) if it has
        parameters of these names.
      paper: the figure, table or section of the paper that the study reproduces, or "".
      assumptions: the choices made where the paper is silent.
      hardware: the chips and days that the paper reports, if it does.
      group: the folder under the record root, and wandb's group; the study's name by default.
        Studies that share cells (Fig. 3 is rows of Table 8) share a group, so that each cell is
        trained once.
      seconds: estimates a cell's time on one CPU core, from measurements; None if unknown.
      matched: cells declared to see equally many pairs or examples.

    Raises:
      StudyError: no cells, equal cells, a name that cannot be a folder, or `matched` cells that
        do not match.
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
        for field, name in (("name", self.name), ("group", self.group)):
            if not _NAME.fullmatch(name):
                raise StudyError(
                    f"study {field} {name!r}: use letters, digits, '.', '_' and '-' only, "
                    "because it names a folder"
                )
        object.__setattr__(self, "cells", tuple(self.cells))
        for cell in self.cells:
            if not isinstance(cell, Cell):
                raise StudyError(f"study {self.name}: {cell!r} is not a Cell")
        if not self.cells:
            raise StudyError(f"study {self.name} has no cells")
        counts = Counter(cell.id for cell in self.cells)
        if repeated := [cell_id for cell_id, n in counts.items() if n > 1]:
            raise StudyError(
                f"study {self.name}: {len(repeated)} cells appear more than once ({repeated[0]}); "
                "every cell of a study differs from the others in some field"
            )
        for label in self.matched:
            if error := _check_matched(label, counts):
                raise StudyError(f"study {self.name}: {error}")

    @functools.cached_property
    def run_names(self) -> dict[str, str]:
        """The name of each cell's run in wandb, by cell id: what varies within this study."""
        return run_names(self.cells)

    def execution_of(self, cell: Cell) -> Execution:
        return self.execution if isinstance(self.execution, Execution) else self.execution(cell)

    def folder(self, root: Any) -> Any:
        """The folder of the study's records under `root`, a path; its group shares it."""
        return root / self.group

    @property
    def data_root(self) -> str:
        """The folder of the data sets, which all cells share."""
        return self.execution_of(self.cells[0]).data_root

    def cell(self, name: str) -> Cell:
        """The cell whose id is `name`, or the only one whose id starts with `name`.

        Raises:
          StudyError: no cell matches, or several do.
        """
        by_id = {cell.id: cell for cell in self.cells}
        if name in by_id:
            return by_id[name]
        matches = [cell_id for cell_id in by_id if cell_id.startswith(name)]
        if len(matches) == 1:
            return by_id[matches[0]]
        if matches:
            raise StudyError(
                f"{name!r} matches {len(matches)} cells of {self.name}: {abbreviate(matches)}; "
                "write more of the id"
            )
        nearest = close_matches(name, by_id) or list(by_id)
        raise StudyError(
            f"study {self.name} has no cell {name!r}; nearest: {abbreviate(nearest)} "
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
    flat = {cell.id: flatten(to_dict(cell)) for cell in cells}
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


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of nested dictionaries, by dotted path."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat


def count_seen(cell: Cell, by: By) -> int:
    """How many pairs or examples a whole run of `cell` sees."""
    return cell.pairs_seen(cell.steps) if by == "pairs" else cell.examples


def count_per_step(cell: Cell, by: By) -> int:
    return cell.pairs_per_step if by == "pairs" else cell.batch_size


def match_budget(like: Cell, by: By) -> Budget:
    """The budget with which another cell sees as many pairs, or examples, as `like`."""
    if by == "pairs":
        return Budget(pairs=count_seen(like, by))
    return Budget(examples=count_seen(like, by))


def _check_matched(label: Matched, ids: Iterable[str]) -> str | None:
    """Returns what is wrong with a `Matched` of a study with cells `ids`, in one line, or None."""
    if len(label.cells) < 2:
        return f"matched in {label.by}: give two cells or more"
    if missing := [cell.id for cell in label.cells if cell.id not in ids]:
        return f"matched in {label.by}: {missing[0]} is not a cell of the study"
    first, *others = label.cells
    for other in others:
        a, b = count_seen(first, label.by), count_seen(other, label.by)
        if abs(a - b) >= max(count_per_step(first, label.by), count_per_step(other, label.by)):
            return (
                f"{first.id} and {other.id} are declared to match in {label.by}, but have {a:,} "
                f"and {b:,} ({first.steps:,} and {other.steps:,} steps); give the second "
                f"budget=Budget({label.by}={a})"
            )
    return None


def merge_cells(studies: Sequence[Study]) -> tuple[Cell, ...]:
    """The cells of all studies, each once."""
    return tuple({cell.id: cell for study in studies for cell in study.cells}.values())


def close_matches(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that `name` may be a typo of."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def abbreviate(items: Sequence[str], most: int = 3) -> str:
    """The first `most` items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
