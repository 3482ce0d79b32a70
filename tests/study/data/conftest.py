"""Two small data sets for all tests of `study.data`, glyphs and photos, and copies to damage."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from study.data.embed_shards import embed_dataset
from study.data.formats.dataset import Dataset
from study.data.formats.index_shards import index_shards
from study.data.glyphs import hog_lda
from study.data.glyphs.write import write_glyphs
from study.data.images import to_8bit

SMALL = {"views": 2, "limit_characters": 120, "shard_examples": 512}


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Dataset:
    return write_glyphs(tmp_path_factory.mktemp("small") / "glyphs", workers=1, **SMALL)


@pytest.fixture(scope="session")
def tower(small) -> hog_lda.HogLda:
    return hog_lda.fit(small, dim=16)


@pytest.fixture(scope="session")
def embedded(small, tower) -> Dataset:
    embed_dataset(small, tower, "hog-lda-16", workers=1)
    return small


@pytest.fixture
def copy(embedded, tmp_path) -> Path:
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(embedded.folder, tmp_path / "glyphs"))


@pytest.fixture(scope="session")
def recipe() -> dict:
    return dict(SMALL)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Real image files (those inside matplotlib, and crops) as img2dataset leaves a folder."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    folder.mkdir()
    files = sorted((Path(matplotlib.get_data_path()) / "images").glob("*.png"))
    files += sorted((Path(matplotlib.get_data_path()) / "sample_data").glob("*.jpg"))
    rows = []
    for file in files:
        words = file.stem.replace("_", " ")
        rows.append((file.suffix[1:], file.read_bytes(), words))
        page = to_8bit(Image.open(file)).convert("RGB")
        half = (page.width // 2, page.height)
        for side, left in (("left", 0), ("right", page.width - half[0])):
            out = io.BytesIO()
            page.crop((left, 0, left + half[0], half[1])).save(out, "WEBP" if left else "JPEG")
            rows.append(("webp" if left else "jpg", out.getvalue(), f"{side} half of {words}"))
    for number, start in enumerate(range(0, len(rows), 32)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for i, (kind, image, caption) in enumerate(rows[start : start + 32]):
                key = f"{number:05d}{i:04d}"
                metadata = json.dumps({"key": key, "caption": caption, "status": "success"})
                members = {kind: image, "json": metadata.encode()}
                if i % 2:  # the others have a caption in the json only
                    members["txt"] = caption.encode()
                for name, data in members.items():
                    member = tarfile.TarInfo(f"{key}.{name}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """A copy of it without a description."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture
def indexed(folder) -> Dataset:
    return index_shards(folder, train_pieces=200, workers=1).dataset
