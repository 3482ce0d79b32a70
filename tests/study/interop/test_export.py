"""Written files hold what a cell computes; what a format cannot hold is refused.

`siglip_tiny.config.json` is the configuration that transformers 5.24.0 wrote for the model of
`siglip_tiny.safetensors`.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file

from study.config import (
    CachedImage,
    Cell,
    Data,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.model import Vocabulary
from study.data.formats.dataset import DataError, Dataset
from study.interop import hugging_face
from study.interop.embed import FrozenTowers
from study.interop.export import Source, export_big_vision
from study.interop.export_hugging_face import export_hugging_face
from study.interop.infer_model import infer_model
from study.interop.load import load_params
from study.models.two_towers import TwoTowers, bias
from tests.study.gemma import write_model
from tests.study.interop.conftest import random
from tests.study.interop.test_hugging_face import FILE
from tests.study.interop.test_start import equal

TEXT = TextTransformer(depth=2)
IMAGE = ViT(variant="mu/8", depth=2)


def make_source(model, *, loss=None, data=None, channels=3, pieces=50, length=8):
    """A cell's model with random parameters, images, tokens, and a function that embeds them."""
    cell = Cell(model=model, loss=loss or Sigmoid(), data=data or Data(), batch_size=16)
    towers, rng = TwoTowers(cell, Vocabulary(pieces, eos=1, pad=1)), np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 24, 24, channels), np.uint8)
    tokens = rng.integers(0, pieces, (3, length), np.int32)
    like = jax.eval_shape(towers.init, jax.random.key(0), images, tokens)["params"]
    params = jax.tree_util.tree_map_with_path(
        lambda path, a: random(rng, path[-1].key, a.shape), dict(like)
    )
    embed = lambda: (*jax.jit(towers.apply)({"params": params}, images, tokens), bias(params))
    return Source.of_cell(cell, params, 7), images, tokens, embed


def test_names_shapes_and_values_are_those_of_transformers_own_file():
    state = {name: a.astype(np.float32) for name, a in load_file(FILE).items()}
    written = hugging_face.to_state(load_params(FILE))
    assert {name: a.shape for name, a in written.items()} == {n: a.shape for n, a in state.items()}
    equal(written, state)


def test_the_configuration_is_the_one_that_transformers_writes(tmp_path):
    params = load_params(FILE)
    model = infer_model(params, image_size=17).model
    export_hugging_face(Source(params, model, Data(text_length=8), "cell", 7), tmp_path)
    ours = json.loads((tmp_path / "config.json").read_text())
    theirs = json.loads(FILE.with_suffix(".config.json").read_text())
    for part in ("text_config", "vision_config"):
        ours[part] = theirs[part] | ours[part]  # what is left out has their default
    for token in ("eos_token_id", "pad_token_id"):  # known with a tokenizer
        assert ours["text_config"][token] is None
        ours["text_config"][token] = theirs["text_config"][token]
    del theirs["initializer_factor"], theirs["transformers_version"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("model", "loss", "notes"),
    [
        (Model(image=IMAGE, text=TEXT, embed_dim=32), Sigmoid(), 0),
        (
            Model(
                image=ViT(variant="mu/8", depth=2, posemb="sincos2d"),
                text=TextTransformer(depth=2, bottleneck=8),
                embed_dim=32,
            ),
            Sigmoid(bias="relative"),
            2,
        ),
        (Model(image=IMAGE, text=TEXT, embed_dim=32), Softmax(), 1),
    ],
    ids=["plain", "constants", "softmax"],
)
def test_a_written_folder_holds_what_the_cell_computes(model, loss, notes, tmp_path):
    source, images, tokens, embed = make_source(model, loss=loss)
    zimg, ztxt, b = embed()
    assert len(export_hugging_face(source, tmp_path, shard_bytes=100_000)) == notes
    export_big_vision(source, tmp_path)
    np.save(tmp_path / "tokens.npy", tokens)
    files = ["model.safetensors.index.json"]
    if model.image.posemb == "learn":  # of fixed positions, a .npz does not hold the image size
        files.append(f"{source.cell}.npz")
    for file in files:
        towers, tree = FrozenTowers(tmp_path / file), load_params(tmp_path / file)
        np.testing.assert_allclose(towers(images), zimg, atol=1e-6)
        np.testing.assert_allclose(towers.texts(tmp_path / "tokens.npy"), ztxt, atol=1e-6)
        np.testing.assert_array_equal(tree["t"], source.params["t"])
        np.testing.assert_allclose(tree.get("b", 0), 0 if b is None else b, rtol=1e-6)


def test_a_missing_shard_is_one_line(tmp_path):
    source, *_ = make_source(Model(image=IMAGE, text=TEXT, embed_dim=32))
    export_hugging_face(source, tmp_path, shard_bytes=100_000)
    index, (first, *shards) = (
        tmp_path / "model.safetensors.index.json",
        sorted(tmp_path.glob("*.safetensors")),
    )
    assert len(shards) == 3
    assert all(shard.stat().st_size < 110_000 for shard in (first, *shards))
    shards[0].unlink()
    with pytest.raises(DataError, match=f"lists 4 shards, .* missing: {shards[0].name}") as error:
        load_params(index)
    assert "\n" not in str(error.value)
    index.write_text("{}")
    with pytest.raises(DataError, match=r"index.json is not a readable index"):
        load_params(index)
    with pytest.raises(DataError, match=f"{first.name} is not a Hugging Face SigLIP"):
        load_params(first)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Model(image=IMAGE, text=MeanPoolText(width=16), embed_dim=32), ["averages word pieces"]),
        (
            Model(image=ViT(variant="mu/8", pool="gap"), text=TEXT, embed_dim=16),
            ["pool='gap'", "projection to 16"],
        ),
        (Model(image=ViT(variant="mu/8", pool="tok"), text=TEXT, embed_dim=32), ["pool='tok'"]),
        (Model(image=ViT(variant="mu/8", head="always"), text=TEXT, embed_dim=32), ["projection"]),
    ],
)
def test_a_tower_that_a_siglip_model_lacks_is_refused(model, words, tmp_path):
    source, *_ = make_source(model)
    with pytest.raises(DataError, match=f"{source.cell} is not a Hugging Face SigLIP") as error:
        export_hugging_face(source, tmp_path)
    assert all(word in str(error.value) for word in words)
    assert not list(tmp_path.iterdir())
    if not isinstance(model.text, MeanPoolText):
        export_big_vision(source, tmp_path)
        return
    with pytest.raises(DataError, match="averages word pieces"):
        export_big_vision(source, tmp_path)


def test_a_siglit_cell_gives_its_text_tower(bv, tmp_path):
    lit = Model(image=CachedImage(embeddings="b", dim=32), text=TEXT, embed_dim=32)
    cell = Cell(model=lit, batch_size=16)
    params = {name: load_params(bv.save(tmp_path / "bv.npz"))[name] for name in ("txt", "t", "b")}
    source = Source.of_cell(cell, params, 7)
    (note,) = export_hugging_face(source, tmp_path / "hf")
    assert f"t is {np.exp(params['t'][0]):.6g}, b is {params['b'][0]:.6g}" in note
    tree = load_params(tmp_path / "hf" / "model.safetensors")
    assert set(tree) == {"txt"}
    equal(tree["txt"], params["txt"])
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["SiglipTextModel"]

    whole = source.add_image_tower(str(tmp_path / "bv.npz"), {"resize": "bilinear"})
    export_hugging_face(whole, tmp_path / "both")
    equal(
        load_params(tmp_path / "both" / "model.safetensors"),
        load_params(tmp_path / "bv.npz"),
    )
    about = json.loads((tmp_path / "both" / "preprocessor_config.json").read_text())
    assert (about["resample"], about["size"]) == (2, {"height": 24, "width": 24})
    with pytest.raises(DataError, match=r"is not the tower of the embeddings 'b'.* 0123456789ab"):
        source.add_image_tower(
            str(tmp_path / "bv.npz"), {"checkpoint": "o.npz", "sha256": "0123456789abcdef"}
        )
    narrow = source._replace(
        model=Model(text=TEXT, image=CachedImage(embeddings="b", dim=16), embed_dim=16)
    )
    with pytest.raises(DataError, match=r"images in width 32, .* texts in 16"):
        narrow.add_image_tower(str(tmp_path / "bv.npz"), {})


def test_a_tokenizer_is_written_if_a_siglip_tokenizer_can_use_it(small_glyphs, tmp_path):
    own = Dataset.open(small_glyphs).tokenizer.read_bytes()
    gemma = write_model(tmp_path / "gemma.model").read_bytes()
    for name, model, written in (("own", own, True), ("gemma", gemma, False)):
        size = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
        source, *_ = make_source(
            Model(image=IMAGE, text=TEXT, embed_dim=32), pieces=size, data=Data(lower_case="ascii")
        )
        notes = export_hugging_face(source._replace(tokenizer=model), tmp_path / name)
        assert (tmp_path / name / "spiece.model").exists() == written
        assert any("no tokenizer is written" in note for note in notes) != written
        assert any("lowers all capitals" in note for note in notes) == written
    about = json.loads((tmp_path / "own" / "tokenizer_config.json").read_text())
    assert (about["eos_token"], about["pad_token"]) == ("</s>", "</s>")
    with pytest.raises(DataError, match=f"has {size} pieces, .* give the data set"):
        source, *_ = make_source(Model(image=IMAGE, text=TEXT, embed_dim=32))
        export_hugging_face(source._replace(tokenizer=gemma), tmp_path / "other")
