"""Selects the cells that a figure or a claim is about, by their fields and never by their names.

A panel holds one configuration. If a study has several that fit (a second learning-rate rule), the
one with most of the panel's points is taken; of several budgets see `batch_sizes`. `Panel.notes`
names the others: cells that differ in more than the panel's axes are never averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.record import FIELDS
from analysis.select.deciding import FEWEST_STEPS, steps_by_size, too_short
from analysis.select.fields import most_complete, row_keys, with_fields
from analysis.select.rate_rule import choose_rule, describe_rule

AXES_BATCH = ("batch_size", "loss.kind")
AXES_PAIRS = ("loss.pairs.keep", "loss.pairs.per_positive")
UNMASKED = ("all", -1.0)
MATCHED = "hard, matched pairs"
QUEUE = "loss.queue_examples"
PARTS = ("branch.cell", "optimizer.schedule_examples")  # known of the parts of runs alone
# Of the optimizer what no rule makes follow the batch size: runs of another kind are another panel.
SHARED = ("optimizer.kind", "optimizer.schedule")
NEAR = 0.05  # relative difference of equal totals: a run leaves out its last partial step


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Cells, finished or not, that differ in `axes` and the seed only.

    The learning rate, or another setting of the optimizer, may follow the batch size by a rule.

    Attributes:
      points: the combinations of the axes that a complete panel has.
      notes: what was left out, for a caption.
      longer: the unfinished cells of longer budgets, where too few have finished there.
    """

    cells: pd.DataFrame
    axes: tuple[str, ...]
    points: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()
    longer: tuple[str, ...] = ()

    @property
    def done(self) -> pd.DataFrame:
        return self.cells[self.cells["status"] == "done"]

    def missing(self) -> list[str]:
        """The cells that are not done, then the points without a record for one of the seeds.

        If the study's plan is known, only planned cells count.
        """
        missing = [*_undone(self.cells), *self.longer]
        if self.cells.attrs.get("planned"):
            return missing
        recorded = set(row_keys(self.cells, (*self.axes, "seed")))
        return missing + [
            f"no record of {_label(point)} seed {seed}"
            for point, seed in product(self.points, _levels(self.cells["seed"]))
            if (*point, seed) not in recorded
        ]


def _undone(cells: pd.DataFrame) -> list[str]:
    rows = row_keys(cells[cells["status"] != "done"], ("id", "status", "error"))
    return [f"{name} ({status}{f': {error}' if error else ''})" for name, status, error in rows]


def batch_sizes(cells: pd.DataFrame, *, image: str) -> Panel:
    """Sigmoid with all pairs and softmax at every batch size, same budget, towers and data.

    This is the panel of every figure, table and claim about batch size. Of several budgets in
    examples it is the longest with enough batch sizes, see `longest_budget`, as the paper's Fig. 2
    shows its longest.

    Args:
      image: `model.image.kind`, "cached" for SigLiT or "vit" for both towers from scratch.
    """
    by = by_budget(cells, image=image)
    budget = longest_budget({b: panel.cells for b, panel in by.items()})
    if budget is None:
        return one_configuration(_of_both_losses(plain(cells), image), image=image)
    notes = by[budget].notes
    if others := " and ".join(f"{other:,}" for other in sorted(set(by) - {budget})):
        notes = (*notes, f"not shown: the same after {others} examples")
    longer = [name for other in by if other > budget for name in _undone(by[other].cells)]
    return replace(by[budget], notes=notes, longer=tuple(longer))


def longest_budget(by_budget: Mapping[int, pd.DataFrame]) -> int | None:
    """The longest budget with half of the batch sizes, so that a few long runs do not replace a
    whole panel; None without budgets.

    A batch size counts at a budget where it is complete (`complete_sizes`). Half is of the sizes
    that count at any budget.
    """
    sizes = complete_sizes(by_budget)
    half = len(set().union(*sizes.values())) / 2
    return max((b for b, own in sizes.items() if len(own) >= half), default=None)


def complete_sizes(by_budget: Mapping[int, pd.DataFrame]) -> dict[int, set[int]]:
    """The batch sizes at each budget that have a finished cell of every loss of the study.

    Without finished cells, planned ones count.
    """
    finished = {b: cells[cells["status"] == "done"] for b, cells in by_budget.items()}
    if all(cells.empty for cells in finished.values()):
        finished = dict(by_budget)
    losses = {loss for cells in finished.values() for loss in cells["loss.kind"]}
    return {
        b: {
            int(size)
            for size, kinds in cells.groupby("batch_size")["loss.kind"].unique().items()
            if {*kinds} == losses
        }
        for b, cells in finished.items()
    }


def one_configuration(cells: pd.DataFrame, *, image: str) -> Panel:
    """As `batch_sizes`, at the budget with most batch sizes and losses."""
    cells = with_fields(cells)
    softmax = cells["loss.kind"] == "softmax"
    sigmoid = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    pool = cells[(cells["model.image.kind"] == image) & (softmax | sigmoid)]
    fields = _fields(pool)
    own = [f for f in fields if f in SHARED or not f.startswith(("loss.", "optimizer."))]
    chosen = most_complete(pool, own, AXES_BATCH)
    loss = [f for f in fields if f.startswith("loss.")]
    kinds = [most_complete(group, loss, AXES_BATCH) for _, group in chosen.groupby("loss.kind")]
    chosen = pd.concat(kinds) if kinds else chosen
    chosen = choose_rule(chosen, [f for f in fields if f.startswith("optimizer.")], AXES_BATCH)
    # Where some cells mask negatives, a sigmoid cell without softmax is their reference.
    masked = cells[cells["loss.pairs.kind"] == "negatives"]["batch_size"]
    no_softmax = {*masked} - {*chosen[chosen["loss.kind"] == "softmax"]["batch_size"]}
    points = tuple(
        (size, loss)
        for size, loss in product(_levels(chosen["batch_size"]), ("sigmoid", "softmax"))
        if loss == "sigmoid" or size not in no_softmax
    )
    return _panel(chosen, pool, AXES_BATCH, points)


def compositions(cells: pd.DataFrame) -> Panel:
    """Sigmoid cells by the negatives they keep, and the unmasked cells equal in all else.

    The unmasked cells are at the point `UNMASKED`: keep "all", and -1 for the B - 1 negatives per
    positive of a batch.
    """
    cells = with_fields(cells)
    sigmoid = cells[cells["loss.kind"] == "sigmoid"]
    masked = sigmoid[sigmoid["loss.pairs.kind"] == "negatives"]
    if masked.empty:
        return Panel(cells=masked, axes=AXES_PAIRS)
    fields = [f for f in _fields(sigmoid) if f not in ("loss.pairs.kind", *AXES_PAIRS)]
    chosen = most_complete(masked, [*fields, "batch_size"], AXES_PAIRS)
    same = [*(f for f in fields if not f.startswith("loss.pairs.")), "batch_size"]
    shared = row_keys(chosen, same)[0]
    unmasked = sigmoid[sigmoid["loss.pairs.kind"] == "all"]
    unmasked = unmasked[[key == shared for key in row_keys(unmasked, same)]]
    unmasked = unmasked.assign(**dict(zip(AXES_PAIRS, UNMASKED, strict=True)))
    if unmasked.empty:
        unmasked = unmasked.reindex(columns=chosen.columns).astype(chosen.dtypes.to_dict())
    points = (UNMASKED, *product(*(_levels(chosen[axis]) for axis in AXES_PAIRS)))
    return _panel(pd.concat([unmasked, chosen]), masked, AXES_PAIRS, points)


def matched_pairs(cells: pd.DataFrame, panel: Panel) -> Panel:
    """Cells that keep hard negatives as those of `panel` do, but train for as many pairs as its
    unmasked cells, in whatever unit their budget is given.

    They are at the same ratios, with `MATCHED` for what they keep. Empty if there are none.
    """
    cells = with_fields(cells)
    hard = panel.cells[panel.cells["loss.pairs.keep"] == "hard"]
    unmasked = panel.cells[panel.cells["loss.pairs.keep"] == UNMASKED[0]]
    pairs = _all_pairs(unmasked).max()
    own = (cells["loss.pairs.keep"] == "hard") & ~cells["id"].isin(panel.cells["id"])
    cells = cells[own & ((_all_pairs(cells) / pairs - 1).abs() <= NEAR)]
    free = ("budget.", "loss.pairs.per_positive")
    fields = [*(f for f in _fields(cells) if not f.startswith(free)), "batch_size"]
    alike = row_keys(hard, fields)[:1] if len(cells) else []
    chosen = cells[[key in alike for key in row_keys(cells, fields)]] if alike else cells[:0]
    return Panel(cells=chosen.assign(**{AXES_PAIRS[0]: MATCHED}), axes=AXES_PAIRS)


def _all_pairs(cells: pd.DataFrame) -> pd.Series:
    """Pairs of all steps of each cell."""
    return numeric(cells, "steps") * numeric(cells, "pairs_per_step")


def title(panel: Panel) -> str:
    """What the cells of a panel share, for a caption: data, towers, budget, learning rate."""
    first = panel.cells.iloc[0]
    image = {"cached": "cached image embeddings", "vit": "image tower from scratch"}
    text = {
        "transformer": "transformer text tower",
        "mean_pool": "averaging text tower (a variant: no word order)",
    }
    towers = [image.get(str(first["model.image.kind"]), str(first["model.image.kind"]))]
    towers.append(text.get(str(first["model.text.kind"]), str(first["model.text.kind"])))
    return "; ".join(
        [
            str(first["data.dataset"]),
            *towers,
            _budget(panel.cells),
            describe_rule(panel.cells, _fields(panel.cells)),
        ]
    )


def _budget(cells: pd.DataFrame) -> str:
    for unit in ("examples", "pairs", "steps"):
        budgets = _levels(cells[f"budget.{unit}"]) if f"budget.{unit}" in cells else []
        if budgets:
            seen = f"{int(budgets[0]):,} {unit}{'' if unit == 'steps' else ' seen'}"
            return f"{seen}{describe_steps(cells)}" if unit == "examples" else seen
    return "budget unknown"


def describe_steps(cells: pd.DataFrame) -> str:
    """The steps of the smallest and the largest batch size, and which decide no claim.

    >>> describe_steps(panel.cells)
    ' (65,536 steps at B = 16 to 64 at B = 16,384; ...)'
    """
    steps = steps_by_size(cells)
    if len(steps) < 2:
        return ""
    (small, most), *_, (large, fewest) = sorted(steps.items())
    short = ", ".join(f"{size:,}" for size in too_short(steps))
    note = f"; fewer than {FEWEST_STEPS} at B = {short}, which decide no claim" if short else ""
    return f" ({most:,} steps at B = {small:,} to {fewest:,} at B = {large:,}{note})"


def _fields(cells: pd.DataFrame) -> list[str]:
    return [c for c in cells.columns if c.startswith(FIELDS)] + ["dataset_fingerprint"]


def _levels(column: pd.Series) -> list[Any]:
    return sorted(column.dropna().unique().tolist())


def _panel(
    chosen: pd.DataFrame,
    pool: pd.DataFrame,
    axes: tuple[str, ...],
    points: tuple[tuple[Any, ...], ...],
) -> Panel:
    chosen = chosen.sort_values([*axes, "seed", "id"], ignore_index=True)
    left = pool[~pool["id"].isin(chosen["id"])]
    notes: tuple[str, ...] = ()
    if len(left):
        fields = [f for f in _fields(pool) if f not in axes]
        other = [f for f in fields if not {*row_keys(left, [f])} <= {*row_keys(chosen, [f])}]
        count = f"{len(left)} cell{'s' if len(left) > 1 else ''}"
        notes = (f"{count} of other configurations left out (other {', '.join(other)})",)
    chosen.attrs = dict(pool.attrs)
    return Panel(cells=chosen, axes=axes, points=points, notes=notes)


def _label(point: Sequence[Any]) -> str:
    if point == UNMASKED:
        return "the unmasked cell,"
    first, second = point
    return f"b{first} {second}" if second in ("sigmoid", "softmax") else f"{first} 1:{second:g}"


# --- the paper's other figures ------------------------------------------------------------------

CORRUPTIONS = ("image", "text", "alignment")


def select(
    cells: pd.DataFrame,
    axes: Sequence[str],
    *,
    free: Sequence[str] = (),
    by_loss: tuple[str, ...] = (),
) -> Panel:
    """The cells that differ in the axes and the seed only, of the most complete configuration.

    They share the batch size, unless it is an axis.

    Args:
      free: fields, or prefixes of fields, that may differ too.
      by_loss: fields, or prefixes of fields, that are chosen for each loss separately.
    """
    cells = with_fields(cells)
    cells = cells.assign(**{axis: None for axis in axes if axis not in cells})
    differing = (*axes, *free, *by_loss)
    fields = [f for f in (*_fields(cells), "batch_size") if not f.startswith(differing)]
    chosen = most_complete(cells, fields, axes)
    if by_loss and len(chosen):
        own = [f for f in _fields(cells) if f.startswith(by_loss) and f not in axes]
        chosen = pd.concat([most_complete(g, own, axes) for _, g in chosen.groupby("loss.kind")])
    chosen = chosen.sort_values([*axes, "seed", "id"], ignore_index=True)
    chosen.attrs = dict(cells.attrs)
    left = cells[~cells["id"].isin(chosen["id"])]
    notes = (f"{len(left)} cells of other configurations left out",) if len(left) else ()
    return Panel(cells=chosen, axes=tuple(axes), notes=notes)


def plain(cells: pd.DataFrame) -> pd.DataFrame:
    """Whole runs with clean data, without a queue and without towers from a checkpoint."""
    cells = with_fields(cells, PARTS)
    cells = cells[cells[list(PARTS)].isna().all(axis=1)]
    cells = cells[numeric(cells, QUEUE) == 0]
    clean = [numeric(cells, f"data.corruption.{name}") == 0 for name in CORRUPTIONS]
    pretrained = cells["model.init"].notna() if "model.init" in cells else False
    return cells[np.logical_and.reduce(clean) & ~np.asarray(pretrained, dtype=bool)]


def multilingual(cells: pd.DataFrame) -> pd.Series:
    """Which cells are evaluated, or have been, on retrieval by language (paper Sec. 4.3)."""
    evals = cells["evals"] if "evals" in cells else pd.Series("", index=cells.index)
    kind = '"kind": "multilingual_retrieval"'
    metrics = [name for name in cells if name.startswith("eval/multilingual_retrieval/")]
    listed = evals.astype(object).fillna("").str.contains(kind, regex=False)
    return listed | cells[metrics].notna().any(axis=1)


def by_budget(cells: pd.DataFrame, *, image: str) -> dict[int, Panel]:
    """The cells of `one_configuration` at each budget in examples, with one data set and model."""
    cells = _of_both_losses(plain(cells), image)
    if cells.empty or "budget.examples" not in cells:
        return {}
    cells = cells[cells["budget.examples"].notna()]
    fields = [f for f in _fields(cells) if f.startswith(("model.", "data"))]
    chosen = most_complete(cells, fields, ("budget.examples", *AXES_BATCH))
    return {
        int(budget): one_configuration(part, image=image)
        for budget, part in chosen.groupby("budget.examples")
    }


def _of_both_losses(cells: pd.DataFrame, image: str) -> pd.DataFrame:
    """The cells with this image tower that no language but English is tested on; where only the
    multilingual ones compare the losses, those (the paper's mSigLIP is sigmoid alone).
    """
    cells = cells[cells["model.image.kind"] == image]
    in_languages = multilingual(cells)
    english, others = cells[~in_languages], cells[in_languages]
    compares = others["loss.kind"].nunique() > 1 and english["loss.kind"].nunique() < 2
    return others if compares else english


def scaled_up(cells: pd.DataFrame) -> pd.Series:
    """Which cells are of the scaled-up kind: 64 text tokens (paper Sec. 4.6)."""
    return numeric(cells, "data.text_length") == 64


def most_repeated(panel: Panel) -> Panel:
    """At each point of the axes, the cells of the setting with most seeds."""
    if panel.cells.empty:
        return panel
    points = pd.Series(row_keys(panel.cells, panel.axes), index=panel.cells.index)
    fields = [f for f in _fields(panel.cells) if f not in panel.axes]
    parts = [
        most_complete(panel.cells[points == at], fields, ("seed",)) for at in dict.fromkeys(points)
    ]
    cells = pd.concat(parts)
    cells.attrs = dict(panel.cells.attrs)
    return Panel(cells=cells, axes=panel.axes, notes=panel.notes)


def numeric(cells: pd.DataFrame, column: str, *, otherwise: float = 0.0) -> pd.Series:
    """A numeric field; `otherwise` for cells without it."""
    values = cells[column] if column in cells else pd.Series(otherwise, index=cells.index)
    return pd.to_numeric(values, errors="coerce").fillna(otherwise)
