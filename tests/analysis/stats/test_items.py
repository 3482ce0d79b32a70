"""The choice of test examples in the variance of contrasts, and coverage in simulations."""

import numpy as np
import pandas as pd
import pytest

from analysis.records.scores import Score
from analysis.stats.intervals import by_group, group_means, paired_differences
from analysis.stats.items import item_variance, read_item_means
from analysis.stats.simulate import PANELS, main, simulate

METRIC = "eval/zero_shot/test/top1"
GROUPS, SEEDS, ITEMS = ("a", "b"), 3, 400


def scores(hits, metric=METRIC):
    """One score per group and seed, `hits` by cell id."""
    return {
        g: [Score(100 * hits[f"{g}{s}"].mean(), metric, [(1.0, f"{g}{s}")]) for s in range(SEEDS)]
        for g in GROUPS
    }


def draw(rng, hard):
    """Items of two groups of runs; `hard` is the spread of their difficulty in a group."""
    p_GxN = np.clip(0.5 + hard * rng.standard_normal((2, ITEMS)), 0.0, 1.0)
    return {f"{g}{s}": rng.random(ITEMS) < p_GxN[i] for i, g in enumerate(GROUPS) for s in range(3)}


@pytest.mark.parametrize("hard", [0.0, 0.2])
def test_the_luck_of_runs_with_items_is_not_counted_twice(hard):
    """Between seeds and between items together the variance is that of the estimate."""
    rng = np.random.default_rng(0)
    weights, found, parts = {"a": 1.0, "b": -1.0}, [], []
    for _ in range(400):
        hits = draw(rng, hard)
        means = group_means(scores(hits), read_items=lambda cell, _, hits=hits: hits[cell])
        found.append(means.contrast(weights).estimate)
        seeds = sum(means.variances[g] / SEEDS for g in GROUPS)
        parts.append((seeds, item_variance(weights, means.items, means.counts)))
        bounds = [means.items[g].luck for g in GROUPS]
        assert means.contrast(weights).standard_error ** 2 > 0.999 * sum(bounds)
    seeds, items = np.mean(parts, axis=0)
    # The variance of 400 normal values is known to 7 %.
    assert seeds + items == pytest.approx(np.var(found), rel=0.2)
    assert items < 0.1 * seeds if hard == 0 else items > 0.3 * seeds


def test_one_cell_without_items_takes_the_test_set_as_fixed():
    hits = draw(np.random.default_rng(1), 0.2)
    groups = scores(hits)
    whole = group_means(groups, read_items=lambda cell, _: hits[cell])
    gap = whole.contrast({"a": 1.0, "b": -1.0})
    assert 0 < gap.test_share < 1 and (-gap).shift(1.0).test_share == gap.test_share
    assert whole.basis == "95 % intervals over seeds and test examples"
    others = {
        "one is missing": lambda cell, _: None if cell == "a1" else hits[cell],
        "of another size": lambda cell, _: hits[cell][: 200 if cell == "a1" else None],
        "not of this metric": lambda cell, _: ~hits[cell],
    }
    for case, reader in others.items():
        fixed = group_means(groups, read_items=reader)
        assert not fixed.items and np.isnan(fixed.mean("a").test_share), case
        assert fixed.basis == "95 % intervals over seeds, the test set taken as fixed"
    assert group_means(scores(hits, "train/b")).basis == "95 % intervals over seeds"


def test_differences_are_paired_item_by_item():
    hits = draw(np.random.default_rng(2), 0.2)
    cells = pd.DataFrame(
        [
            {"id": f"{g}{s}", "seed": s, "batch_size": 16, "loss.kind": loss}
            | {METRIC: 100 * hits[f"{g}{s}"].mean()}
            for g, loss in zip(GROUPS, ("sigmoid", "softmax"), strict=True)
            for s in range(SEEDS)
        ]
    )
    gaps = by_group(paired_differences(cells, METRIC), ["batch_size"], "difference")
    found = read_item_means(gaps, lambda cell, _: hits[cell])[16]
    each_SxN = [100.0 * hits[f"a{s}"] - 100.0 * hits[f"b{s}"] for s in range(SEEDS)]
    assert np.allclose(found.mean_N, np.mean(each_SxN, axis=0))
    twice = Score.mean([*gaps[16][:1], *gaps[16][:1]])
    assert float(twice) == float(gaps[16][0]) and sum(f for f, _ in twice.cells) == 0


@pytest.mark.parametrize("seeds", [2, 4])
def test_intervals_cover_in_simulations_what_one_variance_does_not(seeds):
    noisy = simulate(PANELS["one SD 8 times the others"], seeds, 300, 0)
    assert min(noisy["pooled"].single.values()) < 0.7 < 0.9 < min(noisy["own"].single.values())
    shared = simulate(PANELS["shared test examples"], seeds, 200, 0)
    assert min(shared["own"].single.values()) > 0.9
    assert min(shared["own"].family, noisy["own"].family) > 0.9


def test_the_simulation_prints_a_table(capsys):
    main(["--repetitions", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 * len(PANELS)
    assert len({line.count("|") for line in lines}) == 1


def test_the_interval_of_a_percentage_ends_at_0_and_100():
    values = [Score(v, METRIC, [(1.0, "")]) for v in (0.0, 0.5)]
    mean = group_means({"low": values}).mean("low")
    assert (mean.low, mean.estimate) == (0.0, 0.25) and mean.high < 5
    assert group_means({"low": list(map(float, values))}).mean("low").low < 0  # of no known unit
