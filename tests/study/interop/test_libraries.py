"""Files that are exchanged with the other libraries themselves, where they are installed.

`pip install 'batch-size-study[bench]'`; without them `test_export.py`, `test_hugging_face.py` and
`test_open_clip.py` check the same against files and embeddings that the libraries left.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from study.config import CachedImage, Model
from study.data.formats.dataset import DataError
from study.interop.export_hugging_face import export_hugging_face
from study.interop.load import load_params
from tests.study.interop.test_export import IMAGE, TEXT, make_source
from tests.study.interop.test_open_clip import check_embeddings
from tests.study.interop.test_start import equal

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of the libraries


LIT = Model(image=CachedImage(embeddings="b", dim=32), text=TEXT, embed_dim=32)


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
def test_transformers_opens_what_is_written(transformers, tmp_path, shard_bytes):
    source, images, tokens, embed = make_source(Model(image=IMAGE, text=TEXT, embed_dim=32))
    zimg, ztxt, b = embed()
    export_hugging_face(source, tmp_path, shard_bytes=shard_bytes)
    model, loading = transformers.SiglipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    pixels = torch.tensor(images.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        out = model.eval()(input_ids=torch.tensor(tokens).long(), pixel_values=pixels)
    np.testing.assert_allclose(out.image_embeds, zimg, atol=2e-6)
    np.testing.assert_allclose(out.text_embeds, ztxt, atol=2e-6)
    logits = np.exp(source.params["t"]) * zimg @ ztxt.T + b
    np.testing.assert_allclose(out.logits_per_image, logits, atol=1e-5)


def test_transformers_opens_a_text_tower(transformers, tmp_path):
    source, _, tokens, embed = make_source(Model(image=IMAGE, text=TEXT, embed_dim=32))
    text_only = source._replace(model=LIT)
    export_hugging_face(text_only, tmp_path)
    model, loading = transformers.SiglipTextModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(loading.values())
    with torch.no_grad():
        z = model.eval()(input_ids=torch.tensor(tokens).long()).pooler_output.numpy()
    np.testing.assert_allclose(z / np.linalg.norm(z, axis=1, keepdims=True), embed()[1], atol=2e-6)


def test_shards_of_transformers_are_one_checkpoint(transformers, tmp_path):
    export_hugging_face(make_source(Model(image=IMAGE, text=TEXT, embed_dim=32))[0], tmp_path / "a")
    model = transformers.SiglipModel.from_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b", max_shard_size="40KB")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 3
    whole = load_params(tmp_path / "a" / "model.safetensors")
    equal(load_params(tmp_path / "b" / "model.safetensors.index.json"), whole)


def test_open_clip_gives_the_same_embeddings(monkeypatch, tmp_path):
    """Of a model from its factory, through each kind of file that it saves."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    open_clip, timm = pytest.importorskip("open_clip"), pytest.importorskip("timm")

    def vit_mu_patch8_siglip_24(pretrained=False, **_):
        size = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 24, "patch_size": 8}
        return timm.models.VisionTransformer(
            **size, class_token=False, global_pool="map", num_classes=0, act_layer="gelu_tanh"
        )

    vit_mu_patch8_siglip_24.__module__ = "timm.models.vision_transformer"
    timm.models.register_model(vit_mu_patch8_siglip_24)
    config = {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 24,
            "timm_model_name": "vit_mu_patch8_siglip_24",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **{"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2},
            **{"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
            **{"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}},
        },
    }
    (tmp_path / "mu-SigLIP.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "mu-SigLIP.json")
    torch.manual_seed(0)
    model = open_clip.create_model("mu-SigLIP").eval()
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (3, 24, 24, 3)).astype(np.float32)
    tokens = rng.integers(0, 50, (4, 8)).astype(np.int32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        zimg = model.encode_image(torch.tensor(images).permute(0, 3, 1, 2), normalize=True)
        ztxt = model.encode_text(torch.tensor(tokens).long(), normalize=True)
        logits = model.logit_scale.exp() * zimg @ ztxt.T + model.logit_bias
    expected = {"images": images, "tokens": tokens, "logits": logits, "zimg": zimg, "ztxt": ztxt}
    state = model.state_dict()
    save_file({k: v.numpy() for k, v in state.items()}, tmp_path / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    trained = {f"module.{name}": a for name, a in state.items()}
    torch.save({"epoch": 1, "state_dict": trained, "optimizer": {}}, tmp_path / "epoch_1.pt")
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_1.pt"):
        check_embeddings(tmp_path / name, expected, tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (marker.touch, ())

    torch.save({"state_dict": {"visual.x": Hostile()}}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a.pt is not a readable state dict") as error:
        load_params(tmp_path / "a.pt")
    assert "\n" not in str(error.value) and not marker.exists()
