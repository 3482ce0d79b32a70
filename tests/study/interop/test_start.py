"""A run that starts from a checkpoint: what is taken over, what stays random, what is refused."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import scipy.ndimage

from study.config import Cell, Data, Model, Sigmoid, Softmax, TextTransformer, ViT
from study.config.model import Vocabulary
from study.data.formats.dataset import DataError
from study.interop.load import load_params
from study.models.two_towers import TwoTowers
from study.training.init_from import init_from_checkpoint, resize_posemb

TWO = Model(image=ViT(variant="mu/8", depth=2), text=TextTransformer(depth=2), embed_dim=32)


def start(init, root, *, model=TWO, loss=None, channels=3, size=24, length=5, data=None, pieces=50):
    """Parameters of a cell's model before and after, and the note of it."""
    model = dataclasses.replace(model, init=init)
    cell = Cell(model=model, batch_size=16, loss=loss or Sigmoid(), data=data or Data())
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    text = jax.ShapeDtypeStruct((1, length), np.int32)
    like = jax.eval_shape(
        TwoTowers(cell, Vocabulary(pieces, eos=1, pad=1)).init, jax.random.key(0), image, text
    )["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), like)
    return params, *init_from_checkpoint(cell, params, root)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_whole_file_gives_towers_temperature_and_bias(bv, tmp_path):
    bv.save(tmp_path / "a.npz")
    _, params, about = start("a.npz", tmp_path)
    equal(params, load_params(tmp_path / "a.npz"))
    assert (about["loaded"], about["random"]) == (["b", "img", "t", "txt"], [])
    _, params, about = start("a.npz", tmp_path, loss=Softmax())
    assert set(params) == {"img", "txt", "t"}


def test_one_tower_leaves_the_rest_as_it_was(bv, tmp_path):
    bv.save(tmp_path / "a.npz")
    before, params, about = start("a.npz:txt", tmp_path)
    equal(params["txt"], load_params(tmp_path / "a.npz")["txt"])
    equal({k: params[k] for k in ("img", "t", "b")}, {k: before[k] for k in ("img", "t", "b")})
    assert (about["loaded"], about["random"]) == (["txt"], ["b", "img", "t"])


def test_position_embeddings_are_resized_to_the_cells_images(bv, tmp_path):
    bv.save(tmp_path / "a.npz")
    larger = Model(image=ViT(variant="mu/8", depth=2, image_size=48), text=TWO.text, embed_dim=32)
    _, params, _ = start("a.npz", tmp_path, model=larger, size=48)
    grid = bv.flat["img/pos_embedding"].reshape(3, 3, 32)
    want = scipy.ndimage.zoom(grid, (2, 2, 1), order=1).reshape(1, 36, 32)
    np.testing.assert_allclose(params["img"]["pos_embedding"], want, atol=1e-6)
    corners = np.asarray(params["img"]["pos_embedding"]).reshape(6, 6, 32)[::5, ::5]
    np.testing.assert_allclose(corners, grid[::2, ::2], atol=1e-6)
    assert resize_posemb(np.zeros((1, 7, 2)), 9).shape == (1, 7, 2)


def test_a_new_image_head_may_stay_random(bv, tmp_path):
    bv.save(tmp_path / "a.npz")
    wide = Model(image=TWO.image, text=TWO.text, embed_dim=16)
    before, params, about = start("a.npz:img", tmp_path, model=wide)
    equal(params["img"]["head"], before["img"]["head"])
    assert "img/head" in about["random"]


def with_pieces(bv, path, pieces):
    """The checkpoint with a token embedding of that many rows."""
    bv.save(path, bv.flat | {"txt/Embed_0/embedding": np.zeros((pieces, 32), np.float32)})


@pytest.mark.parametrize(
    ("pieces", "pad", "message"),
    [
        (256_000, "eos", "SigLIP 2, Gemma tokenizer (256,000 pieces).*set data.pad='pad'"),
        (32_000, "pad", "SigLIP, C4 tokenizer (32,000 pieces).*set data.pad='eos'"),
        (250_000, "pad", "multilingual SigLIP.*250,000 pieces.*set data.pad='eos'"),
    ],
)
def test_texts_are_filled_as_the_checkpoints_were(bv, tmp_path, pieces, pad, message):
    with_pieces(bv, tmp_path / "a.npz", pieces)
    message = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(DataError, match=rf"^data.pad: '{pad}' does not fit .*a.npz .*{message}"):
        start("a.npz:txt", tmp_path, pieces=pieces, data=Data(pad=pad))
    right = {"eos": "pad", "pad": "eos"}[pad]
    _, _, about = start("a.npz:txt", tmp_path, pieces=pieces, data=Data(pad=right))
    assert about["tokens"] == {"pieces": pieces, "pad": right}
    _, _, about = start("a.npz:img", tmp_path, pieces=pieces, data=Data(pad=pad))
    assert "tokens" not in about


def test_any_padding_suits_a_vocabulary_that_is_nobodys(bv, tmp_path):
    bv.save(tmp_path / "a.npz")
    for pad in ("eos", "pad"):
        assert start("a.npz", tmp_path, data=Data(pad=pad))[2]["tokens"]["pad"] == pad


@pytest.mark.parametrize(
    ("loss", "field"),
    [
        (Sigmoid(t_init=5.0), "loss.t_init: 5.0"),
        (Softmax(t_init=1.0), "loss.t_init: 1.0"),
        (Sigmoid(b_init="prior"), "loss.b_init: 'prior'"),
    ],
)
def test_a_start_that_the_checkpoint_replaces_is_refused(bv, tmp_path, loss, field):
    bv.save(tmp_path / "a.npz")
    with pytest.raises(DataError, match=rf"^{field} has no effect, because .*a.npz holds [tb]"):
        start("a.npz", tmp_path, loss=loss)
    start("a.npz:txt", tmp_path, loss=loss)
    start("a.npz", tmp_path, loss=Sigmoid(b_init=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": Model(image=TWO.image, text=TWO.text, embed_dim=16)}, ["txt/head/kernel"]),
        ({"length": 8}, ["txt/pos_embedding (1x5x32, the cell has 1x8x32)"]),
        ({"channels": 1}, ["img/embedding/kernel (8x8x3x32, the cell has 8x8x1x32)"]),
        (
            {"model": Model(image=ViT(variant="mu/8", pool="tok"), text=TWO.text, embed_dim=32)},
            ["missing: img/cls; unexpected: img/MapHead_0/", "more; of another shape: img/"],
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line_that_names_parameters(
    bv, tmp_path, change, words
):
    bv.save(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"model.init: .*a.npz does not fit") as error:
        start("a.npz", tmp_path, **change)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_checkpoint_in_a_bucket_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^model.init: gs://lab/a\.npz is not on this machine"):
        start("gs://lab/a.npz", tmp_path)
