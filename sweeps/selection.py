"""A part or a variation of a study: `--only` and `--set`."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Callable, Sequence
from typing import Any

import pydantic

from study.config.cell import Cell, CellError, Execution, explain, replace, to_dict
from sweeps.study import Study, StudyError, some


def select(study: Study, *, settings: Sequence[str] = (), only: Sequence[str] = ()) -> Study:
    """`study` with `--set field=value` applied to all cells, then only those that match.

    Arguments:
      settings: "optimizer.b2=0.999"; the value is JSON, or else a string. A field that begins
        with "execution." sets how cells run.
      only: "b512*" (the beginning of an id, or a glob; several are alternatives) or
        "batch_size=256,512" (a field and its values; "!=" for all others; several must all hold).

    Raises:
      StudyError: no such field, or nothing is left.
      CellError: a value that a cell cannot have.
    """
    cells = list(study.cells)
    execution: Callable[[Cell], Execution] = study.execution_of
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise StudyError(
                f"--set {setting}: write field=value, such as --set optimizer.b2=0.999"
            )
        value = _value(text)
        if field.startswith("execution."):
            execution = _set_execution(execution, field.removeprefix("execution."), value)
            execution(cells[0])  # what is wrong is said here, not when a cell starts
            continue
        try:
            cells = [replace(cell, field, value) for cell in cells]
        except CellError as error:
            lines = str(error).splitlines()
            said = lines[0] if lines[0].startswith("--set") else f"--set {setting}: {lines[0]}"
            raise CellError(said) from None
    for pattern in (p for p in only if "=" in p):
        cells = _filter(study, cells, pattern)
    globs = [p for p in only if "=" not in p]
    if globs:
        ids = [cell.id for cell in cells]
        cells = [c for c in cells if any(_matches(c.id, glob) for glob in globs)]
        if not cells:
            raise StudyError(f"--only {' '.join(globs)} matches no cell; there are {some(ids)}")
    unique = tuple({cell.id: cell for cell in cells}.values())
    # What is only a part, or another cell, is not held to what the whole says of its cells.
    kept = study.matched if not only and not settings else ()
    return dataclasses.replace(study, cells=unique, execution=execution, matched=kept)


def matching(study: Study, patterns: Sequence[str]) -> list[str]:
    """Ids of the cells that match any of `patterns`, as `--first` wants them: by pattern.

    Raises:
      StudyError: a pattern matches no cell.
    """
    found = [c.id for pattern in patterns for c in select(study, only=[pattern]).cells]
    return list(dict.fromkeys(found))


def _filter(study: Study, cells: list[Cell], pattern: str) -> list[Cell]:
    path, _, text = pattern.partition("=")
    path, other = path.removesuffix("!"), path.endswith("!")
    wanted = [_value(part) for part in text.split(",")]
    kept, seen = [], []
    for cell in cells:
        node: Any = to_dict(cell)
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                break
            node = node[part]
        else:
            if not isinstance(node, dict | list):
                seen.append(node)
            if (node in wanted or str(node) in text.split(",")) != other:
                kept.append(cell)
    if not seen:
        raise StudyError(
            f"--only {pattern}: no cell of {study.name} has a single value at {path!r}; "
            "write the field as in cell.json, such as batch_size=512 or loss.kind=sigmoid"
        )
    if not kept:
        values = ", ".join(dict.fromkeys(str(value) for value in seen))
        raise StudyError(f"--only {pattern} matches no cell; {path} is one of: {values}")
    return kept


def _set_execution(
    execution: Callable[[Cell], Execution], field: str, value: Any
) -> Callable[[Cell], Execution]:
    def changed(cell: Cell) -> Execution:
        known = vars(execution(cell))
        if field not in known:
            there = ", ".join(known)
            raise StudyError(f"--set execution.{field}: no such field; there are {there}")
        try:
            return Execution(**{**known, field: value})
        except pydantic.ValidationError as error:
            raise StudyError(f"--set execution.{explain(error).splitlines()[0]}") from None

    return changed


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _matches(cell_id: str, pattern: str) -> bool:
    return cell_id.startswith(pattern) or fnmatch.fnmatchcase(cell_id, pattern)
