"""A linear probe on a few examples per class: ridge regression in closed form (paper Fig. 4).

As in big_vision's `fewshot_lsr`, but in float64: features are standardised by the few examples, a
large constant feature makes the bias nearly free of the penalty, and the targets are +1 for the
class and -1 for the others.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when used

BIAS = 100.0
CHUNK = 2048


def pick(class_N: np.ndarray, *, classes: int, shots: int, seed: int) -> np.ndarray:
    """Indices of `shots` random examples per class, or all of a class that has fewer."""
    rng = np.random.default_rng(seed)
    order_N = np.argsort(class_N, kind="stable")
    ends_C = np.cumsum(np.bincount(class_N, minlength=classes))
    members = np.split(order_N, ends_C[:-1])
    return np.concatenate([rng.permutation(one)[:shots] for one in members])


def correct(
    few_NxF: np.ndarray,
    class_N: np.ndarray,
    test_MxF: np.ndarray,
    label_M: np.ndarray,
    *,
    classes: int,
    l2: tuple[float, ...],
) -> list[np.ndarray]:
    """Whether the probe classifies each test example correctly, bool `M` for each penalty.

    Arguments:
      few_NxF, class_N: features and classes of the training examples.
      test_MxF, label_M: features and classes of the test examples.
      l2: penalties. One eigendecomposition, of the smaller of x^T x and x x^T, serves all.
    """
    few_NxF = few_NxF.astype(np.float64)
    mean_F, deviation_F = few_NxF.mean(0), few_NxF.std(0) + 1e-5

    def standardise(x_NxF: np.ndarray) -> np.ndarray:
        x_NxF = (x_NxF.astype(np.float64) - mean_F) / deviation_F
        return np.pad(x_NxF, ((0, 0), (0, 1)), constant_values=BIAS)

    x_NxF = standardise(few_NxF)
    y_NxC = np.full((len(x_NxF), classes), -1.0)
    y_NxC[np.arange(len(x_NxF)), class_N] = 1.0
    if len(x_NxF) >= x_NxF.shape[1]:
        value_K, left_FxK = scipy.linalg.eigh(x_NxF.T @ x_NxF)
        right_KxC = left_FxK.T @ (x_NxF.T @ y_NxC)
    else:
        value_K, vector_NxK = scipy.linalg.eigh(x_NxF @ x_NxF.T)
        left_FxK, right_KxC = x_NxF.T @ vector_NxK, vector_NxK.T @ y_NxC
    weights = [(left_FxK / (value_K + penalty)) @ right_KxC for penalty in l2]
    hits: list[list[np.ndarray]] = [[] for _ in l2]
    for start in range(0, len(test_MxF), CHUNK):
        chunk = slice(start, start + CHUNK)
        test_CxF = standardise(test_MxF[chunk])
        for chunks, weight_FxC in zip(hits, weights, strict=True):
            chunks.append((test_CxF @ weight_FxC).argmax(1) == label_M[chunk])
    return [np.concatenate(chunks) for chunks in hits]
