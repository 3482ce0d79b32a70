"""Scenes: two glyphs of the same split, pixel for pixel, with both captions and both embeddings."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from study.config import CachedImage, Data
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.glyphs import hog_lda, scenes
from study.data.glyphs import write as glyphs
from study.data.glyphs.characters import FONTS, Characters, Examples
from study.data.sources import open_source

CHARACTERS = Characters.of_fonts(limit=120, held_out=12)


@pytest.fixture(scope="module")
def tower(small_glyphs):
    """The tower of glyphs, fitted once for this file."""
    tower = hog_lda.fit(Dataset.open(small_glyphs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hog_lda, "fit", lambda dataset: tower)
        yield tower


@pytest.fixture(scope="module")
def dataset(small_glyphs, tower, tmp_path_factory):
    return make(tmp_path_factory.mktemp("scenes") / scenes.NAME, small_glyphs)


def make(out, small_glyphs):
    glyphs = Dataset.open(small_glyphs)
    return scenes.make_scenes(out, glyphs, CHARACTERS, views=1, workers=1)


def halves(metadata: dict) -> list[Examples]:
    return [
        Examples(
            font_N=np.array([FONTS.index(half["font"])]),
            codepoint_N=np.array([half["codepoint"]]),
            view_N=np.array([half["view"]]),
        )
        for half in (metadata["left"], metadata["right"])
    ]


def test_a_scene_is_two_glyphs_side_by_side(dataset):
    for split in scenes.SPLITS:
        reader = open_split(dataset, split)
        images, errors = reader.try_read_images(np.arange(20), size=scenes.PAGE, channels=1)
        assert not errors
        for i, page in enumerate(images[..., 0]):
            example = reader[i]
            metadata = example["json"]
            glyph = [
                glyphs.render_examples(e, glyphs.render_masters(e))[0] for e in halves(metadata)
            ]
            assert np.array_equal(page[12:36], np.concatenate(glyph, axis=1))
            assert not page[:12].any() and not page[36:].any()
            names = [
                glyphs.caption(metadata[side]["font"], metadata[side]["codepoint"])
                for side in ("left", "right")
            ]
            assert example["text"] == " BESIDE ".join(names)
            held_out = metadata["left"]["codepoint"] in CHARACTERS.held_out
            assert not held_out and unicodedata.name(chr(metadata["left"]["codepoint"]))


def test_each_glyph_is_once_on_the_left_and_once_on_the_right(dataset):
    pairs = CHARACTERS.of_split("train")
    reader = open_split(dataset, "train")
    found = [reader[i]["json"] for i in range(len(reader))]
    wanted = sorted(
        (FONTS[f], int(c)) for f, c in zip(pairs.font_N, pairs.codepoint_N, strict=True)
    )
    for side in ("left", "right"):
        assert sorted((x[side]["font"], x[side]["codepoint"]) for x in found) == wanted


def test_an_embedding_is_that_of_both_halves(dataset, tower):
    image = CachedImage(embeddings=scenes.TOWER, dim=2 * tower.dim)
    source = open_source(dataset, "test_font", image, Data(text_length=32))
    index_N = np.arange(16)
    pages, _ = open_split(dataset, "test_font").try_read_images(
        index_N, size=scenes.PAGE, channels=1
    )
    left, right = (tower(pages[:, 12:36, half]) for half in (slice(0, 24), slice(24, 48)))
    found = source.batch(index_N)
    expected = np.concatenate([left, right], axis=1) / np.sqrt(2)
    np.testing.assert_allclose(found["image"], expected, atol=1e-3)  # kept in half precision
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    assert len(np.unique(found["text"], axis=0)) == 16


def test_the_same_bytes_however_they_are_made(dataset, small_glyphs, tmp_path):
    out = tmp_path / scenes.NAME
    (tmp_path / f"{scenes.NAME}.part").mkdir()  # a killed run's
    (tmp_path / f"{scenes.NAME}.part" / "train-00000.tar").write_bytes(b"torn")
    assert make(out, small_glyphs).fingerprint == dataset.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [scenes.NAME]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    make(out, small_glyphs)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_scenes_of_other_glyphs_are_not_written_over(dataset, small_glyphs):
    with pytest.raises(DataError, match="scenes of other glyphs"):
        scenes.make_scenes(dataset.folder, Dataset.open(small_glyphs), CHARACTERS, views=2)
