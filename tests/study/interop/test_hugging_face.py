"""Hugging Face SigLIP files: embeddings equal to those of its own model.

The fixture is a SiglipModel of transformers 5.23.0 (torch 2.13.0, CPU, eager attention) with
random weights in every place, rounded to bfloat16 and saved so: hidden 32, MLP 128, 2 heads,
2 layers, images of 17 pixels in patches of 8, 50 words, 8 tokens. Its `.npz` holds inputs and the
float32 `image_embeds`, `text_embeds` and `logits_per_image` that the model gave for them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from study.data.formats.dataset import DataError
from study.interop import big_vision
from study.interop.embed import FrozenTowers
from study.interop.load import load_params

FILE = Path(__file__).parent / "siglip_tiny.safetensors"


@pytest.fixture(scope="module")
def expected():
    with np.load(FILE.with_suffix(".npz")) as file:
        return dict(file)


def embeddings(path, expected, tmp_path):
    towers = FrozenTowers(path, image_size=17)
    np.save(tmp_path / "tokens.npy", expected["tokens"])
    return towers(expected["images"]), towers.texts(tmp_path / "tokens.npy")


def test_embeddings_and_logits_are_those_of_the_other_implementation(expected, tmp_path):
    zimg, ztxt = embeddings(FILE, expected, tmp_path)
    np.testing.assert_allclose(zimg, expected["zimg"], atol=1e-5)
    np.testing.assert_allclose(ztxt, expected["ztxt"], atol=1e-5)
    tree = load_params(FILE)
    logits = np.exp(tree["t"]) * zimg @ ztxt.T + tree["b"]
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-3)  # t is 117


def test_they_are_the_same_after_the_way_through_a_big_vision_file(expected, tmp_path):
    big_vision.write(tmp_path / "same.npz", load_params(FILE))
    zimg, ztxt = embeddings(tmp_path / "same.npz", expected, tmp_path)
    np.testing.assert_allclose(zimg, expected["zimg"], atol=1e-5)
    np.testing.assert_allclose(ztxt, expected["ztxt"], atol=1e-5)


def test_one_tower_is_read_alone(tmp_path):
    state = {k: v for k, v in load_file(FILE).items() if k.startswith("vision_model.")}
    save_file(state, tmp_path / "vision.safetensors")
    tree = load_params(tmp_path / "vision.safetensors")
    assert set(tree) == {"img"}
    np.testing.assert_array_equal(
        tree["img"]["pos_embedding"], load_params(FILE)["img"]["pos_embedding"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("text_model.encoder.layers.1.mlp.fc1.bias"),
            "lacks.*layers.1.mlp.fc1.bias",
        ),
        (lambda s: s.update({"vision_model.lora": np.zeros(3, np.float32)}), "vision_model.lora"),
        (lambda s: s.clear(), "empty"),
    ],
)
def test_a_file_of_another_model_is_one_line(tmp_path, change, message):
    state = load_file(FILE)
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=f"a.safetensors.*{message}") as error:
        load_params(tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(FILE.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"not a readable \.safetensors file"):
        load_params(tmp_path / "a.safetensors")


def test_heads_of_no_variant_are_refused_rather_than_guessed(tmp_path):
    state = load_file(FILE)
    for name, a in state.items():
        if ".mlp.fc1" in name:
            state[name] = np.concatenate([a, a])
        elif ".mlp.fc2.weight" in name:
            state[name] = np.concatenate([a, a], axis=1)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="no variant"):
        load_params(tmp_path / "a.safetensors")
