"""Projects cached embeddings to fewer dimensions by principal components, without the tower.

SigLiT compares a text with the image's embedding as it is, so wide features of a network that was
trained on something else need a projection. Dividing each component by a root of its variance
keeps the few largest from deciding every similarity.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np

from study.data.embeddings import TOWER_FILE, CachedEmbeddings, is_complete
from study.data.formats.dataset import DataError, Dataset
from study.records.record import atomic_write, write_json


def project(
    dataset: Dataset, name: str, *, dim: int, whiten: float = 0.5, split: str = "train"
) -> str:
    """Writes `embeddings/<name>-<dim>`, unless it is complete: rows of unit length.

    Arguments:
      name: the embeddings to project.
      dim: principal components to keep.
      whiten: component k is divided by `variance_k ** (whiten / 2)`; 1 whitens, 0 only rotates.
      split: the components are fitted on its images.

    Returns:
      The name of the new embeddings.

    Raises:
      DataError: missing embeddings, fewer images or dimensions than `dim`, a disk that is full or
        read-only, or a folder that holds other embeddings.
    """
    out = f"{name}-{dim}"
    folder = dataset.folder / "embeddings" / out
    rows = CachedEmbeddings.open(dataset, name, split)
    options = {"projected_from": name, "whiten": whiten, "fitted_on": split}
    if is_complete(dataset, out):
        metadata = CachedEmbeddings.open(dataset, out, split).metadata
        if changes := [key for key, value in options.items() if metadata.get(key) != value]:
            raise DataError(
                f"{folder} holds another projection ({', '.join(changes)}); remove it and run again"
            )
        return out
    mean_F, projection_FxE = _fit(rows, dim, whiten)
    shards = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in (part for part in dataset.splits.values() if part.images is None):
            stored = CachedEmbeddings.open(dataset, name, part.name)
            z_NxE = (stored.rows().astype(np.float32) - mean_F) @ projection_FxE
            z_NxE /= np.maximum(np.linalg.norm(z_NxE, axis=1, keepdims=True), 1e-12)
            buffer = io.BytesIO()
            np.save(buffer, z_NxE.astype(np.float16))
            with atomic_write(folder / f"{part.name}.npy") as file:
                file.write(buffer.getbuffer())
            shards[part.name] = {
                "rows": len(z_NxE),
                "sha256": hashlib.sha256(buffer.getbuffer()).hexdigest(),
                "bad": {str(i): reason for i, reason in (stored.bad or {}).items()},
            }
        metadata = rows.metadata | options | {"name": out, "dim": dim, "shards": shards}
        metadata["projection_sha256"] = hashlib.sha256(projection_FxE.tobytes()).hexdigest()
        write_json(folder / TOWER_FILE, metadata)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room and run again"
        ) from None
    return out


def _fit(rows: CachedEmbeddings, dim: int, whiten: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and the principal components with their divisors, float32."""
    x_NxF = rows.rows().astype(np.float64)
    x_NxF = x_NxF[np.isfinite(x_NxF).all(1)]
    if dim > min(x_NxF.shape):
        raise DataError(
            f"{rows.name} has {len(x_NxF)} rows of {x_NxF.shape[1]} dimensions to fit {dim} "
            "components on; choose fewer (--dim)"
        )
    mean_F = x_NxF.mean(0)
    x_NxF -= mean_F
    variance_F, vectors_FxF = np.linalg.eigh(x_NxF.T @ x_NxF / len(x_NxF))
    variance_E, vectors_FxE = variance_F[::-1][:dim], vectors_FxF[:, ::-1][:, :dim]
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    largest_E = vectors_FxE[np.abs(vectors_FxE).argmax(0), np.arange(dim)]
    scale_E = np.sign(largest_E) / np.maximum(variance_E, 1e-12 * variance_E[0]) ** (whiten / 2)
    return mean_F.astype(np.float32), (vectors_FxE * scale_E).astype(np.float32)
