"""Coverage of 95 % intervals on simulated panels whose true means are known.

    python -m analysis.stats.simulate --repetitions 1000 --seed 0

prints a Markdown table. Every panel has six groups. Schemes: "pooled" (one variance for all groups;
Tukey-Kramer or Bonferroni for families), "shrunken" (limma's empirical Bayes) and "own", which is
`intervals.group_means`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from analysis.records.scores import Score
from analysis.stats.contrasts import Weights, combine, mean_weights, slope_weights
from analysis.stats.intervals import LEVEL, GroupMeans, Interval, group_means, satterthwaite

GROUPS = 6
SCHEMES = ("pooled", "shrunken", "own")
METRIC = "eval/zero_shot/simulated/top1"
ITEMS = 500  # test examples of the panel with items
HITS = 2000  # of that with floors
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


class Panel(NamedTuple):
    """One draw: the values of each group by seed, their true means, and items `GxSxN` if any."""

    values_GxS: np.ndarray
    truth_G: np.ndarray
    items_GxSxN: np.ndarray | None = None


def normal(sds: Sequence[float]) -> Callable[[np.random.Generator, int], Panel]:
    """Panels of normal values with these standard deviations between seeds."""
    sd_Gx1, truth_G = np.array(sds)[:, None], np.full(GROUPS, 50.0)
    return lambda rng, seeds: Panel(
        truth_G[:, None] + sd_Gx1 * rng.standard_normal((GROUPS, seeds)), truth_G
    )


def floors(rng: np.random.Generator, seeds: int) -> Panel:
    """Accuracies from near 0 to near 100 %, logit-normal between seeds, each of `HITS` trials."""
    level_G = special.logit(np.array([0.005, 0.02, 0.1, 0.5, 0.9, 0.995]))
    p_GxS = special.expit(level_G[:, None] + 0.2 * rng.standard_normal((GROUPS, seeds)))
    return Panel(100 * rng.binomial(HITS, p_GxS) / HITS, 100 * _mean_of_logit(level_G, 0.2))


def items(rng: np.random.Generator, seeds: int) -> Panel:
    """Cells that share their test examples: some are harder for all, some for one group."""
    level_G = np.linspace(-1.0, 1.0, GROUPS)
    hard, own, run = 1.5, 0.7, 0.05  # SDs in logits: of items, of items in a group, of runs
    logit_GxSxN = (
        level_G[:, None, None]
        + hard * rng.standard_normal(ITEMS)
        + own * rng.standard_normal((GROUPS, 1, ITEMS))
        + run * rng.standard_normal((GROUPS, seeds, 1))
    )
    hits_GxSxN = rng.random(logit_GxSxN.shape) < special.expit(logit_GxSxN)
    truth_G = 100 * _mean_of_logit(level_G, math.hypot(hard, own, run))
    return Panel(100 * hits_GxSxN.mean(axis=2), truth_G, hits_GxSxN)


def _mean_of_logit(level_G: np.ndarray, sd: float) -> np.ndarray:
    """The mean of `expit(level + sd * normal)`."""
    return special.expit(level_G[:, None] + sd * NODES) @ NODE_WEIGHTS / NODE_WEIGHTS.sum()


PANELS = {
    "equal SDs": normal([1.0] * GROUPS),
    "SDs 0.25 to 4": normal(np.geomspace(0.25, 4.0, GROUPS).tolist()),
    "two SDs 30 times the others": normal([1.0] * 4 + [30.0] * 2),
    "one SD 8 times the others": normal([1.0] * 5 + [8.0]),
    "two SDs a 20th of the others": normal([1.0] * 4 + [0.05] * 2),
    "accuracies 0.5 to 99.5 %": floors,
    "shared test examples": items,
}
SINGLE: dict[str, Weights] = {
    "first mean": {0: 1.0},
    "last mean": {GROUPS - 1: 1.0},
    "first two": {0: 1.0, 1: -1.0},
    "first and last": {0: 1.0, GROUPS - 1: -1.0},
    "halves": combine((1, mean_weights(range(3))), (-1, mean_weights(range(3, GROUPS)))),
    "slope": slope_weights({g: float(g) for g in range(GROUPS)}),
}
PAIRS: list[Weights] = [{a: 1.0, b: -1.0} for a, b in itertools.combinations(range(GROUPS), 2)]


class Coverage(NamedTuple):
    """Shares of intervals that hold the truth: by single contrast, and of whole families."""

    single: dict[str, float]
    family: float


def simulate(
    draw: Callable[[np.random.Generator, int], Panel], seeds: int, repetitions: int, seed: int
) -> dict[str, Coverage]:
    """The coverage of each scheme on panels of one kind.

    Args:
      draw: makes one panel with a number of seeds.
      seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    single = {scheme: dict.fromkeys(SINGLE, 0) for scheme in SCHEMES}
    family = dict.fromkeys(SCHEMES, 0)
    for _ in range(repetitions):
        panel = draw(rng, seeds)
        for scheme, contrast in _contrasts(panel):
            for name, weights in SINGLE.items():
                single[scheme][name] += _holds(contrast(weights, 1), weights, panel)
            family[scheme] += all(
                _holds(contrast(weights, len(PAIRS)), weights, panel) for weights in PAIRS
            )
    return {
        scheme: Coverage(
            {name: count / repetitions for name, count in single[scheme].items()},
            family[scheme] / repetitions,
        )
        for scheme in SCHEMES
    }


def _holds(interval: Interval, weights: Weights, panel: Panel) -> bool:
    truth = sum(w * panel.truth_G[g] for g, w in weights.items())
    return bool(interval.low <= truth <= interval.high)


def _contrasts(panel: Panel) -> Iterator[tuple[str, Callable[[Weights, int], Interval]]]:
    seeds = panel.values_GxS.shape[1]
    means = group_means(
        {
            g: [Score(value, METRIC, [(1.0, f"{g} {s}")]) for s, value in enumerate(values)]
            for g, values in enumerate(panel.values_GxS)
        },
        read_items=_reader(panel),
    )
    total = GROUPS * (seeds - 1)
    shrunken, dof = _shrink(np.array(list(means.variances.values())), seeds - 1)

    def one_variance(weights: Weights, comparisons: int) -> Interval:
        error = math.sqrt(means.variance * sum(w * w for w in weights.values()) / seeds)
        half = error * (
            _tukey(total) if comparisons > 1 else special.stdtrit(total, (1 + LEVEL) / 2)
        )
        return _interval(means, weights, half)

    def moderated(weights: Weights, comparisons: int) -> Interval:
        parts = [(w * w * shrunken[g] / seeds, min(dof, total)) for g, w in weights.items()]
        error, freedom = satterthwaite(parts)
        level = 1 - (1 - LEVEL) / (2 * comparisons)
        return _interval(means, weights, error * special.stdtrit(min(freedom, total), level))

    def own(weights: Weights, comparisons: int) -> Interval:
        if len(weights) == 1:
            return means.mean(next(iter(weights)))
        return means.contrast(weights, comparisons=comparisons)

    yield from zip(SCHEMES, (one_variance, moderated, own), strict=True)


def _reader(panel: Panel) -> Callable[[str, str], np.ndarray | None]:
    def read(cell: str, metric: str) -> np.ndarray | None:
        group, seed = map(int, cell.split())
        hits = panel.items_GxSxN
        return None if hits is None else hits[group, seed]

    return read


def _interval(means: GroupMeans, weights: Weights, half: float) -> Interval:
    estimate = sum(w * means.means[g] for g, w in weights.items())
    return Interval(estimate, estimate - half, estimate + half)


@functools.cache
def _tukey(dof: int) -> float:
    bonferroni = float(stats.t.ppf(1 - (1 - LEVEL) / (2 * len(PAIRS)), dof))
    tukey = float(stats.studentized_range.ppf(LEVEL, GROUPS, dof)) / math.sqrt(2)
    return min(bonferroni, tukey)


def _shrink(variance_G: np.ndarray, dof: int) -> tuple[np.ndarray, float]:
    """Variances shrunk towards a common one, and their degrees of freedom (Smyth 2004)."""
    variance_G = np.maximum(variance_G, 1e-5 * np.median(variance_G) + 1e-12)
    log_G = np.log(variance_G) - special.digamma(dof / 2) + math.log(dof / 2)
    excess = float(log_G.var(ddof=1) - special.polygamma(1, dof / 2))
    if excess <= 0:
        return np.full(GROUPS, variance_G.mean()), math.inf
    half = 0.5 + 1 / excess
    for _ in range(20):  # the inverse of trigamma, by Newton
        value = special.polygamma(1, half)
        half += value * (1 - value / excess) / special.polygamma(2, half)
    common = math.exp(log_G.mean() + special.digamma(half) - math.log(half))
    return (2 * half * common + dof * variance_G) / (2 * half + dof), 2 * half + dof


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m analysis.stats.simulate", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000, help="panels of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    options = parser.parse_args(argv)
    print("| panel | seeds | " + " | ".join(f"{s}: single, all pairs" for s in SCHEMES) + " |")
    print("|---" * (2 + len(SCHEMES)) + "|")
    for name, draw in PANELS.items():
        for seeds in (2, 3, 4):
            found = simulate(draw, seeds, options.repetitions, options.seed)
            cells = [
                f"{100 * min(c.single.values()):.1f} to {100 * max(c.single.values()):.1f}, "
                f"{100 * c.family:.1f}"
                for c in found.values()
            ]
            print(f"| {name} | {seeds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
