"""The linear probe: equal to ridge regression solved directly, with picks that repeat."""

from __future__ import annotations

import numpy as np
import pytest

from study.evals import few_shot
from study.evals.few_shot import correct, pick


def test_two_examples_by_hand():
    """One feature, -1 in class 0 and 1 in class 1: the weight of class 1 is 2 / (2 + l2)."""
    few, classes = np.array([[-1.0], [1.0]]), np.array([0, 1])
    test, label = np.array([[-0.1], [0.1], [3.0], [-3.0]]), np.array([0, 1, 1, 1])
    (got,) = correct(few, classes, test, label, classes=2, l2=(1024.0,))
    assert got.tolist() == [True, True, True, False]


@pytest.mark.parametrize(("examples", "features"), [(60, 7), (20, 33)])
def test_equal_to_ridge_regression_solved_directly(examples, features, monkeypatch):
    rng = np.random.default_rng(0)
    few, test = rng.normal(2, 3, (examples, features)), rng.normal(2, 3, (300, features))
    label = rng.integers(0, 5, 300)
    class_N = rng.integers(0, 5, examples)
    monkeypatch.setattr(few_shot, "CHUNK", 128)
    l2 = (0.5, 1024.0)
    got = correct(few, class_N, test, label, classes=5, l2=l2)
    mean, deviation = few.mean(0), few.std(0) + 1e-5
    x, z = ((np.c_[(a - mean) / deviation, np.full(len(a), 100.0)]) for a in (few, test))
    y = 2.0 * np.eye(5)[class_N] - 1
    for hits, strength in zip(got, l2, strict=True):
        w = np.linalg.solve(x.T @ x + strength * np.eye(features + 1), x.T @ y)
        np.testing.assert_array_equal(hits, (z @ w).argmax(1) == label)
    assert (got[0] != got[1]).any()


def test_the_probe_does_not_depend_on_the_scale_of_a_feature():
    rng = np.random.default_rng(0)
    class_N = np.arange(40) % 4
    few = np.eye(4)[class_N] + 0.3 * rng.normal(size=(40, 4))
    scale = np.array([1.0, 100.0, 0.1, 7.0])
    a = correct(few, class_N, few, class_N, classes=4, l2=(1.0,))[0]
    b = correct(few * scale, class_N, few * scale, class_N, classes=4, l2=(1.0,))[0]
    np.testing.assert_array_equal(a, b)
    assert a.mean() > 0.8


def test_picks_are_exact_repeat_and_differ_by_seed():
    class_N = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [30, 3, 0, 12, 50]))
    picks = [pick(class_N, classes=5, shots=10, seed=seed) for seed in (0, 0, 1)]
    assert np.bincount(class_N[picks[0]], minlength=5).tolist() == [10, 3, 0, 10, 10]
    assert len(np.unique(picks[0])) == len(picks[0])
    np.testing.assert_array_equal(picks[0], picks[1])
    assert set(picks[0]) != set(picks[2])
