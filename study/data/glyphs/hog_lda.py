"""The frozen image tower of the built-in data set: HOG features and a linear projection.

This is NOT a trained deep tower. The features are histograms of oriented gradients (Dalal and
Triggs 2005) and down-sampled pixels. The projection is Fisher's linear discriminant analysis, in
closed form, fitted on the training split only. The same data give the same tower.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
import scipy.linalg

from study.data.embed_shards import embed_dataset
from study.data.embeddings import is_complete
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.sources import load_labels

DIM = 96
SIZE, CELLS, ORIENTATIONS = 24, 6, 8
FEATURES = CELLS * CELLS * ORIENTATIONS + (SIZE // 2) ** 2
FIT_EXAMPLES = 40_000
RIDGE = 0.01  # share of the mean within-class variance; bounds the directions of little variance
_CHUNK = 256  # images whose gradients fit in the CPU cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class HogLda:
    """HOG (6x6 cells, 8 orientations) and 12x12 pixels, projected by LDA, unit length.

    Attributes:
      mean_F: mean of the training features.
      projection_FxE: the discriminant directions.
      fitted_on: number of training images.
    """

    mean_F: np.ndarray
    projection_FxE: np.ndarray
    fitted_on: int
    size: int = SIZE
    channels: int = 1

    @property
    def dim(self) -> int:
        return self.projection_FxE.shape[1]

    @property
    def metadata(self) -> dict[str, Any]:
        """The tower's entries in tower.json."""
        return {
            "kind": "HOG and pixels, closed-form LDA; not a trained deep tower",
            "descriptor": f"HOG {CELLS}x{CELLS}x{ORIENTATIONS} + {SIZE // 2}x{SIZE // 2} pixels",
            "fitted_on_train_examples": self.fitted_on,
            "sha256": hashlib.sha256(self.projection_FxE.tobytes()).hexdigest(),
            "ridge": RIDGE,
        }

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        """Embeddings, float32 N x E of unit length, of uint8 grayscale images N x 24 x 24 x 1."""
        z_NxE = (hog_features(images_NxHxWxC) - self.mean_F) @ self.projection_FxE
        return z_NxE / np.linalg.norm(z_NxE, axis=1, keepdims=True)


def fit(
    dataset: Dataset, *, dim: int = DIM, examples: int = FIT_EXAMPLES, workers: int = 1
) -> HogLda:
    """Fits the projection on images of the training split.

    Arguments:
      dim: width E of the embeddings.
      examples: largest number of images, evenly spaced over the split.
      workers: processes.

    Raises:
      DataError: a shard that cannot be read, or a `dim` above the number of features.
    """
    if dim > FEATURES:
        raise DataError(f"--dim {dim}: there are only {FEATURES} features; choose fewer")
    size = dataset.split("train").examples
    index_N = np.linspace(0, size - 1, min(examples, size)).astype(np.int64)
    tasks = [(dataset, part_N) for part_N in np.array_split(index_N, min(size, 4 * workers))]
    parts = sorted(map_unordered(_read_features, tasks, workers=workers), key=lambda part: part[0])
    used = np.concatenate([used_N for _, used_N, _ in parts])
    features = np.concatenate([x_NxF for _, _, x_NxF in parts])
    return fit_lda(features, load_labels(dataset, "train")[used], dim)


def _read_features(task: tuple[Dataset, np.ndarray]) -> tuple[int, np.ndarray, np.ndarray]:
    """The first of these images of `train`, those that can be used, and their features."""
    dataset, index_N = task
    reader = open_split(dataset, "train")
    features, used = [], []
    for part_N in np.array_split(index_N, len(index_N) // _CHUNK + 1):
        images_NxHxWxC, errors = reader.try_read_images(part_N, size=SIZE, channels=1)
        usable_N = ~np.isin(part_N, list(errors))
        features.append(hog_features(images_NxHxWxC[usable_N]))
        used.append(part_N[usable_N])
    return int(index_N[0]), np.concatenate(used), np.concatenate(features)


def embed(
    dataset: Dataset,
    *,
    dim: int = DIM,
    workers: int = 2,
    progress: ProgressFn = no_progress,
) -> str:
    """Fits the tower on `train` and embeds every split, unless these embeddings are complete.

    Arguments:
      dim, workers: see `fit` and `study.data.embed_shards.embed_dataset`.

    Returns:
      The name of the embeddings, `hog-lda-<dim>`.

    Raises:
      DataError: see `fit` and `embed_dataset`, or a data set without classes.
    """
    name = f"hog-lda-{dim}"
    if not is_complete(dataset, name):
        progress("fitting the frozen tower", 0, 1)
        tower = fit(dataset, dim=dim, workers=workers)
        progress("fitting the frozen tower", 1, 1)
        embed_dataset(dataset, tower, name, workers=workers, progress=progress)
    return name


def fit_lda(x_NxF: np.ndarray, class_N: np.ndarray, dim: int) -> HogLda:
    """Fits Fisher's discriminant directions: largest variance between over within classes.

    Arguments:
      x_NxF: features.
      class_N: the class of each row.
      dim: number of directions.
    """
    mean_F = x_NxF.mean(0, dtype=np.float64)
    x_NxF = (x_NxF - mean_F).astype(np.float32)
    _, class_N, count_C = np.unique(class_N, return_inverse=True, return_counts=True)
    order_N = np.argsort(class_N, kind="stable")
    starts_C = np.concatenate([[0], np.cumsum(count_C)[:-1]])
    sum_CxF = np.add.reduceat(x_NxF[order_N].astype(np.float64), starts_C)
    between_FxF = (sum_CxF / count_C[:, None]).T @ sum_CxF
    within_FxF = (x_NxF.T @ x_NxF).astype(np.float64) - between_FxF
    size = len(mean_F)
    ridge = RIDGE * np.trace(within_FxF) / size
    within_FxF[np.diag_indices(size)] += ridge
    _, vectors_FxE = scipy.linalg.eigh(
        between_FxF, within_FxF, subset_by_index=[max(0, size - dim), size - 1]
    )
    vectors_FxE = vectors_FxE[:, ::-1]
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    largest_E = vectors_FxE[np.abs(vectors_FxE).argmax(0), np.arange(vectors_FxE.shape[1])]
    projection_FxE = (vectors_FxE * np.sign(largest_E) * np.sqrt(len(x_NxF))).astype(np.float32)
    return HogLda(
        mean_F=mean_F.astype(np.float32), projection_FxE=projection_FxE, fitted_on=len(x_NxF)
    )


def hog_features(images_NxHxWxC: np.ndarray) -> np.ndarray:
    """Features, float32 N x (6*6*8 + 12*12), of uint8 grayscale images N x 24 x 24 x 1."""
    x_NxHxW = images_NxHxWxC.reshape(-1, SIZE, SIZE)
    out_NxF = np.empty((len(x_NxHxW), FEATURES), np.float32)
    for start in range(0, len(x_NxHxW), _CHUNK):
        part = slice(start, start + _CHUNK)
        out_NxF[part] = _chunk_features(x_NxHxW[part].astype(np.float32) / np.float32(255))
    return out_NxF


def _chunk_features(x_NxHxW: np.ndarray) -> np.ndarray:
    n = len(x_NxHxW)
    dx, dy = np.zeros_like(x_NxHxW), np.zeros_like(x_NxHxW)
    dx[:, :, 1:-1] = x_NxHxW[:, :, 2:] - x_NxHxW[:, :, :-2]
    dy[:, 1:-1] = x_NxHxW[:, 2:] - x_NxHxW[:, :-2]
    # A gradient votes for each orientation within 45 degrees by its projection, less that at 45
    # degrees: a smooth histogram without arctangent or scatter.
    votes = []
    pool_HxC = _pooling()
    magnitude = np.sqrt(dx * dx + dy * dy)
    for k in range(ORIENTATIONS):
        angle = 2 * np.pi * k / ORIENTATIONS
        vote = np.float32(np.cos(angle)) * dx + np.float32(np.sin(angle)) * dy
        vote -= np.float32(np.cos(2 * np.pi / ORIENTATIONS)) * magnitude
        np.maximum(vote, 0, out=vote)
        votes.append(pool_HxC.T @ vote @ pool_HxC)
    hog_NxF = np.stack(votes, -1).reshape(n, -1)
    pixels_NxP = x_NxHxW.reshape(n, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4)).reshape(n, -1)
    return np.concatenate([_unit(np.sqrt(hog_NxF)), _unit(pixels_NxP)], axis=1)


@functools.cache
def _pooling() -> np.ndarray:
    """Triangular weights of each pixel in each of the 6 cells along a side, 24 x 6."""
    centre_C = (np.arange(CELLS) + 0.5) * SIZE / CELLS - 0.5
    distance = np.abs(np.arange(SIZE)[:, None] - centre_C[None, :]) * CELLS / SIZE
    return np.maximum(0, 1 - distance).astype(np.float32)


def _unit(x_NxF: np.ndarray) -> np.ndarray:
    return x_NxF / (np.linalg.norm(x_NxF, axis=1, keepdims=True) + np.float32(1e-3))
