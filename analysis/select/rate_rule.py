"""One recipe for each batch size and loss of a panel: which cells follow it, and how to say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.fields import most_complete, row_keys

RATE = "optimizer.learning_rate"
SEARCH = 3  # settings of one seed at one point: more than a fixed one and a rule


def choose_rule(cells: pd.DataFrame, fields: Sequence[str], axes: Sequence[str]) -> pd.DataFrame:
    """One optimizer setting per batch size and loss: by a rule, else the same for all.

    A study that holds a fixed setting and a rule side by side may share cells between them. The
    rule is what is left at each point once the fixed setting is taken out where it is not the
    only one. A seed that tries several settings at most of its points is one of a search for the
    best, and left out where there are others. Where several are left all the same, the one whose
    rate lies nearest to those of the other batch sizes is the rule's.

    Args:
      fields: of the optimizer.
      axes: batch size and loss.
    """
    if cells.empty:
        return cells
    recipe = pd.Series(row_keys(cells, fields), index=cells.index)
    point = pd.Series(row_keys(cells, axes), index=cells.index)
    tried = recipe.groupby([cells["seed"], point]).nunique().groupby(level=0).median()
    searching = cells["seed"].isin(tried.index[tried >= SEARCH])
    if not searching.all():
        cells, recipe, point = cells[~searching], recipe[~searching], point[~searching]
    fixed = most_complete(cells, fields, axes)
    constant = recipe.loc[fixed.index[0]]
    by_rule: dict[tuple[int, str], Any] = {}
    several: dict[tuple[int, str], list[Any]] = {}
    for where, group in recipe.groupby(point):
        others = [key for key in dict.fromkeys(group) if key != constant]
        if len(others) > 1:
            several[where] = list(dict.fromkeys(group))
        else:
            by_rule[where] = others[0] if others else constant
    rate = list(fields).index(RATE)
    for (size, loss), tried_here in several.items():
        known = sorted((b, key[rate]) for (b, kind), key in by_rule.items() if kind == loss)
        if not known:
            return fixed
        wanted = np.interp(np.log(size), *np.log(np.array(known, float).T))
        nearest = min(tried_here, key=lambda key: (abs(np.log(key[rate]) - wanted), repr(key)))
        several[size, loss] = [nearest]
    by_rule |= {where: nearest for where, (nearest,) in several.items()}
    follows = [by_rule[where] == key for where, key in zip(point, recipe, strict=True)]
    ruled = cells[follows]
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
