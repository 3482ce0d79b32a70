"""Selects and varies the cells of a study: `--only` and `--set`."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Callable, Sequence
from typing import Any

import pydantic

from study.config import Cell, CellError, Execution, replace
from study.config.cell import all_fields, explain
from sweeps.study import Study, StudyError, abbreviate


def select(study: Study, *, settings: Sequence[str] = (), only: Sequence[str] = ()) -> Study:
    """Applies `settings` to every cell of `study`, then keeps the cells that match `only`.

    Arguments:
      settings: "FIELD=VALUE", such as "optimizer.b2=0.999"; VALUE is JSON, or else a string.
        "execution.FIELD=VALUE" changes how cells run.
      only: "b512*", the beginning of a cell id or a glob, or "batch_size=256,512", a field and
        its values ("!=" for all other values). A cell is kept if it matches any of the ids and
        all of the fields.

    Raises:
      StudyError: a field does not exist, or no cell is left.
      CellError: a value that the field does not allow.
    """
    cells = list(study.cells)
    execution: Callable[[Cell], Execution] = study.execution_of
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise StudyError(
                f"--set {setting}: write FIELD=VALUE, such as --set optimizer.b2=0.999"
            )
        value = _parse(text)
        if field.startswith("execution."):
            execution = _set_execution(execution, field.removeprefix("execution."), value)
            execution(cells[0])  # reports a bad value now rather than when a cell starts
            continue
        try:
            cells = [replace(cell, field, value) for cell in cells]
        except CellError as error:
            line = str(error).splitlines()[0]
            raise CellError(line if line.startswith("--set") else f"--set {setting}: {line}") from (
                None
            )
    ids = [cell.id for cell in cells]
    patterns = [pattern for pattern in only if "=" not in pattern]
    for condition in (c for c in only if "=" in c):
        cells = _filter(study, cells, condition)
    if patterns:
        cells = [
            cell
            for cell in cells
            if any(cell.id.startswith(p) or fnmatch.fnmatchcase(cell.id, p) for p in patterns)
        ]
        if not cells:
            raise StudyError(
                f"--only {' '.join(patterns)} matches no cell; cells are {abbreviate(ids)}"
            )
    unique = tuple({cell.id: cell for cell in cells}.values())
    # Cells of a part or a variation need not match as those of the whole study do.
    matched = study.matched if not only and not settings else ()
    return dataclasses.replace(study, cells=unique, execution=execution, matched=matched)


def matching_ids(study: Study, patterns: Sequence[str]) -> list[str]:
    """Ids of the cells that match any of `patterns` (as for `--only`), in the patterns' order.

    Raises:
      StudyError: a pattern matches no cell.
    """
    ids = [c.id for pattern in patterns for c in select(study, only=[pattern]).cells]
    return list(dict.fromkeys(ids))


def _filter(study: Study, cells: list[Cell], condition: str) -> list[Cell]:
    """The cells for which "FIELD=VALUE,VALUE" or "FIELD!=VALUE,VALUE" holds."""
    field, _, text = condition.partition("=")
    negated = field.endswith("!")
    field = field.removesuffix("!")
    allowed = [*map(_parse, text.split(",")), *text.split(",")]
    values = {cell.id: field_of(cell, field) for cell in cells}
    values = {cell_id: value for cell_id, value in values.items() if value is not MISSING}
    if not values:
        raise StudyError(
            f"--only {condition}: no cell of {study.name} has a single value at {field!r}; "
            "write the field as in cell.json, such as batch_size=512 or loss.kind=sigmoid"
        )
    kept = [c for c in cells if c.id in values and (values[c.id] in allowed) != negated]
    if not kept:
        known = ", ".join(dict.fromkeys(map(str, values.values())))
        raise StudyError(f"--only {condition} matches no cell; {field} is one of: {known}")
    return kept


MISSING = object()


def field_of(cell: Cell, path: str) -> Any:
    """The value at a dotted path of cell.json; `MISSING` if there is none or it has parts."""
    node: Any = all_fields(cell)
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return MISSING
        node = node[part]
    return MISSING if isinstance(node, dict | list) else node


def _set_execution(
    execution: Callable[[Cell], Execution], field: str, value: Any
) -> Callable[[Cell], Execution]:
    def changed(cell: Cell) -> Execution:
        fields = vars(execution(cell))
        if field not in fields:
            raise StudyError(
                f"--set execution.{field}: no such field; fields are {', '.join(fields)}"
            )
        try:
            return Execution(**{**fields, field: value})
        except pydantic.ValidationError as error:
            raise StudyError(f"--set execution.{explain(error).splitlines()[0]}") from None

    return changed


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
