"""Tables that other libraries wrote become tars: the same images, captions and splits.

The files in `tables` are what datasets 5.2.0 (`save_to_disk`, `to_parquet`) and img2dataset 1.47.0
(output_format=parquet, and the parquet beside its tars) wrote. Image i of a set has one colour.
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.config import Data, ViT
from study.data.files import to_path
from study.data.formats.dataset import DataError
from study.data.formats.open_split import open_split
from study.data.formats.tables import has_tables, import_tables
from study.data.sources import open_source

TABLES = Path(__file__).parent / "tables"
HF = {"train": [0, 1, 2, None, 4, None, 6, 7], "test": [7, 2]}  # 3 has no image, 5 no caption
SETS = {"saved": HF, "hub": HF, "img2dataset": {"train": range(8)}}  # its 8 and 9 were not found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import_tables(TABLES / "hub", out := tmp_path_factory.mktemp("model"), train_pieces=64)
    return out / "sentencepiece.model"


def check(dataset, expected):
    assert {name: split.examples for name, split in dataset.splits.items()} == {
        name: len(numbers) for name, numbers in expected.items()
    }
    for split, numbers in expected.items():
        reader = open_split(dataset, split)
        for row, number in enumerate(numbers):
            if number is not None:
                pixels = reader.read_images([row], size=1, channels=3)[0, 0, 0]
                np.testing.assert_allclose(pixels, [20 * number, 0, 255 - 20 * number], atol=2)
                assert reader.text(row).split()[-1] == str(number)


@pytest.mark.parametrize("name", SETS)
def test_tables_of_other_libraries_hold_the_same_examples(name, model, tmp_path):
    result = import_tables(TABLES / name, tmp_path / "out", tokenizer=model, workers=1)
    check(result.dataset, SETS[name])
    bad = [i for i, number in enumerate(SETS[name]["train"]) if number is None]
    assert result.incomplete == len(bad)
    source = open_source(
        result.dataset, "train", ViT(image_size=8), Data(max_bad_share=0.5), channels=3
    )
    replaced = source.batch(np.array([*bad, 7]))["image"]
    np.testing.assert_array_equal(
        replaced, source.batch(np.array([*(b + 1 for b in bad), 7]))["image"]
    )


@pytest.mark.parametrize("name", ["saved", "img2dataset"])
def test_tables_in_a_bucket(name, model, tmp_path, gcs):
    folder = to_path(f"gs://{gcs.bucket()}/tables")
    for path in (TABLES / name).rglob("*.*"):
        (folder / str(path.relative_to(TABLES / name))).write_bytes(path.read_bytes())
    assert has_tables(folder)
    check(import_tables(folder, tmp_path / "out", tokenizer=model, workers=1).dataset, SETS[name])


def test_an_interrupted_import_continues_and_another_is_refused(model, tmp_path):
    out = tmp_path / "out"
    first = import_tables(TABLES / "saved", out, tokenizer=model, workers=1).dataset
    kept = (out / "train-00000.tar").stat().st_mtime_ns
    (out / "train-00001.tar").unlink()
    again = import_tables(TABLES / "saved", out, tokenizer=model, workers=1).dataset
    assert again.fingerprint == first.fingerprint
    assert (out / "train-00000.tar").stat().st_mtime_ns == kept
    with pytest.raises(DataError, match="holds other shards"):
        import_tables(TABLES / "saved", out, tokenizer=model, text_key="caption")


def write(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "00000.parquet")


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
PNG = pa.array([{"bytes": b"\x89PNG", "path": None}], IMAGE)
PATH = pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE)
BAD = {
    "addresses only": (lambda f: shutil.copytree(TABLES / "urls", f), r"addresses .*\(url\).*img2"),
    "tars beside": (
        lambda f: (write(f, jpg=[b"x"], txt=["a"]), (f / "00000.tar").touch()),
        "study data index",
    ),
    "no caption": (lambda f: write(f, image=PNG), r"no text column \(caption, .* nor any of"),
    "two captions": (lambda f: write(f, jpg=[b"x"], a=["x"], b=["y"]), "--text-key: a, b"),
    "two images": (lambda f: write(f, a=[b"x"], b=[b"y"], txt=["y"]), "--image-key: a, b"),
    "no image": (lambda f: write(f, txt=["y"], n=[1]), "no image column"),
    "paths": (
        lambda f: write(f, image=PATH, txt=["a"]),
        r"path of an image \(a\.jpg\)",
    ),
    "damaged": (
        lambda f: (write(f, jpg=[b"x"], txt=["y"]), (f / "00000.parquet").write_bytes(b"PAR1")),
        r"00000\.parquet cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", BAD)
def test_bad_tables_are_one_line(problem, tmp_path):
    make, message = BAD[problem]
    make(tmp_path / "in")
    with pytest.raises(DataError, match=message) as error:
        import_tables(tmp_path / "in", tmp_path / "out", workers=1)
    assert "\n" not in str(error.value)


def test_a_column_or_split_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no column 'x' of images; choose .*--image-key: image"):
        import_tables(TABLES / "hub", tmp_path / "out", image_key="x", workers=1)
    with pytest.raises(DataError, match="has no split 'val'; it has: test, train"):
        import_tables(TABLES / "hub", tmp_path / "out2", splits=("val",))
