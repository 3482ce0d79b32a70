"""Glyphs: the same bytes however it is written, and the right contents of each split."""

import collections
import json
import unicodedata

import numpy as np
import pytest

from study.data.formats.dataset import (
    CLASS_NAMES,
    DATASET_FILE,
    TEMPLATES,
    TOKENIZER,
    DataError,
    Dataset,
)
from study.data.formats.open_split import open_split
from study.data.glyphs import render
from study.data.glyphs.characters import (
    FONTS,
    TEST_FONTS,
    TRAINING_FONTS,
    VALIDATION_FONTS,
    Characters,
    font_file,
    name_words,
    style,
)
from study.data.glyphs.write import caption, write_glyphs
from study.data.sources import load_labels


def contents(dataset) -> dict[str, bytes]:
    files = [shard for split in dataset.splits.values() for shard in split.shards]
    files += [dataset.folder / name for name in (TOKENIZER, CLASS_NAMES, TEMPLATES, DATASET_FILE)]
    return {path.name: path.read_bytes() for path in files}


# --- bytes --------------------------------------------------------------------------------------


def test_two_processes_write_the_bytes_of_one(small, recipe, tmp_path):
    other = write_glyphs(tmp_path / "glyphs", workers=2, **recipe)
    assert contents(other) == contents(small)
    assert other.fingerprint == small.fingerprint


@pytest.mark.parametrize("finished", [True, False])
def test_a_lost_or_torn_shard_is_written_again_and_no_other(copy, recipe, finished):
    before = contents(Dataset.open(copy))
    if not finished:
        # As while writing: the recipe is inside.
        (copy / DATASET_FILE).rename(copy / "begun.json")
    (copy / "train-00001.tar").unlink()
    kept = (copy / "train-00000.tar").stat().st_ino
    if finished:
        torn = copy / "test_font-00000.tar"
        torn.write_bytes(torn.read_bytes()[:5000])
    again = write_glyphs(copy, workers=1, **recipe)
    assert contents(again) == before
    assert (copy / "train-00000.tar").stat().st_ino == kept
    assert not (copy / "begun.json").exists()


def test_a_kill_at_any_shard_loses_nothing(recipe, small, tmp_path, monkeypatch):
    out, write = tmp_path / "glyphs", render.encode_png
    calls = iter(range(10**9))

    def killed(image):
        if next(calls) > 1100:
            raise KeyboardInterrupt
        return write(image)

    monkeypatch.setattr(render, "encode_png", killed)
    with pytest.raises(KeyboardInterrupt):
        write_glyphs(out, workers=1, **recipe)
    monkeypatch.undo()
    with pytest.raises(DataError, match="unfinished"):
        Dataset.open(out)
    assert len(list(out.glob("*.tar"))) == 2
    assert contents(write_glyphs(out, workers=1, **recipe)) == contents(small)


def test_a_finished_data_set_is_left_alone(copy, recipe):
    stamps = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    write_glyphs(copy, **recipe)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == stamps


def test_newer_libraries_do_not_disown_a_finished_data_set(copy, recipe):
    metadata = json.loads((copy / DATASET_FILE).read_text())
    metadata["recipe"]["libraries"]["pillow"] = "1.0"
    (copy / DATASET_FILE).write_text(json.dumps(metadata))
    assert write_glyphs(copy, **recipe).recipe["libraries"]["pillow"] == "1.0"
    (copy / "train-00000.tar").unlink()  # but they cannot finish it: the bytes would not fit
    with pytest.raises(DataError, match=r"pillow was '1\.0', is .*--force"):
        write_glyphs(copy, **recipe)


def test_another_recipe_is_refused_unless_forced(copy, recipe):
    other = {**recipe, "views": 1}
    with pytest.raises(DataError, match=r"views was 2, is 1.*--out, or --force"):
        write_glyphs(copy, workers=1, **other)
    (copy / "thesis.tex").write_text("precious")
    dataset = write_glyphs(copy, workers=1, force=True, **other)
    assert dataset.split("train").examples == len(open_split(dataset, "train"))
    assert not (copy / "embeddings").exists()
    assert (copy / "thesis.tex").read_text() == "precious"


def test_a_folder_with_other_files_is_refused(tmp_path, recipe):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        write_glyphs(tmp_path, **recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_view_depends_on_nothing_but_font_character_and_view():
    font, codes = "DejaVuSerif", np.array([65, 97, 0x416])
    masters = [render.master(font_file(font), int(c)) for c in codes]
    seeds = render.view_seeds(font, codes, np.array([0, 3, 1]))
    together = render.views(masters, seeds)
    for i in range(3):
        np.testing.assert_array_equal(render.views([masters[i]], seeds[i : i + 1])[0], together[i])
    others = [
        render.view_seeds(font, codes, np.array([1, 4, 2])),
        render.view_seeds("DejaVuSans", codes, np.array([0, 3, 1])),
        render.view_seeds(font, codes + 1, np.array([0, 3, 1])),
    ]
    for seeds in others:
        again = render.views(masters, seeds)
        assert all((again[i] != together[i]).mean() > 0.1 for i in range(3))


def test_an_unturned_view_is_the_master_at_half_size(monkeypatch):
    for name in ("ROTATION_DEGREES", "SCALE_SHARE", "SHIFT_PIXELS", "GAIN_SHARE"):
        monkeypatch.setattr(render, name, 0.0)
    monkeypatch.setattr(render, "_noise_strips", lambda: np.zeros((1 << 18, 576), np.float32))
    master = render.master(font_file("DejaVuSans"), ord("R"))
    view = render.views([master], np.zeros(1, np.uint64))[0]
    halved = np.asarray(master, np.float32).reshape(24, 2, 24, 2).mean((1, 3))
    assert np.abs(view - halved).max() <= 1


def test_noise_has_mean_0_and_the_stated_deviation():
    strip = render._noise_strips()[:, 0]
    assert abs(strip.mean()) < 0.1
    assert abs(strip.std() - render.NOISE_SD) < 0.1


# --- splits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def characters() -> Characters:
    return Characters.of_fonts(limit=None, held_out=750)


def test_all_characters_are_there(characters):
    assert len(characters.codepoints) > 7000
    assert len(characters.held_out) == 750
    assert len(set(characters.class_names)) == len(characters.class_names)
    assert Characters.of_fonts(limit=None, held_out=750).held_out == characters.held_out


def test_each_word_of_a_held_out_character_is_in_three_training_characters(characters):
    names = dict(zip(characters.codepoints, characters.class_names, strict=True))
    trained = collections.Counter(
        word
        for c in set(characters.of_split("train").codepoint_N.tolist())
        for word in set(names[c].split())
    )
    assert min(trained[word] for c in characters.held_out for word in names[c].split()) >= 3


def test_splits_have_their_fonts_and_characters(characters):
    pairs = {
        split: {
            (FONTS[f], c)
            for f, c in zip(part.font_N.tolist(), part.codepoint_N.tolist(), strict=True)
        }
        for split in ("train", "val_font", "test_font", "test_chars")
        for part in [characters.of_split(split)]
    }
    assert sum(map(len, pairs.values())) == len(set().union(*pairs.values()))
    for split, fonts, held_out in [
        ("train", TRAINING_FONTS, False),
        ("val_font", VALIDATION_FONTS, False),
        ("test_font", TEST_FONTS, False),
        ("test_chars", TRAINING_FONTS, True),
    ]:
        assert {font for font, _ in pairs[split]} == set(fonts)
        assert {c in characters.held_out for _, c in pairs[split]} == {held_out}
    trained = {c for _, c in pairs["train"]}
    assert {c for _, c in pairs["val_font"] | pairs["test_font"]} <= trained
    assert {c for _, c in pairs["test_chars"]} == characters.held_out


def test_the_first_of_a_split_are_a_fair_sample(characters):
    part = characters.of_split("test_font")
    share = (part.font_N == FONTS.index(TEST_FONTS[0])).mean()
    assert abs((part.font_N[:1000] == FONTS.index(TEST_FONTS[0])).mean() - share) < 0.06
    middle = np.median(part.codepoint_N)
    assert abs((part.codepoint_N[:1000] < middle).mean() - 0.5) < 0.06


# --- captions and classes -----------------------------------------------------------------------


def test_words_and_styles():
    assert name_words("BRAILLE PATTERN DOTS-1246") == "BRAILLE PATTERN DOTS D1 D2 D4 D6"
    assert name_words("SANS-SERIF BOLD") == "SANS SERIF BOLD"
    assert caption("DejaVuSerif-Italic", ord("a")) == "OBLIQUE SERIF LATIN SMALL LETTER A"
    assert caption("STIXGeneralBolIta", ord("a")).startswith("BOLD OBLIQUE TIMES LATIN")
    assert caption("DejaVuSans", ord("a")) == "LATIN SMALL LETTER A"


def test_caption_class_and_metadata_agree(small):
    for split in small.splits:
        reader, class_N = open_split(small, split), load_labels(small, split)
        assert len(class_N) == len(reader) == small.split(split).examples
        for label, example in zip(class_N, reader, strict=True):
            metadata, name = example["json"], small.class_names[label]
            assert metadata["class"] == label
            assert example["text"] == f"{style(metadata['font'])} {name}".strip()
            assert metadata["name"] == unicodedata.name(metadata["char"])
            assert metadata["codepoint"] == ord(metadata["char"])
            assert name_words(metadata["name"]) == name


def test_training_pairs_have_all_views_and_others_one(small, recipe):
    views = collections.defaultdict(list)
    reader = open_split(small, "train")
    for i in range(len(reader)):
        metadata = reader.json(i)
        views[metadata["font"], metadata["codepoint"]].append(metadata["view"])
    assert {tuple(sorted(seen)) for seen in views.values()} == {tuple(range(recipe["views"]))}
    reader = open_split(small, "test_font")
    assert {reader.json(i)["view"] for i in range(len(reader))} == {0}
    assert len({reader.key(i) for i in range(len(reader))}) == len(reader)


def test_templates_are_the_styles_of_training_fonts(small):
    prompts = set(small.templates)
    assert prompts == {f"{style(font)} {{}}".strip() for font in TRAINING_FONTS}
    assert len(prompts) == len(small.templates)
    assert small.templates[0] == "{}"
