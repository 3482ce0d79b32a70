"""Hugging Face's SigLIP: parameters of a SiglipModel or of one of its towers, read and written."""

from __future__ import annotations

import numpy as np

from study.interop.big_vision import Tree, index_tree, stack_blocks
from study.interop.torch_state import QKV, State, TorchState, attention, count_heads

_NORMS = {"LayerNorm_0": "layer_norm1", "LayerNorm_1": "layer_norm2"}


def convert(left: TorchState) -> Tree:
    """The parameters of a SigLIP or fixed-resolution SigLIP 2, with our names.

    Raises:
      KeyError, ValueError: they are those of another model.
    """
    tree: Tree = {}
    if left.any("vision_model."):
        tree["img"] = _image(left)
    if left.any("text_model."):
        tree["txt"] = _text(left)
    for name in [name for name in left.state if name.endswith("position_ids")]:
        left.pop(name)  # 0, 1, 2, ..., which older versions saved
    return tree | left.scalars()


def _image(left: TorchState) -> Tree:
    at = "vision_model"
    tree: Tree = {
        "embedding": left.conv(f"{at}.embeddings.patch_embedding"),
        "pos_embedding": left.pop(f"{at}.embeddings.position_embedding.weight")[None],
        "Transformer": _encoder(left, at, "post_layernorm"),
    }
    if left.any(head := f"{at}.head."):
        mlp = left.mlp(f"{head}mlp.fc1", f"{head}mlp.fc2")
        at = f"{head}attention."
        qkv = left.split(f"{at}in_proj_weight", f"{at}in_proj_bias", 3)
        tree["MapHead_0"] = {
            "probe": left.pop(f"{head}probe"),
            "MultiHeadDotProductAttention_0": attention(
                qkv, left.linear(f"{at}out_proj"), count_heads(mlp)
            ),
            "LayerNorm_0": left.norm(f"{head}layernorm"),
            "Mlp_0": mlp,
        }
    return tree


def _text(left: TorchState) -> Tree:
    at = "text_model"
    return {
        "Embed_0": {"embedding": left.pop(f"{at}.embeddings.token_embedding.weight")},
        "pos_embedding": left.pop(f"{at}.embeddings.position_embedding.weight")[None],
        "Encoder_0": _encoder(left, at, "final_layer_norm"),
        "head": left.linear(f"{at}.head"),
    }


def _encoder(left: TorchState, at: str, last_norm: str) -> Tree:
    blocks: list[Tree] = []
    while left.any(layer := f"{at}.encoder.layers.{len(blocks)}."):
        mlp = left.mlp(f"{layer}mlp.fc1", f"{layer}mlp.fc2")
        qkv = [left.linear(f"{layer}self_attn.{name[0]}_proj") for name in QKV]
        out = left.linear(f"{layer}self_attn.out_proj")
        norms = {ours: left.norm(f"{layer}{theirs}") for ours, theirs in _NORMS.items()}
        blocks.append(
            norms
            | {"MultiHeadDotProductAttention_0": attention(qkv, out, count_heads(mlp))}
            | {"Mlp_0": mlp}
        )
    if not blocks:
        raise KeyError(f"{at}.encoder.layers.0")
    return {"encoderblock": stack_blocks(blocks), "encoder_norm": left.norm(f"{at}.{last_norm}")}


# --- writing --------------------------------------------------------------------------------------


def to_state(params: Tree) -> State:
    """The inverse of `convert`: float32 arrays by the names of a SiglipModel.

    Arguments:
      params: any of img, txt, t and b, of the towers that a SiglipModel has: a MAP head without a
        projection, learned positions, and a text transformer with an unfactored embedding.
    """
    state: State = {}
    if "img" in params:
        state |= _image_state(params["img"])
    if "txt" in params:
        txt = params["txt"]
        state |= _encoder_state("text_model", txt["Encoder_0"], "final_layer_norm")
        state |= _linear_state("text_model.head", txt["head"])
        embeddings = "text_model.embeddings"
        state[f"{embeddings}.token_embedding.weight"] = txt["Embed_0"]["embedding"]
        state[f"{embeddings}.position_embedding.weight"] = txt["pos_embedding"][0]
    for ours, theirs in (("t", "logit_scale"), ("b", "logit_bias")):
        if ours in params:
            state[theirs] = params[ours]
    return {name: np.ascontiguousarray(a, np.float32) for name, a in state.items()}


def _image_state(img: Tree) -> State:
    embeddings, head, pool = "vision_model.embeddings", "vision_model.head", img["MapHead_0"]
    layers = _attention_layers(pool["MultiHeadDotProductAttention_0"])
    qkv = [layers[name] for name in QKV]
    return {
        f"{embeddings}.patch_embedding.weight": img["embedding"]["kernel"].transpose(3, 2, 0, 1),
        f"{embeddings}.patch_embedding.bias": img["embedding"]["bias"],
        f"{embeddings}.position_embedding.weight": img["pos_embedding"][0],
        **_encoder_state("vision_model", img["Transformer"], "post_layernorm"),
        f"{head}.probe": pool["probe"],
        f"{head}.attention.in_proj_weight": np.concatenate([layer["kernel"].T for layer in qkv]),
        f"{head}.attention.in_proj_bias": np.concatenate([layer["bias"] for layer in qkv]),
        **_linear_state(f"{head}.attention.out_proj", layers["out"]),
        **_norm_state(f"{head}.layernorm", pool["LayerNorm_0"]),
        **_mlp_state(f"{head}.mlp", pool["Mlp_0"]),
    }


def _encoder_state(at: str, encoder: Tree, last_norm: str) -> State:
    state = _norm_state(f"{at}.{last_norm}", encoder["encoder_norm"])
    blocks = encoder["encoderblock"]
    for i in range(len(blocks["LayerNorm_0"]["scale"])):
        block, layer = index_tree(blocks, i), f"{at}.encoder.layers.{i}"
        for ours, theirs in _NORMS.items():
            state |= _norm_state(f"{layer}.{theirs}", block[ours])
        layers = _attention_layers(block["MultiHeadDotProductAttention_0"])
        for name in (*QKV, "out"):
            theirs = "out_proj" if name == "out" else f"{name[0]}_proj"
            state |= _linear_state(f"{layer}.self_attn.{theirs}", layers[name])
        state |= _mlp_state(f"{layer}.mlp", block["Mlp_0"])
    return state


def _attention_layers(attention: Tree) -> Tree:
    """Merges the heads: every kernel W x W, every bias W."""
    width = len(attention["out"]["bias"])
    return {
        name: {
            "kernel": layer["kernel"].reshape(width, width),
            "bias": layer["bias"].reshape(width),
        }
        for name, layer in attention.items()
    }


def _mlp_state(at: str, mlp: Tree) -> State:
    return _linear_state(f"{at}.fc1", mlp["Dense_1"]) | _linear_state(f"{at}.fc2", mlp["Dense_0"])


def _linear_state(at: str, layer: Tree) -> State:
    return {f"{at}.weight": layer["kernel"].T, f"{at}.bias": layer["bias"]}


def _norm_state(at: str, norm: Tree) -> State:
    return {f"{at}.weight": norm["scale"], f"{at}.bias": norm["bias"]}
