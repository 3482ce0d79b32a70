"""emoji-36 from packages of the real form with sixteen emoji of our own; resvg draws them."""

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from study.config import Data
from study.data.benchmarks.retrieval_texts import read_captions, read_languages
from study.data.emoji import drawings, packages, write
from study.data.emoji.captions import LANGUAGES, MOST_KEYWORDS, Captions
from study.data.emoji.drawings import View, emoji_key, render
from study.data.emoji.packages import CLDR, FLUENT, NOTO, TWEMOJI
from study.data.emoji.vocabularies import (
    _coverage,
    file_name,
    read_names_and_keywords,
    train_tokenizers,
)
from study.data.emoji.write import IMAGES_OF, write_emoji
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.images import decode
from study.data.sources import load_labels
from study.data.tokenizer import UNKNOWN, Tokenizer

pytest.importorskip("resvg_py")

EMOJI = [chr(0x1F400 + i) for i in range(16)]
NAMES = [f"{c} {t}" for c in ("red", "blue", "green", "pink") for t in ("cat", "dog", "cow", "fox")]
COLORS = ["#e33", "#33e", "#3e3", "#e9e"]
TONED = f"{EMOJI[0]}\U0001f3fb"


def archive(path: Path, files: dict) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def body(i: int, size: int) -> str:
    return (
        f'<rect x="{size / 4}" y="{size / 8 * (1 + i % 4)}" width="{size / 3}" height="{size / 4}" '
        f'fill="{COLORS[i // 4]}"/>'
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The npm packages' files, and OpenMoji's folder."""
    folder = tmp_path_factory.mktemp("packages")
    for package, size in ((NOTO, 128), (FLUENT, 32), (TWEMOJI, 36)):
        chars = {f"{ord(e):x}": f"icon-{i}" for i, e in enumerate(EMOJI)}
        chars["1f400-fe0f"] = "icon-0"
        chars["1f400-1f3fb"] = "icon-1"  # with a skin tone: left out
        icons = {f"icon-{i}": {"body": body(i, size)} for i in range(16)}
        archive(
            folder / package.file,
            {"chars.json": chars, "icons.json": {"icons": icons, "width": size, "height": size}},
        )
    annotations = {}
    for language in LANGUAGES:
        entries = {
            e: {"default": [f"{language} kw{i % 3}", f"{language} {i}", "kw"], "tts": [name]}
            for i, (e, name) in enumerate(zip(EMOJI, NAMES, strict=True))
        }
        if language != "en":
            for entry in entries.values():
                entry["tts"] = [f"{language} {entry['tts'][0]}"]
        if language == "mi":
            del entries[EMOJI[3]]
        entries[TONED] = {"tts": ["left out"]}
        code = "qu" if language == "quz" else language
        content = {"annotations": {"annotations": entries}}
        annotations[f"annotations/{code}/annotations.json"] = content
    archive(folder / CLDR.file, annotations)
    (folder / "openmoji").mkdir()
    for i, e in enumerate(EMOJI):
        svg = f'<svg id="emoji" viewBox="0 0 72 72">{body(i, 72)}</svg>'
        (folder / "openmoji" / f"{ord(e):X}.svg").write_text(f"<?xml version='1.0'?>\n{svg}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def installed(sources):
    own = tuple(
        dataclasses.replace(
            package, sha256=hashlib.sha256((sources / package.file).read_bytes()).hexdigest()
        )
        for package in packages.NPM
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "NPM", own)
        for module in (drawings, write):
            patch.setattr(module, "openmoji_folder", lambda: sources / "openmoji")
        yield


@pytest.fixture(scope="module")
def captions(sources) -> Captions:
    return Captions.read(sources)


@pytest.fixture(scope="module")
def dataset(sources, installed, tmp_path_factory) -> Dataset:
    out = tmp_path_factory.mktemp("written") / "emoji"
    return write_emoji(out, packages=sources, workers=1)


def test_the_same_packages_give_the_same_bytes(sources, dataset, tmp_path):
    again = write_emoji(tmp_path / "again", packages=sources, workers=1)
    assert (again.folder / "dataset.json").read_bytes() == (
        dataset.folder / "dataset.json"
    ).read_bytes()
    again.verify()
    assert "CC BY-SA 4.0" in (again.folder / "ATTRIBUTION.md").read_text()
    # A finished one needs no packages.
    assert write_emoji(tmp_path / "again", packages=tmp_path / "no").fingerprint == (
        dataset.fingerprint
    )


def test_no_training_split_has_a_held_out_emoji_or_artist(dataset):
    held = {
        open_split(dataset, "test_emoji").json(i)["emoji"]
        for i in range(dataset.splits["test_emoji"].examples)
    }
    assert 1 <= len(held) <= 4  # whose words three others have
    reader = open_split(dataset, "drawings")
    about = [reader.json(i) for i in range(len(reader))]
    assert not held & {each["emoji"] for each in about}
    assert Counter(each["artist"] for each in about) == dict.fromkeys(
        ("noto", "fluent"), 3 * (16 - len(held))
    )
    for split, artist in (("test_artist", "twemoji"), ("shift_artist", "openmoji")):
        reader = open_split(dataset, split)
        about = [reader.json(i) for i in range(len(reader))]
        assert {(each["artist"], each["view"]) for each in about} == {(artist, 0)}
        assert sorted(each["class"] for each in about) == list(range(16))
    assert [dataset.class_names[i] for i in load_labels(dataset, "test_artist")] == [
        open_split(dataset, "test_artist").text(i) for i in range(16)
    ]


def test_each_drawing_has_a_caption_of_its_own_in_each_language(dataset, captions):
    reader = open_split(dataset, "train")
    rows = [(reader.json(i), reader.text(i)) for i in range(len(reader))]
    drawing_rows = Counter((r["emoji"], r["artist"], r["view"]) for r, _ in rows)
    assert set(drawing_rows.values()) == {36, 35}  # Maori has no name for one emoji
    assert len({(r["emoji"], r["artist"], r["view"], r["language"]) for r, _ in rows}) == len(rows)
    for row, text in rows:
        words = captions.words[row["language"]][row["emoji"]]
        if row["kind"] == "name":
            assert text == words.name
        else:
            parts = text.split(", ")
            assert set(parts) <= set(words.keywords) and len(set(parts)) == len(parts)
            assert 1 <= len(parts) <= MOST_KEYWORDS
    kinds = Counter(row["kind"] for row, _ in rows)
    assert 0.45 < kinds["name"] / len(rows) < 0.55


def test_the_splits_of_pairs_differ_in_their_languages_only(dataset):
    languages = {}
    for split in IMAGES_OF:
        reader = open_split(dataset, split)
        languages[split] = Counter(reader.json(i)["language"] for i in range(len(reader)))
    images = dataset.splits["drawings"].examples
    assert languages["train_en"] == {"en": 36 * images}
    assert languages["train"]["de"] == images == 2 * languages["tune"]["de"]
    web = languages["train_web"]
    assert web["en"] > 1.5 * web["es"] > 3 * web["quz"] > 0
    rows = open_split(dataset, "tune")
    assert {rows.json(i)["artist"] for i in range(len(rows))} == {"noto"}
    every = open_split(dataset, "train")
    texts = {}
    for i in range(len(every)):
        row = every.json(i)
        texts[row["emoji"], row["artist"], row["view"], row["language"]] = every.text(i)
    for i in range(len(rows)):
        row = rows.json(i)
        assert texts[row["emoji"], "noto", row["view"], row["language"]] == rows.text(i)


def test_the_test_splits_are_retrieved_by_language(dataset, captions):
    assert read_languages(dataset, "test_artist") == tuple(sorted(LANGUAGES))
    index_N = np.arange(16)
    texts, owner = read_captions(dataset, "test_artist", index_N, language="te")
    reader = open_split(dataset, "test_artist")
    assert texts == [captions.words["te"][reader.json(i)["emoji"]].name for i in range(16)]
    assert owner.tolist() == list(range(16))
    assert len(read_captions(dataset, "test_artist", index_N, language="mi")[0]) == 15


def test_views_move_a_drawing_and_the_first_is_plain():
    svg = f'<svg viewBox="0 0 36 36">{body(0, 36)}</svg>'
    first, again, *others = (
        decode(render(svg, View("1f400", "noto", n)), size=224, channels=3) for n in (0, 0, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    rows, cols = np.nonzero(first[..., 1] < 100)  # a quarter of the page, shrunk to 0.9
    np.testing.assert_allclose(
        [rows.min(), cols.min()], 224 * 0.05 + 224 * 0.9 / 8 * np.array([1, 2]), atol=2
    )
    for other in others:
        assert (other != first).any() and (other[0, 0] == 255).all()


def test_keys_have_no_variation_selector_and_no_skin_tone():
    assert emoji_key("1F441-FE0F-200D-1F5E8-FE0F") == "1f441-200d-1f5e8"
    assert emoji_key("1f468-1f3fb-200d-1f9b0") is None


def test_a_missing_package_is_named_with_the_command_that_gets_it(sources, tmp_path):
    shutil.copy(sources / NOTO.file, tmp_path)
    with pytest.raises(
        DataError,
        match=r"lacks iconify-json-twemoji-1\.2\.5\.tgz; get it with `cd .* && npm pack "
        r"@iconify-json/twemoji@1\.2\.5 @iconify-json/fluent-emoji-flat@1\.2\.6 cldr-ann",
    ):
        write_emoji(tmp_path / "out", packages=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_changed_package_is_refused(sources, tmp_path):
    folder = Path(shutil.copytree(sources, tmp_path / "packages"))
    (folder / CLDR.file).write_bytes(b"something else")
    with pytest.raises(DataError, match=r"cldr.* is not the published file .* remove it and run"):
        write_emoji(tmp_path / "out", packages=folder)


def test_npm_is_asked_for_the_pinned_versions(sources, tmp_path, monkeypatch):
    calls = []

    def pack(command, *, cwd, **_):
        calls.append(command)
        for path in sources.glob("*.tgz"):
            shutil.copy(path, cwd)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(packages.subprocess, "run", pack)
    with packages.npm_files(None) as folder:
        assert len(list(folder.glob("*.tgz"))) == 4
    assert not folder.exists()
    assert calls == [["npm", "pack", "--silent", *(package.spec for package in packages.NPM)]]
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="npm is not installed; on a machine that has it run"):
        write_emoji(tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(sources, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else"):
        write_emoji(tmp_path, packages=sources)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_tokenizers_of_other_sizes_know_the_captions_and_are_trained_once(dataset):
    texts = read_names_and_keywords(dataset)
    assert {"red cat", "kw", "de kw2"} <= set(texts) and not any(", " in text for text in texts)
    train_tokenizers(dataset, [80, 400])
    models = {pieces: dataset.folder / file_name(pieces) for pieces in (80, 400)}
    before = {path: path.read_bytes() for path in models.values()}
    train_tokenizers(dataset, [80, 400])
    assert {path: path.read_bytes() for path in models.values()} == before
    dataset.verify()  # the data set itself is as it was
    small, large = (
        Tokenizer.open(dataset, Data(dataset="emoji", tokenizer=path.name))
        for path in models.values()
    )
    assert small.vocabulary.size <= 80 < large.vocabulary.size <= 400
    lengths = [(tokens(texts) != tokens.vocabulary.eos).sum() for tokens in (small, large)]
    assert lengths[0] > lengths[1]
    assert (large(texts) != UNKNOWN).all()


def test_the_rarest_characters_are_left_out_two_percent_of_a_text_at_most():
    texts = ["Aa" * 98 + " b", "c" * 3]
    assert [_coverage(texts, n) for n in (4, 3, 2, 1)] == [1, 1, 199 / 200, 196 / 200]
    assert _coverage(["abc"], 1) == 0.98
