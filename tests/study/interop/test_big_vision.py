"""big_vision files: what is read computes what they hold, whatever their age and layout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.data.formats.dataset import DataError
from study.interop import big_vision
from study.interop.embed import FrozenTowers
from study.interop.load import load_params


def image_only(flat):
    return {k.removeprefix("img/"): v for k, v in flat.items() if k.startswith("img/")}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_both_towers_compute_what_the_file_holds(bv, tmp_path):
    """Names, shapes and meaning: our towers against a model written with their names."""
    towers = FrozenTowers(bv.save(tmp_path / "a.npz"))
    assert towers.model.image.variant == "mu/8"
    assert (towers.model.image.image_size, towers.model.image.depth) == (24, 2)
    np.save(tmp_path / "tokens.npy", bv.tokens)
    np.testing.assert_allclose(towers(bv.images), bv.zimg, atol=2e-6)
    np.testing.assert_allclose(towers.texts(tmp_path / "tokens.npy"), bv.ztxt, atol=2e-6)
    tree = load_params(tmp_path / "a.npz")
    np.testing.assert_array_equal(tree["t"], bv.flat["t"])
    np.testing.assert_array_equal(tree["b"], bv.flat["b"])


@pytest.mark.parametrize("scan", [False, True])
def test_what_is_written_is_read_the_same(bv, tmp_path, scan):
    tree = load_params(bv.save(tmp_path / "a.npz"))
    big_vision.write(tmp_path / "b.npz", tree, scan=scan)
    equal(load_params(tmp_path / "b.npz"), tree)
    with np.load(tmp_path / "b.npz") as file:
        names = {name.removeprefix("params/"): file[name].shape for name in file.files}
    if scan:
        block = "img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"
        assert names[block] == (2, 32, 128)
    else:
        assert names == {name: a.shape for name, a in bv.flat.items()}


def test_written_blocks_keep_their_order_beyond_ten(bv, tmp_path):
    tree = load_params(bv.save(tmp_path / "a.npz"))
    many = jax.tree.map(
        lambda a: np.concatenate([a + i for i in range(6)]), tree["txt"]["Encoder_0"]
    )
    many["encoder_norm"] = tree["txt"]["Encoder_0"]["encoder_norm"]
    tree["txt"]["Encoder_0"] = many
    big_vision.write(tmp_path / "b.npz", tree)
    equal(load_params(tmp_path / "b.npz"), tree)


def test_bfloat16_comes_back_from_its_bytes(bv, tmp_path):
    """numpy stores bfloat16 as two raw bytes and loads it as void."""
    halves = {k: v.astype(jnp.bfloat16) for k, v in bv.flat.items()}
    got = load_params(bv.save(tmp_path / "half.npz", halves))
    full = {k: v.astype(np.float32) for k, v in halves.items()}
    want = load_params(bv.save(tmp_path / "full.npz", full))
    equal(got, want)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(got))


def test_a_part_is_named_behind_a_colon(bv, tmp_path):
    path = bv.save(tmp_path / "a.npz")
    assert set(load_params(f"{path}:img")) == {"img"}
    equal(load_params(f"{path}:txt")["txt"], load_params(path)["txt"])
    only = bv.save(tmp_path / "img.npz", image_only(bv.flat), prefix="")
    equal(load_params(f"{only}:img"), load_params(f"{path}:img"))
    with pytest.raises(DataError, match="no part txt; it has: img"):
        load_params(f"{only}:txt")


def test_a_second_text_position_embedding_is_added(bv, tmp_path):
    second = np.full_like(bv.flat["txt/pos_embedding"], 0.25)
    path = bv.save(tmp_path / "a.npz", bv.flat | {"txt/Encoder_0/pos_embedding": second})
    txt = load_params(path)["txt"]
    np.testing.assert_allclose(txt["pos_embedding"], bv.flat["txt/pos_embedding"] + 0.25)
    assert set(txt["Encoder_0"]) == {"encoderblock", "encoder_norm"}


@pytest.mark.parametrize("place", ["Transformer/posembed_input/", "Transformer/"])
def test_the_oldest_image_files_give_the_same_tower(bv_tok, tmp_path, place):
    """AugReg: modules counted together, positions in the encoder and one for the class token."""
    flat = image_only(bv_tok.flat)
    count = {"LayerNorm_0": 0, "MultiHeadDotProductAttention_0": 1, "LayerNorm_1": 2}
    old = {}
    for name, a in flat.items():
        for module, number in count.items():
            if f"/{module}/" in name:
                name = name.replace(module, f"{module.rsplit('_')[0]}_{number}")
                break
        old[name.replace("MlpBlock_0", "MlpBlock_3")] = a
    first = np.full((1, 1, 32), 0.5, np.float32)
    positions = old.pop("pos_embedding")
    old["cls"] = flat["cls"] - first
    old[f"{place}pos_embedding"] = np.concatenate([first, positions], axis=1)
    old |= {"head/kernel": np.zeros((32, 7), np.float32), "head/bias": np.zeros(7, np.float32)}
    old |= {"pre_logits/kernel": np.eye(32, dtype=np.float32), "pre_logits/bias": np.zeros(32)}
    towers = FrozenTowers(bv_tok.save(tmp_path / "old.npz", old, prefix=""))
    assert towers.model.image.pool == "tok"
    np.testing.assert_allclose(towers(bv_tok.images), bv_tok.zimg, atol=2e-6)


def test_an_inlined_map_head_is_found(bv, tmp_path):
    inlined = {k.removeprefix("MAPHead_0/"): v for k, v in image_only(bv.flat).items()}
    got = load_params(bv.save(tmp_path / "old.npz", inlined, prefix="opt/target/"))
    equal(got["img"], load_params(bv.save(tmp_path / "new.npz"))["img"])


def test_the_head_of_an_image_tower_is_kept_in_a_two_tower_file(bv, tmp_path):
    head = {"img/head/kernel": np.eye(32, 32), "img/head/bias": np.zeros(32)}
    towers = FrozenTowers(bv.save(tmp_path / "a.npz", bv.flat | head))
    assert towers.model.image.head == "always"
    np.testing.assert_allclose(towers(bv.images), bv.zimg, atol=2e-6)


def test_files_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", **{"params/img/embedding/kernel": np.array([print], object)})
    with pytest.raises(DataError, match=r"a.npz.*pickle"):
        load_params(tmp_path / "a.npz")


def test_what_cannot_be_read_is_one_line(bv, tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    whole = bv.save(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[:-100])
    bv.save(tmp_path / "other.npz", {"encoder/w": np.zeros(3)}, prefix="")
    odd = {k: v for k, v in bv.flat.items() if "encoderblock_1/LayerNorm_0" not in k}
    bv.save(tmp_path / "odd.npz", odd)
    (tmp_path / "model.bin").write_bytes(whole)
    for name in (
        "text.npz",
        "array.npz",
        "torn.npz",
        "other.npz",
        "odd.npz",
        "gone.npz",
        "model.bin",
    ):
        with pytest.raises(DataError, match=name) as error:
            load_params(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_tower_that_big_vision_does_not_have_is_not_written(tmp_path):
    with pytest.raises(DataError, match="averaging"):
        big_vision.write(tmp_path / "a.npz", {"txt": {"embedding": np.zeros((3, 2))}})
    assert not list(tmp_path.iterdir())
