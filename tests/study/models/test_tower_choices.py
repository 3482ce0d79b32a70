"""What a tower may be: published sizes, pooling, positions, types, dropout, rematerialising."""

from __future__ import annotations

import dataclasses
import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

from study.config import Cell, CellError, MeanPoolText, Model, TextTransformer, ViT, replace
from study.config.execution import Remat
from study.config.model import Vocabulary
from study.models.dropout import dropout, example_keys
from study.models.text import MeanPoolTower, TransformerText
from study.models.two_towers import TwoTowers
from study.models.vit import scale_pixels, sincos2d

IMAGE = jnp.linspace(-1, 1, 3 * 24 * 24).reshape(3, 24, 24, 1)
TEXT = jnp.array([[5, 6, 7, 1, 1, 1, 1, 1], [7, 6, 5, 1, 1, 1, 1, 1], [9, 1, 1, 1, 1, 1, 1, 1]])
TWO = ViT(variant="mu/8", depth=2)


def module(image=TWO, text=None, *, remat=None, vocabulary=50, loss=None, **model):
    text = text or TextTransformer(depth=2)
    model = Model(image=image, text=text, **{"embed_dim": 32} | model)
    cell = Cell(model=model, batch_size=16, **({"loss": loss} if loss else {}))
    return TwoTowers(cell, Vocabulary(vocabulary, eos=1, pad=1), remat)


def shapes(towers, size, length, channels=3):
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    text = jax.ShapeDtypeStruct((1, length), jnp.int32)
    return jax.eval_shape(towers.init, jax.random.key(0), image, text)["params"]


def run(towers, image=IMAGE, text=TEXT, keys=None, params=None):
    """Embeddings as numpy, by random parameters that depend on the shapes alone."""
    params = random_params(towers) if params is None else params
    return jax.device_get(_compiled(towers)({"params": params}, image, text, keys))


def test_pixels_are_scaled_on_the_device_as_on_the_host_bit_for_bit():
    pixels = np.arange(256, dtype=np.uint8)
    host = pixels * np.float32(1 / 127.5) - 1
    np.testing.assert_array_equal(jax.jit(scale_pixels)(pixels), host)
    assert (host.dtype, host[0], host[-1]) == (np.float32, -1, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 1), np.uint8)
    towers = module()
    for ours, other in zip(
        run(towers, images), run(towers, images * np.float32(1 / 127.5) - 1), strict=True
    ):
        np.testing.assert_array_equal(ours, other)


@functools.lru_cache
def _compiled(towers):
    return jax.jit(towers.apply)


def random_params(towers):
    rng = np.random.default_rng(0)
    like = shapes(towers, 24, TEXT.shape[1], 1)
    return jax.tree.map(lambda a: (0.2 * rng.normal(size=a.shape)).astype(a.dtype), like)


def millions(tree):
    return sum(a.size for a in jax.tree.leaves(tree)) / 1e6


@pytest.mark.parametrize(
    ("name", "patch", "size", "length", "vocabulary", "image", "text", "both"),
    [
        ("Ti", 16, 224, 16, 32_000, 5.97, 11.52, None),
        ("S", 16, 224, 16, 32_000, 23.44, 33.74, None),
        ("B", 16, 224, 16, 32_000, 92.88, None, 203.12),
        ("B", 16, 224, 64, 32_000, 92.88, 110.27, 203.16),
        ("B", 16, 256, 64, 250_000, None, 277.70, 370.63),
        ("L", 16, 256, 64, 32_000, 315.96, 336.19, 652.15),
        ("So400m", 14, 224, 16, 32_000, 427.68, 449.68, 877.36),
        ("So400m", 14, 384, 64, 32_000, None, None, 877.96),
    ],
)
def test_released_models_have_their_published_number_of_parameters(
    name, patch, size, length, vocabulary, image, text, both
):
    vit, txt = ViT(variant=f"{name}/{patch}", image_size=size), TextTransformer(variant=name)
    towers = module(vit, txt, embed_dim=vit.size.width, vocabulary=vocabulary)
    params = shapes(towers, size, length)
    for want, part in ((image, params["img"]), (text, params["txt"]), (both, params)):
        assert want is None or abs(millions(part) - want) <= 0.0051


def test_depth_overrides_the_variant():
    """Table 1's "L with 12 layers": half the blocks of L, everything else the same."""
    full, half = (
        shapes(module(text=TextTransformer(variant="L", depth=d), embed_dim=32), 24, 16, 1)["txt"]
        for d in (None, 12)
    )
    block = millions(full["Encoder_0"]["encoderblock"]) / 24
    assert abs(millions(full) - millions(half) - 12 * block) < 1e-9


def test_the_bottleneck_factors_the_embedding_and_keeps_its_scale():
    """Sec. 4.3: 250k x 96 and 96 x 768 instead of 250k x 768."""
    text = TextTransformer(variant="B", bottleneck=96)
    txt = shapes(module(text=text, vocabulary=250_000), 24, 16, 1)["txt"]
    assert txt["Embed_0"]["embedding"].shape == (250_000, 96)
    assert txt["embed_projection"]["kernel"].shape == (96, 768)
    tower = TransformerText(TextTransformer(bottleneck=16), 2000, 32)
    txt = jax.jit(tower.init)(jax.random.key(0), TEXT)["params"]
    words = txt["Embed_0"]["embedding"] @ txt["embed_projection"]["kernel"]
    np.testing.assert_allclose(jnp.std(words), 32**-0.5, rtol=0.1)


def test_an_average_through_a_bottleneck_is_that_of_the_factored_embedding():
    vocabulary = Vocabulary(2000, eos=1, pad=1)
    narrow = MeanPoolTower(MeanPoolText(width=32, bottleneck=4), vocabulary, 8)
    txt = jax.jit(narrow.init)(jax.random.key(0), TEXT)["params"]
    table_VxK, projection = txt["embedding"], txt["embed_projection"]["kernel"]
    assert table_VxK.shape == (2000, 4)
    table_VxW = table_VxK @ projection
    np.testing.assert_allclose(jnp.std(table_VxW), 32**-0.5, rtol=0.3)  # of 128 random numbers
    rest = {name: leaf for name, leaf in txt.items() if name != "embed_projection"}
    full = MeanPoolTower(MeanPoolText(width=32), vocabulary, 8)
    want = full.apply({"params": rest | {"embedding": table_VxW}}, TEXT)
    np.testing.assert_allclose(narrow.apply({"params": txt}, TEXT), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "text", "zimg", "ztxt"),
    [
        (
            ViT(variant="mu/6"),
            TextTransformer(),
            [-0.010438, 0.304696, -0.048824, 0.165773],
            [-0.137552, -0.048774, -0.122923, 0.131614],
        ),
        (
            ViT(variant="mu/8", pool="gap"),
            MeanPoolText(width=16),
            [-0.226281, -0.164812, -0.003408, -0.157591],
            [0.081000, 0.134805, 0.027565, -0.343512],
        ),
    ],
)
def test_cells_of_the_first_records_start_and_compute_as_they_did(image, text, zimg, ztxt):
    """Taken before there were choices: same names, same random start, same function."""
    towers = module(image, text)
    params = jax.jit(towers.init)(jax.random.key(1), IMAGE, TEXT)["params"]
    for z_BxE, want in zip(run(towers, params=params), (zimg, ztxt), strict=True):
        np.testing.assert_allclose(z_BxE[0, :4], want, atol=2e-5)


def test_token_pooling_reads_the_token_and_fixed_positions_have_no_parameters():
    towers = module(dataclasses.replace(TWO, pool="tok", posemb="sincos2d", head="always"))
    params = random_params(towers)
    assert set(params["img"]) == {"cls", "embedding", "Transformer", "head"}
    before, _ = run(towers, params=params)
    moved = params | {"img": params["img"] | {"cls": params["img"]["cls"] + np.arange(32) / 32}}
    assert np.abs(before - run(towers, params=moved)[0]).max() > 1e-3
    assert np.abs(before - run(towers, IMAGE.transpose(0, 2, 1, 3))[0]).max() > 1e-5


def test_fixed_positions_tell_rows_from_columns():
    """Column c alone decides the first half of the width, row r alone the second."""
    grid = sincos2d(3, 5, 16).reshape(3, 5, 16)
    np.testing.assert_array_equal(grid[0, :, :8], grid[2, :, :8])
    np.testing.assert_array_equal(grid[:, 0, 8:], grid[:, 4, 8:])
    np.testing.assert_allclose(grid[0, 2, :8], [*np.sin(w := 2 * RATES), *np.cos(w)], atol=1e-6)
    np.testing.assert_allclose(grid[2, 0, 8:], [*np.sin(w), *np.cos(w)], atol=1e-6)


RATES = np.array([1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4])


def test_bfloat16_is_close_and_keeps_parameters_and_embeddings_in_float32():
    exact, rough = module(), module(dtype="bfloat16")
    assert shapes(exact, 24, 8) == shapes(rough, 24, 8)
    for a, b in zip(run(exact), run(rough), strict=True):
        assert b.dtype == np.float32
        assert 1e-5 < np.abs(a - b).max() < 0.03


def loss_and_grads(towers, params, keys):
    def loss(params):
        zimg, ztxt = towers.apply({"params": params}, IMAGE, TEXT, keys)
        return jnp.sum(zimg * jnp.roll(ztxt, 1, 1))

    return jax.jit(jax.value_and_grad(loss))(params)


DROPS = {
    "image": dataclasses.replace(TWO, dropout=0.3),
    "text": TextTransformer(depth=2, dropout=0.3),
}


def test_rematerialising_changes_no_parameter_and_no_gradient():
    keys = example_keys(jnp.uint32(7), jnp.arange(3))
    plain, again = module(**DROPS), module(**DROPS, remat="nothing_saveable")
    assert shapes(plain, 24, 8) == shapes(again, 24, 8)
    params = random_params(plain)
    for a, b in zip(
        jax.tree.leaves(loss_and_grads(plain, params, keys)),
        jax.tree.leaves(loss_and_grads(again, params, keys)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_policy_decides_how_much_a_backward_pass_keeps():
    """Bytes of residuals, in the order of the policies: more and more, and most without one."""
    kept = []
    for policy in (*get_args(Remat), None):
        towers = module(remat=policy)

        def pullback(params, towers=towers):
            return jax.vjp(lambda p: towers.apply({"params": p}, IMAGE, TEXT), params)[1]

        residuals = jax.eval_shape(pullback, shapes(towers, 24, 8, 1))
        kept.append(sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(residuals)))
    assert kept == sorted(set(kept))


def test_dropout_does_not_depend_on_how_the_batch_is_split():
    towers, key = module(**DROPS), jnp.uint32(7)
    whole = run(towers, keys=example_keys(key, jnp.arange(3)))
    for i in range(3):
        rows = slice(i, i + 1)
        part = run(towers, IMAGE[rows], TEXT[rows], example_keys(key, jnp.arange(3)[rows]))
        for a, b in zip(whole, part, strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-6)


def test_dropout_differs_by_step_and_example_and_is_off_without_keys():
    towers = module(**DROPS)
    same = (jnp.repeat(IMAGE[:1], 3, 0), jnp.repeat(TEXT[:1], 3, 0))
    one, other = (
        run(towers, *same, example_keys(jnp.uint32(step), jnp.arange(3))) for step in (1, 2)
    )
    for a, b in zip(one, other, strict=True):
        assert np.abs(a[0] - a[1]).max() > 1e-3
        assert np.abs(a - b).max() > 1e-3
    for a, b in zip(run(towers, *same), run(module(), *same), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_dropout_drops_its_share_everywhere_and_keeps_the_mean():
    ones = jnp.ones((64, 16, 32))
    keys = example_keys(jnp.uint32(3), jnp.arange(64))
    masks = [dropout(ones, 0.25, keys, site) for site in range(4)]
    for mask in masks:
        assert set(np.unique(mask).round(5)) == {0.0, np.float32(1 / 0.75).round(5)}
        for axes in ((1, 2), (0, 2), (0, 1)):
            np.testing.assert_allclose(jnp.mean(mask, axes), 1, atol=0.15)
    kept = np.stack([np.asarray(mask > 0).ravel() for mask in masks]).astype(float)
    assert np.abs(np.corrcoef(kept) - np.eye(4)).max() < 0.02


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.image.variant", "XL/16", ["unknown tower variant 'XL'", "So400m"]),
        ("model.image.variant", "B", ["'B/16'"]),
        ("model.image.variant", "B/32", ["image_size=24"]),
        ("model.image.dropout", 1.0, ["model.image.dropout", "less than 1"]),
        ("model.text.variant", "B/16", ["unknown tower variant 'B/16'"]),
        ("model.text.depth", 0, ["model.text.depth"]),
        ("model.dtype", "float16", ["bfloat16"]),
        ("model.init", "weights.h5", ["weights.h5", ".npz", ":img"]),
    ],
)
def test_a_tower_that_cannot_be_is_one_line(path, value, words):
    with pytest.raises(CellError) as error:
        replace(Cell(batch_size=16), path, value)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_negative_dropout_is_refused():
    with pytest.raises(pydantic.ValidationError, match="dropout"):
        ViT(dropout=-0.1)
