"""Benchmarks as they are published, read into our own format: images, labels, captions."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from study.data.benchmarks.importer import import_benchmark
from study.data.benchmarks.retrieval_texts import read_captions, read_languages
from study.data.formats.dataset import DataError, Dataset, read_lines, split_lines
from study.data.formats.open_split import open_split
from study.data.sources import load_labels


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (12, 10), (level, 0, 0)).save(out, "PNG")
    return out.getvalue()


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def levels(dataset, split):
    """What was drawn into each image."""
    reader = open_split(dataset, split)
    return reader.read_images(range(len(reader)), size=4, channels=3)[:, 0, 0, 0].tolist()


@pytest.fixture
def clip_benchmark(tmp_path):
    root = tmp_path / "wds_pets"
    for shard, start in ((0, 0), (2, 2), (10, 4)):  # 10 comes after 2
        rows = [(f"s{i:07d}", i) for i in (start, start + 1)]
        tar(
            root / "test" / f"{shard}.tar",
            [
                m
                for key, i in rows
                for m in ((f"{key}.cls", str(i % 3).encode()), (f"{key}.png", png(i)))
            ],
        )
    tar(root / "train" / "0.tar", [("a.png", png(9)), ("a.cls", b"2\n")])
    (root / "test" / "nshards.txt").write_text("3\n")
    (root / "classnames.txt").write_text("cat\ndog\nfish\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nmy {c}\n")
    return root


def test_clip_benchmark_classification(clip_benchmark, tmp_path):
    dataset = import_benchmark(clip_benchmark, tmp_path / "pets", shard_examples=4)
    assert {name: s.examples for name, s in dataset.splits.items()} == {"test": 6, "train": 1}
    assert dataset.class_names == ("cat", "dog", "fish")
    assert dataset.templates == ("a photo of a {}.", "my {}")
    assert load_labels(dataset, "test").tolist() == [0, 1, 2, 0, 1, 2]
    assert levels(dataset, "test") == [0, 1, 2, 3, 4, 5]
    assert len(dataset.split("test").shards) == 2
    dataset.verify()


def test_the_same_benchmark_has_the_same_fingerprint(clip_benchmark, tmp_path):
    a, b = (import_benchmark(clip_benchmark, tmp_path / name) for name in "ab")
    assert a.fingerprint == b.fingerprint
    one = import_benchmark(clip_benchmark, tmp_path / "c", splits=("train",))
    assert set(one.splits) == {"train"}


def test_clip_benchmark_retrieval_has_one_caption_a_line(tmp_path):
    members = [
        ("0.png", png(0)),
        ("0.txt", "a cat\na dög".encode()),
        ("1.png", png(1)),
        ("1.txt", b"x\n"),
    ]
    tar(tmp_path / "wds" / "test" / "0.tar", members)
    dataset = import_benchmark(tmp_path / "wds", tmp_path / "out")
    texts, owner = read_captions(dataset, "test", np.array([1, 0]))
    assert texts == ["x", "a cat", "a dög"]
    assert owner.tolist() == [0, 1, 1]
    assert dataset.class_names == ()


@pytest.fixture
def image_folder(tmp_path):
    root = tmp_path / "imagenet"
    for split in ("train", "val"):
        for level, name in enumerate(("n02", "n01", "n10")):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "x.PNG").write_bytes(png(level))
            (root / split / name / "notes.md").write_text("no image")
    return root


def test_image_folder_has_its_classes_in_the_order_of_their_names(image_folder, tmp_path):
    (image_folder / "classnames.txt").write_text("tench\nshark\nhen\n")
    dataset = import_benchmark(image_folder, tmp_path / "out", splits=("val",))
    assert dataset.class_names == ("tench", "shark", "hen")
    assert load_labels(dataset, "val").tolist() == [0, 1, 2]
    assert levels(dataset, "val") == [1, 0, 2]  # n01, n02, n10
    assert dataset.templates == ("a photo of a {}.",)


def test_image_folder_without_names_or_splits_counts_numbers_by_value(tmp_path):
    for number in (0, 2, 10):
        (tmp_path / "v2" / str(number)).mkdir(parents=True)
        (tmp_path / "v2" / str(number) / "a.jpg").write_bytes(png(number))
    dataset = import_benchmark(tmp_path / "v2", tmp_path / "out")
    assert dataset.class_names == ("0", "2", "10")
    by_class = dict(
        zip(load_labels(dataset, "test").tolist(), levels(dataset, "test"), strict=True)
    )
    assert by_class == {0: 0, 1: 2, 2: 10}


@pytest.fixture
def karpathy(tmp_path):
    entries = []
    for i, split in enumerate(("train", "test", "test")):
        (tmp_path / "val2014").mkdir(exist_ok=True)
        (tmp_path / "val2014" / f"{i}.jpg").write_bytes(png(i))
        sentences = [{"raw": f"Image {i}, caption {k}.", "tokens": []} for k in range(5)]
        entries.append(
            {"filepath": "val2014", "filename": f"{i}.jpg", "split": split, "sentences": sentences}
        )
    path = tmp_path / "annotations" / "dataset_coco.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return path


def test_karpathys_split_has_five_captions_an_image(karpathy, tmp_path):
    dataset = import_benchmark(karpathy, tmp_path / "coco", splits=("test",), images=tmp_path)
    texts, owner = read_captions(dataset, "test", np.arange(2))
    assert texts[6] == "Image 2, caption 1."
    assert owner.tolist() == [0] * 5 + [1] * 5
    assert levels(dataset, "test") == [1, 2]


@pytest.fixture
def crossmodal(tmp_path):
    root = tmp_path / "xm3600"
    (root / "images").mkdir(parents=True)
    lines = []
    for i in range(3):
        (root / "images" / f"k{i}.jpg").write_bytes(png(i))
        row = {"image/key": f"k{i}", "image/locale": "en"}
        for language in ("en", "quz", "zh"):
            texts = [f"{language}{i}", f"{language}{i}b"][: 1 + i % 2]
            row[language] = {"caption": texts, "caption/tokenized": [t.upper() for t in texts]}
        lines.append(json.dumps(row))
    (root / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_crossmodal_has_captions_by_language(crossmodal, tmp_path):
    dataset = import_benchmark(crossmodal, tmp_path / "out")
    assert read_languages(dataset, "test") == ("en", "quz", "zh")
    texts, owner = read_captions(dataset, "test", np.arange(3), language="zh")
    assert texts == ["zh0", "zh1", "zh1b", "zh2"]
    assert owner.tolist() == [0, 1, 1, 2]
    assert levels(dataset, "test") == [0, 1, 2]
    with pytest.raises(DataError, match="no caption in the language 'fr'"):
        read_captions(dataset, "test", np.arange(1), language="fr")
    with pytest.raises(DataError, match="3 languages"):
        read_captions(dataset, "test", np.arange(1))


def test_images_without_a_caption_in_a_language_have_no_row(crossmodal, tmp_path):
    lines = [json.loads(line) for line in (crossmodal / "captions.jsonl").read_text().splitlines()]
    del lines[0]["quz"]  # of the first image: all are looked at for the list of languages
    (crossmodal / "captions.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    dataset = import_benchmark(crossmodal, tmp_path / "out")
    assert read_languages(dataset, "test") == ("en", "quz", "zh")
    texts, owner = read_captions(dataset, "test", np.arange(3), language="quz")
    assert [text[:3] for text in texts] == ["quz"] * len(texts)
    assert sorted(set(owner.tolist())) == [1, 2]


def test_our_own_captions_are_the_texts(small):
    texts, owner = read_captions(small, "val_font", np.array([3, 1]))
    reader = open_split(small, "val_font")
    assert texts == [reader.text(3), reader.text(1)]
    assert owner.tolist() == [0, 1]
    with pytest.raises(DataError, match="no captions by language"):
        read_languages(small, "val_font")


def broken_tar(root):
    path = root / "test" / "0.tar"
    path.write_bytes(path.read_bytes()[:700])


DAMAGE = {
    "an unknown split": (
        "clip_benchmark",
        lambda root: None,
        "no split 'dev'.*test, train",
    ),
    "a cut tar": ("clip_benchmark", broken_tar, "0.tar.*damaged"),
    "too few class names": (
        "clip_benchmark",
        lambda root: (root / "classnames.txt").write_text("cat\n"),
        "class 1, but there are 1 class names",
    ),
    "names that do not fit the folders": (
        "image_folder",
        lambda root: (root / "classnames.txt").write_text("cat\n"),
        "1 lines in classnames.txt, 3 class folders",
    ),
    "a missing image": (
        "crossmodal",
        lambda root: (root / "images" / "k1.jpg").unlink(),
        "k1.jpg: No such file.*--images",
    ),
    "a torn line": (
        "crossmodal",
        lambda root: (root / "captions.jsonl").write_text('{"image/key"'),
        "captions.jsonl, line 1",
    ),
    "no Karpathy split": ("karpathy", lambda path: path.write_text("{}"), "not a Karpathy split"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_one_line_and_leaves_no_data_set(what, tmp_path, request):
    fixture, damage, words = DAMAGE[what]
    source = request.getfixturevalue(fixture)
    damage(source)
    splits = ("dev",) if "unknown split" in what else ()
    with pytest.raises(DataError, match=words) as error:
        import_benchmark(source, tmp_path / "out", splits=splits)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(DataError):
        Dataset.open(tmp_path / "out")


def test_other_folders_and_used_targets_are_refused(tmp_path, image_folder):
    with pytest.raises(DataError, match="does not exist"):
        import_benchmark(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="unknown layout"):
        import_benchmark(tmp_path / "empty", tmp_path / "out")
    import_benchmark(image_folder, tmp_path / "out")
    with pytest.raises(DataError, match="holds a data set already"):
        import_benchmark(image_folder, tmp_path / "out")


# --- listings that name files --------------------------------------------------------------------


def listed(path, **entry):
    """A Karpathy JSON whose first image is this one."""
    metadata = json.loads(path.read_text())
    metadata["images"][1] |= entry
    path.write_text(json.dumps(metadata))
    return path


def outside(tmp_path, images):
    """A file next to `images`, and the names by which a listing could reach it."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(png(77))
    (images / "link.jpg").symlink_to(secret)
    (images / "folder").symlink_to(tmp_path)
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    up = "../" * len(images.relative_to(tmp_path).parts)
    return [str(secret), f"{up}secret.jpg", "link.jpg", "folder/secret.jpg", "loop.jpg", "a\0.jpg"]


@pytest.mark.parametrize("field", ["filename", "filepath"])
def test_a_karpathy_entry_outside_of_the_images_is_refused(karpathy, tmp_path, field):
    images = karpathy.parent.parent / "val2014"
    for name in outside(tmp_path, images):
        entry = {"filename": name, "filepath": ""}
        if field == "filepath":
            entry["filepath"], _, entry["filename"] = name.rpartition("/")
        with pytest.raises(
            DataError, match=r"dataset_coco\.json: the image '.*' is not inside"
        ) as e:
            import_benchmark(
                listed(karpathy, **entry), tmp_path / "out", splits=("test",), images=images
            )
        assert repr(name) in str(e.value) and "\n" not in str(e.value)
        assert not list((tmp_path / "out").glob("*.tar"))


def test_a_crossmodal_key_outside_of_the_images_is_refused(crossmodal, tmp_path):
    for name in outside(tmp_path, crossmodal / "images"):
        row = {"image/key": name.removesuffix(".jpg"), "en": {"caption": ["x"]}}
        (crossmodal / "captions.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=r"captions\.jsonl: the image '.*' is not inside"):
            import_benchmark(crossmodal, tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.tar"))


def test_links_within_the_images_and_a_linked_folder_of_images_are_followed(karpathy, tmp_path):
    images = tmp_path / "val2014"
    (images / "1.jpg").rename(images / "real.jpg")
    (images / "1.jpg").symlink_to("real.jpg")
    (tmp_path / "linked").symlink_to(tmp_path)
    dataset = import_benchmark(
        karpathy, tmp_path / "out", splits=("test",), images=tmp_path / "linked"
    )
    assert levels(dataset, "test") == [1, 2]


def test_a_file_without_the_name_of_an_image_is_refused(karpathy, tmp_path):
    (tmp_path / "val2014" / "notes.txt").write_text("text")
    path = listed(karpathy, filename="notes.txt")
    with pytest.raises(DataError, match=r"notes\.txt is not an image by its name"):
        import_benchmark(path, tmp_path / "out", images=tmp_path)


@pytest.mark.parametrize("split", ["../up", "/abs", "", "a/b"])
def test_a_split_that_would_be_a_path_is_refused(karpathy, tmp_path, split):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is not a plain name"):
        import_benchmark(listed(karpathy, split=split), tmp_path / "out" / "set", images=tmp_path)
    assert not list(tmp_path.rglob("*.tar"))


# --- rows that are lines -------------------------------------------------------------------------

ODD = "a\u2028b\u0085c\x0bd\x1ce\rf"


def test_only_line_feeds_end_a_line(tmp_path):
    assert split_lines(f"{ODD}\nx\r\n\r\n\ny") == [ODD, "x", "", "", "y"]
    assert split_lines("") == [] and split_lines("\n") == [""]
    (tmp_path / "a.txt").write_bytes(f"{ODD}\r\n{ODD}\n".encode())
    assert read_lines(tmp_path / "a.txt") == [ODD, ODD]
    (tmp_path / "a.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text \(byte 3\)"):
        read_lines(tmp_path / "a.txt")


def test_class_names_and_captions_may_hold_other_separators(clip_benchmark, tmp_path):
    (clip_benchmark / "classnames.txt").write_bytes(f"{ODD}\r\ndog\r\nfish\r\n".encode())
    assert import_benchmark(clip_benchmark, tmp_path / "a").class_names == (ODD, "dog", "fish")
    tar(tmp_path / "wds" / "test" / "0.tar", [("0.png", png(0)), ("0.txt", f"{ODD}\r\nx".encode())])
    texts, _ = read_captions(
        import_benchmark(tmp_path / "wds", tmp_path / "b"), "test", np.array([0])
    )
    assert texts == [ODD, "x"]


def test_captions_that_are_not_utf8_are_one_line(tmp_path):
    tar(tmp_path / "wds" / "test" / "0.tar", [("0.png", png(0)), ("0.txt", b"\xff")])
    with pytest.raises(DataError, match=r"the captions of 0\.tar/0 are not UTF-8"):
        import_benchmark(tmp_path / "wds", tmp_path / "out")
