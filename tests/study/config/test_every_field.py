"""Every value that a cell or an execution is made of refuses what it does not know.

The classes are found by the type annotations, from `Cell` and `Execution` down, so that a class
added later is held to the same.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
import pytest

from study.config import Cell, CellError, Execution, from_dict
from study.config.cell import explain

UNKNOWN = "no_such_field"
NOT_FINITE = (math.nan, math.inf, -math.inf)


def choices(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone; without `Annotated`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for member in get_args(annotation) for one in choices(member)]
    return [annotation]


def hints(cls: type) -> dict[str, Any]:
    """The annotations of the fields of a dataclass."""
    found = get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def example(annotation: Any) -> Any:
    """A value of that type, as JSON has it."""
    kind = choices(annotation)[0]
    if dataclasses.is_dataclass(kind):
        return plain(kind)
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    return {str: "x", int: 2, float: 1.0}[kind]


def plain(cls: Any) -> dict[str, Any]:
    """The required fields of `cls`, or, where at least one of several is asked for, the first."""
    annotations = hints(cls)
    values = {
        field.name: example(annotations[field.name])
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    values |= {"kind": kind} if (kind := getattr(cls, "kind", None)) else {}
    try:
        cls(**values)
    except pydantic.ValidationError:
        name, annotation = next(item for item in annotations.items() if item[0] not in values)
        values[name] = example(annotation)
    return values


class Place:
    """A class, and how a dictionary of its fields becomes one of a whole cell or execution."""

    def __init__(self, cls: Any, parent: Place | None = None, field: str = "", many: bool = False):
        self.cls, self.parent, self.field, self.many = cls, parent, field, many

    def whole(self, values: dict[str, Any]) -> dict[str, Any]:
        if self.parent is None:
            return values
        inside = [values] if self.many else values
        return self.parent.whole(plain(self.parent.cls) | {self.field: inside})

    @property
    def root(self) -> Any:
        return self.cls if self.parent is None else self.parent.root


def reachable(place: Place) -> Iterator[Place]:
    yield place
    for name, annotation in hints(place.cls).items():
        for kind in choices(annotation):
            many = get_origin(kind) is tuple
            for inner in choices(get_args(kind)[0]) if many else [kind]:
                if dataclasses.is_dataclass(inner):
                    yield from reachable(Place(inner, place, name, many))


PLACES = [*reachable(Place(Cell)), *reachable(Place(Execution))]
CLASSES = {place.cls: place for place in PLACES}


def floats(cls: type) -> list[tuple[str, Any]]:
    """The fields that take a number that is not whole, and how one is written."""
    found = []
    for name, annotation in hints(cls).items():
        for kind in choices(annotation):
            if kind is float:
                found.append((name, lambda value: value))
            elif get_origin(kind) is tuple and float in choices(get_args(kind)[0]):
                found.append((name, lambda value: [1.0, value]))
    return found


def refusal(cls: Any, values: dict[str, Any]) -> str:
    """The message with which `cls` refuses the values as keywords."""
    with pytest.raises(pydantic.ValidationError) as caught:
        cls(**values)
    return explain(caught.value)


def refusal_from_dict(place: Place, values: dict[str, Any]) -> str:
    """The message with which `from_dict` refuses them inside a cell."""
    with pytest.raises(CellError) as caught:
        from_dict(place.whole(values))
    return str(caught.value)


def test_the_walk_finds_the_classes_of_every_union():
    names = {cls.__name__ for cls in CLASSES}
    assert {"Budget", "Negatives", "Corruption", "ParamGroup", "Lion", "CachedImage"} <= names
    assert len(CLASSES) > 20
    assert sum(len(floats(cls)) for cls in CLASSES) > 30


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_unknown_field_is_refused_by_name(cls):
    place, values = CLASSES[cls], plain(cls)
    said = [refusal(cls, values | {UNKNOWN: 1})]
    if place.root is Cell:
        said.append(refusal_from_dict(place, values | {UNKNOWN: 1}))
    for line in said:
        assert UNKNOWN in line and "no such field" in line and "\n" not in line


@pytest.mark.parametrize("number", NOT_FINITE, ids=str)
@pytest.mark.parametrize(
    ("cls", "name", "written"),
    [(cls, *field) for cls in CLASSES for field in floats(cls)],
    ids=lambda x: x if isinstance(x, str) else getattr(x, "__name__", ""),
)
def test_a_number_that_is_not_finite_is_refused_by_name(cls, name, written, number):
    place, values = CLASSES[cls], plain(cls) | {name: written(number)}
    said = [refusal(cls, values)]
    if place.root is Cell:
        said.append(refusal_from_dict(place, values))
    for line in said:
        assert f"{name} = " in line or f"{name}.1 = " in line
        assert "finite" in line and "\n" not in line
