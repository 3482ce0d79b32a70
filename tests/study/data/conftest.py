"""One small glyphs data set for all tests of the data room, and copies of it to damage."""

import shutil
from pathlib import Path

import pytest

from study.data import descriptor
from study.data.dataset import Dataset
from study.data.embeddings import embed
from study.data.glyphs import write_glyphs

SMALL = {"views": 2, "limit_characters": 120, "shard_examples": 512}


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Dataset:
    return write_glyphs(tmp_path_factory.mktemp("small") / "glyphs", workers=1, **SMALL)


@pytest.fixture(scope="session")
def tower(small) -> descriptor.HogLda:
    return descriptor.fit(small, dim=16)


@pytest.fixture(scope="session")
def embedded(small, tower) -> Dataset:
    embed(small, tower, "hog-lda-16", workers=1)
    return small


@pytest.fixture
def copy(embedded, tmp_path) -> Path:
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(embedded.folder, tmp_path / "glyphs"))


@pytest.fixture(scope="session")
def recipe() -> dict:
    return dict(SMALL)
