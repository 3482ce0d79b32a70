"""Reads OpenCLIP's SigLIP models: timm's ViT as image tower (`visual.trunk`), its own text tower.

A file does not say which gelu its model has. OpenCLIP's configurations of SigLIP compute the exact
one in most towers, where big_vision, which trained the released weights, and our towers compute
the approximation by tanh.
"""

from __future__ import annotations

import numpy as np

from study.interop.big_vision import Tree, stack_blocks
from study.interop.torch_state import State, TorchState, attention, count_heads


def is_open_clip(state: State) -> bool:
    return any(name.startswith(("visual.", "text.")) for name in state)


def convert(left: TorchState) -> Tree:
    """The parameters of a SigLIP or SigLIP 2, with our names.

    Raises:
      KeyError, ValueError: they are those of another model.
    """
    tree: Tree = {}
    if left.any("visual."):
        tree["img"] = _image(left)
    if left.any("text."):
        tree["txt"] = _text(left)
    return tree | left.scalars()


def _image(left: TorchState) -> Tree:
    at = "visual.trunk"
    tree: Tree = {
        "embedding": left.conv(f"{at}.patch_embed.proj"),
        "pos_embedding": left.pop(f"{at}.pos_embed"),
    }
    blocks: list[Tree] = []
    while left.any(layer := f"{at}.blocks.{len(blocks)}."):
        qkv = left.split(f"{layer}attn.qkv.weight", f"{layer}attn.qkv.bias", 3)
        norms = {f"LayerNorm_{i}": left.norm(f"{layer}norm{i + 1}") for i in range(2)}
        mlp = left.mlp(f"{layer}mlp.fc1", f"{layer}mlp.fc2")
        blocks.append(norms | _block(qkv, left.linear(f"{layer}attn.proj"), mlp))
    tree["Transformer"] = _encoder(blocks, left.norm(f"{at}.norm"), at)
    pool = f"{at}.attn_pool"
    if left.any(pool):
        mlp = left.mlp(f"{pool}.mlp.fc1", f"{pool}.mlp.fc2")
        qkv = [left.linear(f"{pool}.q"), *left.split(f"{pool}.kv.weight", f"{pool}.kv.bias", 2)]
        tree["MapHead_0"] = {
            "probe": left.pop(f"{pool}.latent"),
            "LayerNorm_0": left.norm(f"{pool}.norm"),
            **_block(qkv, left.linear(f"{pool}.proj"), mlp),
        }
    if left.any(head := "visual.head.proj"):  # by default without a bias
        kernel_WxE = left.pop(f"{head}.weight").T
        zero_E = np.zeros(kernel_WxE.shape[1], np.float32)
        tree["head"] = {"kernel": kernel_WxE, "bias": left.state.pop(f"{head}.bias", zero_E)}
    elif left.any(f"{at}.head"):
        tree["head"] = left.linear(f"{at}.head")
    return tree


def _text(left: TorchState) -> Tree:
    at, blocks = "text.transformer.resblocks", list[Tree]()
    while left.any(layer := f"{at}.{len(blocks)}."):
        qkv = left.split(f"{layer}attn.in_proj_weight", f"{layer}attn.in_proj_bias", 3)
        norms = {f"LayerNorm_{i}": left.norm(f"{layer}ln_{i + 1}") for i in range(2)}
        mlp = left.mlp(f"{layer}mlp.c_fc", f"{layer}mlp.c_proj")
        blocks.append(norms | _block(qkv, left.linear(f"{layer}attn.out_proj"), mlp))
    return {
        "Embed_0": {"embedding": left.pop("text.token_embedding.weight")},
        "pos_embedding": left.pop("text.positional_embedding")[None],
        "Encoder_0": _encoder(blocks, left.norm("text.ln_final"), at),
        "head": left.linear("text.text_projection"),
    }


def _block(qkv: list[Tree], out: Tree, mlp: Tree) -> Tree:
    heads = count_heads(mlp)
    return {"MultiHeadDotProductAttention_0": attention(qkv, out, heads), "Mlp_0": mlp}


def _encoder(blocks: list[Tree], norm: Tree, at: str) -> Tree:
    if not blocks:
        raise KeyError(f"{at}.0")
    return {"encoderblock": stack_blocks(blocks), "encoder_norm": norm}
