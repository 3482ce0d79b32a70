"""How often each claim is decided wrongly: its test on simulated studies with a known truth.

    python -m analysis.claims.null_studies --draws 1000

`results/bench/statistics.md` has the table.

A claim's error is largest where the truth is at the edge of what it says. There each of its wrong
verdicts should come at a rate of 2.5 %, the p-value of one direction, or less. That a claim can
fail is shown by studies in which it is false by far: they must contradict it.

Cells have three seeds. The spread between seeds is that of the study on glyphs: 0.45 points in the
median, less near zero accuracy, and different from group to group.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.claims import CLAIMS, Evidence, Verdict, truths, truths_of_branches
from analysis.claims.claim import Kind, adjust
from analysis.claims.made_cells import MEASURED, add_noise, logged_norms, make_cells
from analysis.claims.scenario import BOTH, Scenario

SCENARIOS = (*truths.SCENARIOS, *truths_of_branches.SCENARIOS)
SD = 0.45  # points, of a quality
SD_LOSS = 0.02  # nats, of a validation loss after a branch
SD_LOGIT, SD_EASY = 0.03, 0.7  # of a bias or mean logit, and with the easiest negatives alone
UNEQUAL = 0.3  # standard deviation of the logarithm of a group's own spread


def simulate(
    scenarios: Iterable[Scenario], *, draws: int, first: int = 0
) -> dict[str, dict[str, list[Verdict]]]:
    """The verdicts of `draws` studies, by truth and claim, each claim judged alone.

    A study depends on its truth and its number alone, which counts from `first`.
    """
    by_name = {claim.name: claim for claim in CLAIMS}
    found = {}
    for scenario in scenarios:
        truth = make_cells(scenario.rows, metric=scenario.metric).dropna(axis=1, how="all")
        truth = truth.astype(dict.fromkeys(truth.select_dtypes("str"), object))  # faster to select
        verdicts: dict[str, list[Verdict]] = {name: [] for name in scenario.claims}
        for number in range(first, first + draws):
            rng = np.random.default_rng([number, *scenario.truth.encode()])
            evidence = _draw(truth, scenario, rng)
            for name, so_far in verdicts.items():
                so_far.append(by_name[name].judge(evidence))
        found[scenario.truth] = verdicts
    return found


def _draw(truth: pd.DataFrame, scenario: Scenario, rng: np.random.Generator) -> Evidence:
    own_G = np.exp(UNEQUAL * rng.standard_normal(truth["row"].max() + 1))
    own = own_G[truth["row"].to_numpy()]
    cells = add_noise(truth, rng, lambda column, cells: own * _spread(column, cells))
    for column in cells:
        if column.startswith(MEASURED[0]):
            cells[column] = cells[column].clip(0.0, 100.0)
    if "optimizer.b2" not in cells:
        return Evidence(cells=cells)
    spike = 3.0 if scenario.spiky else 1.0
    norms = logged_norms(cells, rng, spike=spike, at=scenario.spiky or 0.0)
    return Evidence(cells=cells, read_rows=lambda: norms)


def _spread(column: str, cells: pd.DataFrame) -> np.ndarray:
    """The standard deviation between seeds, by cell."""
    if column.startswith("train/"):
        easy = cells["loss.pairs.keep"].eq("easy") & (column != "train/b")
        return np.where(easy, SD_EASY, SD_LOGIT)
    if column.startswith("eval/val_loss/"):
        return np.full(len(cells), SD_LOSS)
    return SD * np.minimum(1.0, cells[column].astype(float).to_numpy() / 2)


def count_errors(
    scenarios: Sequence[Scenario], found: dict[str, dict[str, list[Verdict]]]
) -> pd.DataFrame:
    """By claim: the largest rate of each wrong verdict, its truth, and how often it is refuted."""
    rates: dict[str, dict[str, float]] = {}
    for scenario in scenarios:
        for claim, verdicts in found[scenario.truth].items():
            own = rates.setdefault(claim, {})
            kinds = [verdict.verdict for verdict in verdicts]
            for kind in BOTH:
                rate = kinds.count(kind) / len(kinds)
                if kind in scenario.wrong.get(claim, ()):
                    own[f"wrongly {kind}"] = max(rate, own.get(f"wrongly {kind}", 0.0))
            if claim in scenario.false:
                own["contradicted where false"] = kinds.count("contradicted") / len(kinds)
    return pd.DataFrame.from_dict(rates, orient="index").rename_axis("claim")


def count_studies(
    scenarios: Sequence[Scenario], found: dict[str, dict[str, list[Verdict]]]
) -> tuple[float, float]:
    """The share of studies with a wrong verdict when every claim is at an edge.

    Of each claim the scenario counts in which most of its verdicts would be wrong.

    Returns: without and with the adjustment for all claims of a study.
    """
    edges: dict[str, tuple[tuple[Kind, ...], list[Verdict]]] = {}
    for scenario in scenarios:
        for claim, kinds in scenario.wrong.items():
            if claim not in edges or len(kinds) > len(edges[claim][0]):
                edges[claim] = kinds, found[scenario.truth][claim]
    wrong = [kinds for kinds, _ in edges.values()]
    shares = []
    for judge in (list, adjust):
        studies = [judge(study) for study in zip(*(own for _, own in edges.values()), strict=True)]
        errors = [any(v.verdict in k for v, k in zip(s, wrong, strict=True)) for s in studies]
        shares.append(sum(errors) / len(errors))
    alone, adjusted = shares
    return alone, adjusted


def to_markdown(scenarios: Sequence[Scenario], found: dict[str, dict[str, list[Verdict]]]) -> str:
    """The rates of every claim as a table, and those of whole studies."""
    table = count_errors(scenarios, found)
    draws = len(next(iter(next(iter(found.values())).values())))
    alone, adjusted = count_studies(scenarios, found)
    error = math.sqrt(0.025 * 0.975 / draws)
    lines = [f"| claim | {' | '.join(table)} |", f"|---|{'---|' * len(table.columns)}"]
    for claim, rates in table.iterrows():
        lines.append(f"| {claim} | {' | '.join(f'{rate:.1%}' for rate in rates)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{draws:,} studies per truth; the standard error of a rate of 2.5 % is {error:.1%}.",
            f"Studies with a wrong verdict, each claim at an edge: {alone:.1%} by the p-value of",
            f"each claim, {adjusted:.1%} after the adjustment for all.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Type-I errors of the claims, as Markdown.")
    parser.add_argument("--draws", type=int, default=1000, help="studies per truth")
    draws = parser.parse_args().draws
    print(to_markdown(SCENARIOS, simulate(SCENARIOS, draws=draws)))


if __name__ == "__main__":
    main()
