"""Cached embeddings projected to their principal components."""

import numpy as np
import pytest

from study.data.embeddings import TOWER_FILE, CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.project_embeddings import _fit, project
from study.data.row_files import verify_rows


def rows_of(dataset, name, split="train"):
    return CachedEmbeddings.open(dataset, name, split).rows().astype(np.float64)


def test_all_components_without_whitening_only_rotate(copy):
    dataset = Dataset.open(copy)
    name = project(dataset, "hog-lda-16", dim=16, whiten=0)
    assert name == "hog-lda-16-16"
    mean = rows_of(dataset, "hog-lda-16").mean(0)
    for split in dataset.splits:  # fitted on train, applied to all
        x, z = rows_of(dataset, "hog-lda-16", split) - mean, rows_of(dataset, name, split)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        np.testing.assert_allclose(z @ z.T, x @ x.T, atol=5e-3)  # stored in 16 bits


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_components_keep_a_power_of_their_variance(embedded, whiten):
    cached = CachedEmbeddings.open(embedded, "hog-lda-16", "train")
    x = rows_of(embedded, "hog-lda-16")
    variance = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1][:4]
    mean, projection = _fit(cached, 4, whiten)
    z = (x - mean) @ projection
    np.testing.assert_allclose(
        np.cov(z.T, bias=True), np.diag(variance ** (1 - whiten)), rtol=1e-3, atol=1e-5
    )


def test_a_finished_projection_is_kept_and_another_one_refused(copy):
    dataset = Dataset.open(copy)
    project(dataset, "hog-lda-16", dim=4)
    path = copy / "embeddings" / "hog-lda-16-4" / "train.npy"
    before = path.stat().st_mtime_ns
    project(dataset, "hog-lda-16", dim=4)
    assert path.stat().st_mtime_ns == before
    verify_rows(path.parent, TOWER_FILE)
    with pytest.raises(DataError, match=r"holds another projection \(whiten\)"):
        project(dataset, "hog-lda-16", dim=4, whiten=1.0)
    with pytest.raises(DataError, match="choose fewer"):
        project(dataset, "hog-lda-16", dim=17)
