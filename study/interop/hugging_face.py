"""Reads Hugging Face SigLIP checkpoints: safetensors of a SiglipModel or one of its towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from study.config.model import VARIANTS
from study.data.formats.dataset import DataError
from study.interop.big_vision import Tree, stack_blocks

_NORMS = {"LayerNorm_0": "layer_norm1", "LayerNorm_1": "layer_norm2"}
_QKV = ("query", "key", "value")


def read(path: Path) -> Tree:
    """The parameters of a SigLIP or fixed-resolution SigLIP 2, with our names, in float32.

    The file does not hold the number of heads: it is that of the variant with this width and MLP.

    Raises:
      DataError: not a safetensors file, or not exactly the parameters of a SigLIP.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a readable .safetensors file ({error})") from None
    left = _Remaining({k: v.astype(np.float32) for k, v in state.items()})
    tree: Tree = {}
    try:
        if left.any("vision_model."):
            tree["img"] = _image(left)
        if left.any("text_model."):
            tree["txt"] = _text(left)
    except KeyError as error:
        raise DataError(f"{path} is not a Hugging Face SigLIP: it lacks {error}") from None
    except ValueError as error:
        raise DataError(f"{path} is not a Hugging Face SigLIP: {error}") from None
    for ours, theirs in (("t", "logit_scale"), ("b", "logit_bias")):
        if left.any(theirs):
            tree[ours] = left.pop(theirs).reshape(1)
    unknown = [name for name in left.state if not name.endswith("position_ids")]
    if not tree or unknown:
        reason = f"it has an unknown parameter {unknown[0]!r}" if unknown else "it is empty"
        raise DataError(f"{path} is not a Hugging Face SigLIP: {reason}")
    return tree


class _Remaining:
    """The arrays of a file that have not been used yet."""

    def __init__(self, state: dict[str, np.ndarray]):
        self.state = state

    def any(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.state)

    def pop(self, name: str) -> np.ndarray:
        return self.state.pop(name)

    def linear(self, name: str) -> Tree:
        return {"kernel": self.pop(f"{name}.weight").T, "bias": self.pop(f"{name}.bias")}

    def norm(self, name: str) -> Tree:
        return {"scale": self.pop(f"{name}.weight"), "bias": self.pop(f"{name}.bias")}

    def mlp(self, name: str) -> Tree:
        # Our Dense_0 is the second layer, see `study.interop.big_vision`.
        return {"Dense_0": self.linear(f"{name}.fc2"), "Dense_1": self.linear(f"{name}.fc1")}


def _image(left: _Remaining) -> Tree:
    at = "vision_model"
    kernel_WxCxpxp = left.pop(f"{at}.embeddings.patch_embedding.weight")
    tree: Tree = {
        "embedding": {
            "kernel": kernel_WxCxpxp.transpose(2, 3, 1, 0),
            "bias": left.pop(f"{at}.embeddings.patch_embedding.bias"),
        },
        "pos_embedding": left.pop(f"{at}.embeddings.position_embedding.weight")[None],
        "Transformer": _encoder(left, at, "post_layernorm"),
    }
    head = f"{at}.head"
    if left.any(head):
        mlp = left.mlp(f"{head}.mlp")
        heads = _heads(mlp)
        kernels = np.split(left.pop(f"{head}.attention.in_proj_weight"), 3)
        biases = np.split(left.pop(f"{head}.attention.in_proj_bias"), 3)
        linears = [
            {"kernel": kernel.T, "bias": bias} for kernel, bias in zip(kernels, biases, strict=True)
        ]
        tree["MapHead_0"] = {
            "probe": left.pop(f"{head}.probe"),
            "MultiHeadDotProductAttention_0": _attention(
                linears, left.linear(f"{head}.attention.out_proj"), heads
            ),
            "LayerNorm_0": left.norm(f"{head}.layernorm"),
            "Mlp_0": mlp,
        }
    return tree


def _text(left: _Remaining) -> Tree:
    at = "text_model"
    return {
        "Embed_0": {"embedding": left.pop(f"{at}.embeddings.token_embedding.weight")},
        "pos_embedding": left.pop(f"{at}.embeddings.position_embedding.weight")[None],
        "Encoder_0": _encoder(left, at, "final_layer_norm"),
        "head": left.linear(f"{at}.head"),
    }


def _encoder(left: _Remaining, at: str, last_norm: str) -> Tree:
    blocks: list[Tree] = []
    while left.any(layer := f"{at}.encoder.layers.{len(blocks)}."):
        mlp = left.mlp(f"{layer}mlp")
        attention = f"{layer}self_attn."
        linears = [left.linear(f"{attention}{name[0]}_proj") for name in _QKV]
        out = left.linear(f"{attention}out_proj")
        norms = {ours: left.norm(f"{layer}{theirs}") for ours, theirs in _NORMS.items()}
        blocks.append(
            norms
            | {"MultiHeadDotProductAttention_0": _attention(linears, out, _heads(mlp))}
            | {"Mlp_0": mlp}
        )
    if not blocks:
        raise KeyError(f"{at}.encoder.layers.0")
    return {"encoderblock": stack_blocks(blocks), "encoder_norm": left.norm(f"{at}.{last_norm}")}


def _attention(linears: list[Tree], out: Tree, heads: int) -> Tree:
    """Splits width W into heads x W/heads on the side of the attention."""
    width = len(out["bias"])
    tree: Tree = {
        name: {
            "kernel": linear["kernel"].reshape(width, heads, -1),
            "bias": linear["bias"].reshape(heads, -1),
        }
        for name, linear in zip(_QKV, linears, strict=True)
    }
    kernel_HxKxW = out["kernel"].reshape(heads, -1, width)
    return tree | {"out": {"kernel": kernel_HxKxW, "bias": out["bias"]}}


def _heads(mlp: Tree) -> int:
    hidden, width = mlp["Dense_0"]["kernel"].shape
    for size in VARIANTS.values():
        if (size.width, size.mlp) == (width, hidden):
            return size.heads
    raise ValueError(f"no variant has width {width} and an MLP of {hidden}")
