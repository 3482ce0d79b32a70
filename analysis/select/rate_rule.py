"""The rule by which the learning rate follows the batch size: its cells, and its description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.fields import most_complete, row_keys

RATE = "optimizer.learning_rate"
SEARCH = 3  # settings that one seed tries at one point if it searches for the best


def is_searching(cells: pd.DataFrame, setting: pd.Series, point: pd.Series) -> pd.Series:
    """Which cells are of a seed that searches: it tries at least `SEARCH` settings at most of its
    points."""
    tried = setting.groupby([cells["seed"], point]).nunique().groupby(level=0).median()
    searching: pd.Series = cells["seed"].isin(tried.index[tried >= SEARCH])
    return searching


def choose_rule(cells: pd.DataFrame, fields: Sequence[str], axes: Sequence[str]) -> pd.DataFrame:
    """The cells with one optimizer setting per batch size and loss: those of a rule, or of the
    setting that covers most points if it covers more.

    A study may hold a fixed setting and a rule, which share cells. At each point the rule is the
    setting that is not the fixed one, if there is another. Seeds that search (`is_searching`) are
    left out if there are others. If several settings are left at a point, the rule has the one
    whose learning rate is nearest to the rates at the other batch sizes, interpolated in log B.

    Args:
      fields: the columns of the optimizer.
      axes: the columns of batch size and loss.
    """
    if cells.empty:
        return cells
    recipe = pd.Series(row_keys(cells, fields), index=cells.index)
    point = pd.Series(row_keys(cells, axes), index=cells.index)
    searching = is_searching(cells, recipe, point)
    if not searching.all():
        cells, recipe, point = cells[~searching], recipe[~searching], point[~searching]
    fixed = most_complete(cells, fields, axes)
    constant = recipe.loc[fixed.index[0]]
    by_rule: dict[tuple[int, str], Any] = {}
    ambiguous: dict[tuple[int, str], list[Any]] = {}
    for at, group in recipe.groupby(point):
        others = [key for key in dict.fromkeys(group) if key != constant]
        if len(others) > 1:
            ambiguous[at] = list(dict.fromkeys(group))
        else:
            by_rule[at] = others[0] if others else constant
    rate = list(fields).index(RATE)
    nearest: dict[tuple[int, str], Any] = {}
    for (size, loss), candidates in ambiguous.items():
        known = sorted((b, key[rate]) for (b, kind), key in by_rule.items() if kind == loss)
        if not known:
            return fixed
        log_rate = np.interp(np.log(size), *np.log(np.array(known, float).T))
        nearest[size, loss] = min(
            candidates, key=lambda key: (abs(np.log(key[rate]) - log_rate), repr(key))
        )
    by_rule |= nearest
    ruled = cells[[by_rule[at] == key for at, key in zip(point, recipe, strict=True)]]
    covered = [len(set(row_keys(part, axes))) for part in (ruled, fixed)]
    return ruled if covered[0] >= covered[1] else fixed


def describe_rule(cells: pd.DataFrame, fields: Sequence[str]) -> str:
    """How the learning rate of these cells follows batch size and loss, in words."""
    varied = [f for f in fields if f.startswith("optimizer.") and f != RATE]
    varied = [f.removeprefix("optimizer.") for f in varied if cells[f].nunique(dropna=False) > 1]
    also = f", and {', '.join(varied)} with it" if varied else ""
    rules = {str(loss): _rule(same) for loss, same in cells.groupby("loss.kind")}
    if len({*rules.values()}) == 1:
        return f"learning rate {next(iter(rules.values()))}{also}"
    return (
        f"learning rate of {'; of '.join(f'{loss} {rule}' for loss, rule in rules.items())}{also}"
    )


def _rule(cells: pd.DataFrame) -> str:
    by_rate = {rate: sorted(set(group["batch_size"])) for rate, group in cells.groupby(RATE)}
    if len(by_rate) == 1:
        return f"{next(iter(by_rate)):.3g} throughout"
    sizes = cells["batch_size"].astype(float)
    for last in reversed(sorted(set(cells["batch_size"]))[1:]):
        roots = cells[RATE] / np.sqrt(np.minimum(sizes, last) / 256)
        if np.allclose(roots, roots.iloc[0], rtol=1e-6):
            size = "B" if last == sizes.max() else f"min(B, {last})"
            return f"{roots.iloc[0]:.3g} · sqrt({size} / 256)"
    at = sorted(by_rate.items(), key=lambda item: item[1])
    parts = [f"{rate:.3g} at B = {', '.join(str(b) for b in sizes)}" for rate, sizes in at]
    return f"by batch size: {'; '.join(parts)}"
