"""Cached embeddings: row i is the tower on example i; what is stale or torn is refused."""

import dataclasses
import json

import numpy as np
import pytest

from study.data.embed_shards import embed_dataset
from study.data.embeddings import TOWER_FILE, CachedEmbeddings
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.glyphs import hog_lda
from study.data.row_files import verify_rows
from study.data.sources import load_labels

NAME = "hog-lda-16"
SPLITS = ("train", "val_font", "test_font", "test_chars")


def test_row_i_is_the_tower_on_example_i(embedded, tower):
    for split in SPLITS:
        rows_NxE = CachedEmbeddings.open(embedded, NAME, split).rows()
        reader = open_split(embedded, split)
        for i in range(0, len(reader), 97):
            alone_1xE = tower(reader.read_images([i], size=tower.size, channels=1))
            np.testing.assert_allclose(rows_NxE[i], alone_1xE[0], atol=2e-3)
        np.testing.assert_allclose(np.linalg.norm(rows_NxE, axis=1), 1, atol=1e-3)


def test_take_gathers_across_parts(embedded):
    cache = CachedEmbeddings.open(embedded, NAME, "train")
    assert len(cache.stored.starts()) > 1
    index_N = np.random.default_rng(0).integers(0, len(cache), 500)
    np.testing.assert_array_equal(cache.take(index_N), cache.rows()[index_N])


def test_the_tower_is_deterministic_and_fitted_on_training_images_only(small, tower, copy):
    for split in SPLITS[1:]:
        for shard in Dataset.open(copy).split(split).shards:
            shard.write_bytes(b"")
    again = hog_lda.fit(Dataset.open(copy), dim=16)
    np.testing.assert_array_equal(again.projection_FxE, tower.projection_FxE)


def test_the_projection_separates_classes_of_an_unseen_font(embedded):
    """Far above both chance and the descriptor's own worth is what makes it a frozen tower."""
    train_NxE = CachedEmbeddings.open(embedded, NAME, "train").rows()
    class_N = load_labels(embedded, "train")
    sums_CxE = np.zeros((len(embedded.class_names), train_NxE.shape[1]))
    np.add.at(sums_CxE, class_N, train_NxE)
    prototypes_CxE = sums_CxE / (np.linalg.norm(sums_CxE, axis=1, keepdims=True) + 1e-9)
    val_NxE = CachedEmbeddings.open(embedded, NAME, "val_font").rows()
    right = (val_NxE @ prototypes_CxE.T).argmax(1) == load_labels(embedded, "val_font")
    assert right.mean() > 0.6


def test_lda_finds_the_direction_that_separates():
    rng = np.random.default_rng(0)
    class_N = np.repeat(np.arange(3), 200)
    x_NxF = rng.normal(0, [1, 10, 0.1], (600, 3)).astype(np.float32)
    x_NxF[:, 2] += class_N
    direction_F = hog_lda.fit_lda(x_NxF, class_N, 1).projection_FxE[:, 0]
    spread_F = np.abs(direction_F) * x_NxF.std(0)
    assert spread_F[2] > 10 * spread_F[:2].max()


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A tower of a size that images must be resized to: its embedding is their pixels."""

    size: int = 10
    channels: int = 1
    dim: int = 100
    metadata: dict = dataclasses.field(default_factory=lambda: {"tower": "pixels"})

    def __call__(self, images_NxHxWxC):
        return images_NxHxWxC.reshape(-1, self.dim).astype(np.float32)


def test_the_resize_is_used_and_recorded(copy):
    dataset = Dataset.open(copy)
    reader = open_split(dataset, "val_font")
    for how, options in (("bicubic", {}), ("bilinear", {"resize": "bilinear"})):
        embed_dataset(dataset, Pixels(), how, workers=1, **options)
        cache = CachedEmbeddings.open(dataset, how, "val_font")
        assert cache.metadata["resize"] == how
        want = reader.read_images(range(5), size=10, channels=1, resize=how).reshape(5, -1)
        np.testing.assert_array_equal(cache.take(np.arange(5)), want)
    files = sorted((dataset.folder / "embeddings" / "bicubic").glob("*.npy"))
    assert all(f.read_bytes() != (f.parents[1] / "bilinear" / f.name).read_bytes() for f in files)


def test_an_image_without_any_ink_has_an_embedding(tower):
    z_NxE = tower(np.zeros((2, 24, 24, 1), np.uint8))
    np.testing.assert_allclose(np.linalg.norm(z_NxE, axis=1), 1, atol=1e-5)


def test_two_processes_make_the_rows_of_one(copy, tower):
    dataset = Dataset.open(copy)
    embed_dataset(dataset, tower, "again", workers=2)
    for split in SPLITS:
        one, two = (CachedEmbeddings.open(dataset, name, split) for name in (NAME, "again"))
        np.testing.assert_array_equal(one.rows(), two.rows())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_embeddings_of_another_version_of_the_data_are_refused(copy):
    dataset = dataclasses.replace(Dataset.open(copy), fingerprint="0" * 64)
    with pytest.raises(DataError, match=r"another version of the data set.*remove it"):
        CachedEmbeddings.open(dataset, NAME, "train")


@pytest.mark.parametrize("finished", [True, False])
def test_embeddings_of_another_tower_are_kept(copy, tower, finished):
    folder = copy / "embeddings" / NAME
    if not finished:
        (folder / TOWER_FILE).unlink()
        (folder / "train-00001.npy").unlink()
    before = contents(folder)
    other = dataclasses.replace(tower, fitted_on=7)
    with pytest.raises(DataError, match=r"fitted_on_train_examples was \d+, is 7") as error:
        embed_dataset(Dataset.open(copy), other, NAME, workers=1)
    assert "\n" not in str(error.value) and contents(folder) == before


@pytest.mark.parametrize("name", ["train.npy", "notes.npy", TOWER_FILE])
def test_embeddings_of_other_programs_are_kept(copy, tower, name):
    folder = copy / "embeddings" / "mine"
    folder.mkdir()
    (folder / name).write_text('{"dim": 4}')
    with pytest.raises(DataError, match=r"made by another program.*remove it or choose another"):
        embed_dataset(Dataset.open(copy), tower, "mine", workers=1)
    assert contents(folder) == {name: b'{"dim": 4}'}


def test_metadata_that_json_changes_is_still_recognized(copy, tower):
    """A tuple is read back as a list, and an integer key as a string."""
    tower = Tuples(tower)
    folder, dataset = copy / "embeddings" / "again", Dataset.open(copy)
    embed_dataset(dataset, tower, "again", workers=1, part=(0, 2))
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    embed_dataset(dataset, tower, "again", workers=1, part=(1, 2))
    assert first.items() <= {p.name: p.stat().st_mtime_ns for p in folder.glob("*.npy")}.items()
    assert len(CachedEmbeddings.open(dataset, "again", "train")) == dataset.split("train").examples


def test_unknown_embeddings_list_those_that_exist(embedded):
    with pytest.raises(DataError, match=rf"no finished embeddings \(finished: {NAME}\)"):
        CachedEmbeddings.open(embedded, "vit", "train")


def test_missing_rows_are_refused(copy):
    (copy / "embeddings" / NAME / "train-00001.npy").unlink()
    with pytest.raises(DataError, match="rows for train, which has"):
        CachedEmbeddings.open(Dataset.open(copy), NAME, "train")


DAMAGE = [b"", b"no array", np.zeros((5, 3), np.float16), np.zeros((5, 16), "U4")]


@pytest.mark.parametrize("content", DAMAGE, ids=["empty", "bytes", "narrow", "words"])
def test_a_damaged_part_is_named_and_made_again(copy, tower, content):
    dataset = Dataset.open(copy)
    expected = CachedEmbeddings.open(dataset, NAME, "val_font").rows()
    path = copy / "embeddings" / NAME / "val_font-00000.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(DataError, match=r"val_font-00000\.npy"):
        CachedEmbeddings.open(dataset, NAME, "val_font")
    embed_dataset(dataset, tower, NAME, workers=1)
    np.testing.assert_array_equal(CachedEmbeddings.open(dataset, NAME, "val_font").rows(), expected)


def test_embeddings_made_elsewhere_may_be_one_file(copy):
    dataset = Dataset.open(copy)
    expected = CachedEmbeddings.open(dataset, NAME, "train").rows()
    folder = copy / "embeddings" / "elsewhere"
    folder.mkdir()
    np.save(folder / "train.npy", expected)
    metadata = {"dim": 16, "dataset_fingerprint": dataset.fingerprint}
    (folder / TOWER_FILE).write_text(json.dumps(metadata))
    np.testing.assert_array_equal(
        CachedEmbeddings.open(dataset, "elsewhere", "train").rows(), expected
    )


class Tuples:
    """A tower whose description is not what JSON gives back."""

    def __init__(self, tower):
        self.size, self.channels, self.dim, self.call = 24, 1, tower.dim, tower
        self.metadata = {"shape": (24, 24), "layers": {1: "a"}}

    def __call__(self, images_NxHxWxC):
        return self.call(images_NxHxWxC)


class Killed:
    """A tower whose process dies at the third batch of images."""

    def __init__(self, tower):
        self.tower, self.left = tower, 3
        self.size, self.channels, self.dim, self.metadata = 24, 1, tower.dim, tower.metadata

    def __call__(self, images_NxHxWxC):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.tower(images_NxHxWxC)


def test_a_killed_run_goes_on_with_the_shards_that_are_missing(copy, tower):
    dataset = Dataset.open(copy)
    with pytest.raises(KeyboardInterrupt):
        embed_dataset(dataset, Killed(tower), "again", workers=1)
    folder = copy / "embeddings" / "again"
    with pytest.raises(DataError, match="no finished embeddings"):
        CachedEmbeddings.open(dataset, "again", "train")
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert 0 < len(written) < sum(len(split.shards) for split in dataset.splits.values())
    embed_dataset(dataset, tower, "again", workers=1)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    for split in SPLITS:
        one, two = (CachedEmbeddings.open(dataset, name, split) for name in (NAME, "again"))
        np.testing.assert_array_equal(one.rows(), two.rows())


def test_machines_share_the_shards_and_the_last_one_finishes(copy, tower):
    dataset = Dataset.open(copy)
    for k in (2, 0):
        embed_dataset(dataset, tower, "again", workers=1, part=(k, 3))
        with pytest.raises(DataError, match="no finished embeddings"):
            CachedEmbeddings.open(dataset, "again", "train")
    embed_dataset(dataset, tower, "again", workers=1, part=(1, 3))
    assert len(CachedEmbeddings.open(dataset, "again", "train")) == dataset.split("train").examples


def test_verify_finds_a_row_that_was_changed(copy):
    folder = copy / "embeddings" / NAME
    verify_rows(folder, TOWER_FILE)
    rows_NxE = np.load(folder / "test_font-00000.npy")
    rows_NxE[-1, -1] += 1
    np.save(folder / "test_font-00000.npy", rows_NxE)
    with pytest.raises(DataError, match=r"test_font-00000\.npy has changed since it was written"):
        verify_rows(folder, TOWER_FILE)
