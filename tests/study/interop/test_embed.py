"""`study data encode`: the same images give the same rows from any source."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from PIL import Image

from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.formats.webdataset import write_shard
from study.data.images import decode
from study.data.tokenizer import Tokenizer
from study.interop.embed import FrozenTowers
from sweeps.cli import app as cli
from tests.study.gemma import code_base_tokens, write_model


@pytest.fixture
def study(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["study", "data", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run


def pictures(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), np.uint8)


def png(pixels_HxWxC):
    file = io.BytesIO()
    Image.fromarray(pixels_HxWxC).save(file, "png")
    return file.getvalue()


def test_a_folder_shards_and_an_array_of_the_same_images_give_the_same_rows(bv, study, tmp_path):
    bv.save("a.npz")
    np.save("images.npy", pictures())
    files = [png(pixels) for pixels in pictures()]
    (tmp_path / "folder").mkdir()
    for i, data in enumerate(files):
        (tmp_path / "folder" / f"{i}.png").write_bytes(data)
    (tmp_path / "shards").mkdir()
    examples = [(str(i), {"png": data, "txt": b"x"}) for i, data in enumerate(files)]
    write_shard(tmp_path / "shards" / "a-0.tar", examples[:2])
    write_shard(tmp_path / "shards" / "a-1.tar", examples[2:])
    want = FrozenTowers("a.npz")(pictures())
    np.testing.assert_allclose(np.linalg.norm(want, axis=1), 1, atol=1e-6)
    for source in ("images.npy", "folder", "shards"):
        assert (
            study("encode", "--checkpoint", "a.npz", "--images", source, "--out", "o.npz")[0] == 0
        )
        with np.load("o.npz") as out:
            assert out.files == ["zimg"]
            np.testing.assert_array_equal(out["zimg"], want)


def test_texts_are_those_of_the_tokenizer_at_the_checkpoints_length(bv, study, small_glyphs):
    tokenizer = Dataset.open(small_glyphs).tokenizer
    tokens = Tokenizer(tokenizer, 5)
    table = np.random.default_rng(0).normal(size=(tokens.vocabulary.size, 32)).astype(np.float32)
    bv.save("a.npz", bv.flat | {"txt/Embed_0/embedding": table})
    Path("texts.txt").write_bytes(
        "Latin small\u2028letter a\u0085\r\nGREEK CAPITAL LETTER OMEGA\n".encode()
    )
    np.save("images.npy", pictures())
    np.save("tokens.npy", tokens(["latin small\u2028letter a\u0085", "greek capital letter omega"]))
    both = ("--images", "images.npy", "--texts", "texts.txt", "--tokenizer", tokenizer)
    code, out, _ = study("encode", "--checkpoint", "a.npz", *both, "--out", "o.npz")
    assert (code, out) == (0, "o.npz: zimg 5x32, ztxt 2x32\n")
    study("encode", "--checkpoint", "a.npz", "--texts", "tokens.npy", "--out", "t.npz")
    with np.load("o.npz") as mine, np.load("t.npz") as same:
        assert (set(mine.files), set(same.files)) == ({"zimg", "ztxt"}, {"ztxt"})
        np.testing.assert_array_equal(mine["ztxt"], same["ztxt"])


@pytest.mark.parametrize(
    ("pieces", "args", "fill"),
    [
        (256_000, (), 0),  # SigLIP 2
        (32_000, (), 1),
        (500, ("--pad", "pad"), 0),
    ],
)
def test_texts_are_filled_as_the_checkpoint_was_trained(bv, study, tmp_path, pieces, args, fill):
    """SigLIP 2 reads padding in the last position. It is known by its 256,000 pieces."""
    rng = np.random.default_rng(0)
    table = np.zeros((pieces, 32), np.float32)
    table[:500] = rng.normal(size=(min(pieces, 500), 32))
    bv.save("a.npz", bv.flat | {"txt/Embed_0/embedding": table})
    model = write_model(tmp_path / "gemma.model")
    pieces_of = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts = ["cow", "ein BILD", "ÄÖ"]
    Path("texts.txt").write_text("\n".join(texts) + "\n")
    rows = [code_base_tokens(pieces_of, text, 5, sticky=True, fill=fill) for text in texts]
    np.save("tokens.npy", np.array(rows, np.int32))
    files = ("--texts", "texts.txt", "--tokenizer", model, "--out", "mine.npz")
    assert study("encode", "--checkpoint", "a.npz:txt", *files, *args)[0] == 0
    assert (
        study("encode", "--checkpoint", "a.npz:txt", "--texts", "tokens.npy", "--out", "bv.npz")[0]
        == 0
    )
    with np.load("mine.npz") as mine, np.load("bv.npz") as want:
        np.testing.assert_array_equal(mine["ztxt"], want["ztxt"])
    assert len({tuple(row) for row in rows}) == len(rows) and rows[0][-1] == fill


def test_images_of_another_size_are_resized_as_asked(bv, study, tmp_path):
    bv.save("a.npz")
    (tmp_path / "folder").mkdir()
    large = np.random.default_rng(0).integers(0, 256, (2, 61, 47, 3), np.uint8)
    for i, pixels in enumerate(large):
        (tmp_path / "folder" / f"{i}.png").write_bytes(png(pixels))
    towers = FrozenTowers("a.npz")
    for how in ("bicubic", "bilinear"):
        images = [decode(png(pixels), size=24, channels=3, resize=how) for pixels in large]
        run = ("encode", "--checkpoint", "a.npz", "--images", "folder", "--out", f"{how}.npz")
        assert study(*run, *(() if how == "bicubic" else ("--resize", how)))[0] == 0
        with np.load(f"{how}.npz") as out:
            np.testing.assert_array_equal(out["zimg"], towers(np.stack(images)))


def test_a_data_sets_images_are_cached_for_siglit(bv, study, small_glyphs):
    gray = bv.flat["img/embedding/kernel"].mean(2, keepdims=True)
    bv.save("gray.npz", bv.flat | {"img/embedding/kernel": gray})
    code, out, _ = study("embed", small_glyphs, "--checkpoint", "gray.npz:img")
    assert (code, out.strip()) == (0, str(small_glyphs / "embeddings" / "gray"))
    dataset = Dataset.open(small_glyphs)
    cached = CachedEmbeddings.open(dataset, "gray", "val_font")
    assert (cached.dim, cached.metadata["tower"]) == (32, "mu/8")
    first = open_split(dataset, "val_font").read_images(range(3), size=24, channels=1)
    want = FrozenTowers("gray.npz")(first)
    np.testing.assert_allclose(cached.take(np.arange(3)), want, atol=1e-3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--images", "images.npy", "--out", "o.npz"], "--checkpoint"),
        (["--checkpoint", "a.npz", "--out", "o.npz"], "--images"),
        (["--checkpoint", "a.npz", "--images", "images.npy", "--out", "o.txt"], "o.txt"),
        (["--checkpoint", "a.npz", "--images", "images.npy", "--out", "no/o.npz"], "no/o.npz"),
        (["--checkpoint", "gone.npz", "--images", "images.npy", "--out", "o.npz"], "gone.npz"),
        (["--checkpoint", "a.npz", "--images", "gone", "--out", "o.npz"], "gone"),
        (["--checkpoint", "a.npz", "--images", "empty", "--out", "o.npz"], "empty"),
        (["--checkpoint", "a.npz", "--images", "damaged", "--out", "o.npz"], "x.png"),
        (["--checkpoint", "a.npz", "--images", "small.npy", "--out", "o.npz"], "24 x 24 x 3"),
        (["--checkpoint", "a.npz", "--texts", "texts.txt", "--out", "o.npz"], "tokenizer"),
        (["--checkpoint", "a.npz", "--texts", "long.npy", "--out", "o.npz"], "takes 5 tokens"),
        (["--checkpoint", "a.npz", "--texts", "rare.npy", "--out", "o.npz"], "below 50"),
        (["--checkpoint", "a.npz:img", "--texts", "rare.npy", "--out", "o.npz"], "no text tower"),
        (["--checkpoint", "a.npz:txt", "--images", "images.npy", "--out", "o.npz"], "no image"),
        (
            ["--image-size", "32", "--checkpoint", "a.npz", "--images", "x", "--out", "o.npz"],
            "another image size",
        ),
    ],
)
def test_bad_input_is_one_line(bv, study, tmp_path, args, message):
    bv.save("a.npz")
    np.save("images.npy", pictures(2))
    np.save("small.npy", pictures(2)[:, :8])
    np.save("long.npy", np.ones((2, 9), np.int32))
    np.save("rare.npy", np.full((2, 5), 99))
    (tmp_path / "texts.txt").write_text("a\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "x.png").write_bytes(b"no picture")
    code, out, err = study("encode", *args)
    assert (code, out) == (2, "")
    assert err.startswith("study: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "o.npz").exists()
