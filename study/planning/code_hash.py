"""The code that a module depends on, as text: what a cached answer must be hashed with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGE = __name__.partition(".")[0]


def sources(module: str) -> dict[str, str]:
    """`module` and all modules of its package that it imports, at once, lazily or by others.

    The text is the syntax tree without comments and docstrings, for they change no program. It
    differs between versions of Python.
    """
    found: dict[str, str] = {}
    left = [module]
    while left:
        name = left.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        tree = ast.parse(path.read_text())
        if name != _PACKAGE:  # whose names load when first used
            left += [part for whole in _imported(tree) for part in _with_parents(whole)]
        found[name] = ast.dump(_undocumented(tree))
    return dict(sorted(found.items()))


def _file(name: str) -> Path | None:
    """None for a name that is no module of the package, as that of a function is."""
    if name.partition(".")[0] != _PACKAGE:
        return None
    base = _ROOT.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _undocumented(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree
