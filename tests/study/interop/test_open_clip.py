"""OpenCLIP SigLIP files: embeddings equal to those of its own model, as a start and as a tower.

The fixture is a model that `open_clip.create_model` built (open_clip 3.3.0, timm 1.0.31, torch
2.14.1, CPU) with timm's ViT as image tower, both with the gelu by tanh, and random weights in
every place, rounded to bfloat16: width 32, MLP 128, 2 heads, 2 blocks, images of 24 pixels in
patches of 8, 50 words, 8 tokens. Its `.npz` holds inputs and the float32 unit embeddings and
logits that the model gave for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from study.data.formats.dataset import DataError
from study.interop.embed import FrozenTowers
from study.interop.load import load_params
from tests.study.interop.test_start import equal, start

FILE = Path(__file__).parent / "open_clip_tiny.safetensors"


@pytest.fixture(scope="module")
def expected():
    with np.load(FILE.with_suffix(".npz")) as file:
        return dict(file)


def check_embeddings(path, expected, tmp_path):
    """Of both towers, and the logits with t and b."""
    towers, tree = FrozenTowers(path), load_params(path)
    np.save(tmp_path / "tokens.npy", expected["tokens"])
    zimg, ztxt = towers(expected["images"]), towers.texts(tmp_path / "tokens.npy")
    np.testing.assert_allclose(zimg, expected["zimg"], atol=2e-6)
    np.testing.assert_allclose(ztxt, expected["ztxt"], atol=2e-6)
    logits = np.exp(tree["t"]) * zimg @ ztxt.T + tree["b"]
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-4)  # t is 117


def test_embeddings_and_logits_are_those_of_the_other_implementation(expected, tmp_path):
    check_embeddings(FILE, expected, tmp_path)


def test_a_cell_starts_from_it(tmp_path):
    _, params, note = start("open_clip_tiny.safetensors", FILE.parent, length=8)
    equal(params, load_params(FILE))
    assert (note["loaded"], note["random"]) == (["b", "img", "t", "txt"], [])


def test_a_projection_of_the_image_tower_is_its_head(tmp_path):
    """timm_proj="linear" adds one, which has no bias."""
    weight_ExW = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    save_file(load_file(FILE) | {"visual.head.proj.weight": weight_ExW}, tmp_path / "a.safetensors")
    head = load_params(tmp_path / "a.safetensors")["img"]["head"]
    np.testing.assert_array_equal(head["kernel"], weight_ExW.T)
    np.testing.assert_array_equal(head["bias"], np.zeros(16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text.ln_final.weight"), "lacks 'text.ln_final.weight'"),
        (lambda s: s.update({"visual.trunk.cls_token": np.zeros(3)}), "visual.trunk.cls_token"),
    ],
)
def test_a_file_of_another_model_is_one_line(tmp_path, change, message):
    state = load_file(FILE)
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=f"a.safetensors is not an OpenCLIP SigLIP: .*{message}"):
        load_params(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "epoch_1.pt"])
def test_a_pickle_is_not_read_without_torch(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / name).write_bytes(b"\x80")
    with pytest.raises(DataError, match=f"{name} is read with PyTorch; install torch, or save"):
        load_params(tmp_path / name)
