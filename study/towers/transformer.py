"""Pre-LN transformer blocks, scanned over depth, shared by both towers."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Variant(NamedTuple):
    width: int
    depth: int
    mlp: int
    heads: int


VARIANTS = {
    "mu": Variant(32, 1, 128, 2),
    "Ti": Variant(192, 12, 768, 3),
    "S": Variant(384, 12, 1536, 6),
    "M": Variant(512, 12, 2048, 8),
    "B": Variant(768, 12, 3072, 12),
    "L": Variant(1024, 24, 4096, 16),
    "So400m": Variant(1152, 27, 4304, 16),
    "H": Variant(1280, 32, 5120, 16),
    "g": Variant(1408, 40, 6144, 16),
    "g-opt": Variant(1536, 40, 6144, 16),
    "G": Variant(1664, 48, 8192, 16),
}


def variant(name: str) -> Variant:
    """Width, depth, MLP width and heads by name.

    Raises:
      ValueError: no such variant, with those that exist.
    """
    if name not in VARIANTS:
        raise ValueError(f"tower variant {name!r} does not exist; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]


class Mlp(nn.Module):
    """Two dense layers with gelu between."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dim = x.shape[-1]
        init: Any = {
            "kernel_init": nn.initializers.xavier_uniform(),
            "bias_init": nn.initializers.normal(1e-6),
        }
        return nn.Dense(dim, **init)(nn.gelu(nn.Dense(self.hidden, **init)(x)))


class Block(nn.Module):
    """Self-attention and MLP, each behind a layer norm and beside a residual."""

    hidden: int
    heads: int

    @nn.compact
    def __call__(self, x_BxLxW: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        y = nn.LayerNorm()(x_BxLxW)
        x_BxLxW += nn.MultiHeadDotProductAttention(
            num_heads=self.heads, kernel_init=nn.initializers.xavier_uniform()
        )(y, y)
        x_BxLxW += Mlp(self.hidden)(nn.LayerNorm()(x_BxLxW))
        return x_BxLxW, None


class Encoder(nn.Module):
    """`depth` blocks with stacked parameters and a final layer norm: `BxLxW` to `BxLxW`."""

    variant: Variant

    @nn.compact
    def __call__(self, x_BxLxW: jax.Array) -> jax.Array:
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.variant.depth,
        )
        v = self.variant
        x_BxLxW, _ = blocks(hidden=v.mlp, heads=v.heads, name="encoderblock")(x_BxLxW, None)
        return nn.LayerNorm(name="encoder_norm")(x_BxLxW)


class MapHead(nn.Module):
    """Multi-head attention pooling: one learned probe attends to all positions."""

    hidden: int
    heads: int

    @nn.compact
    def __call__(self, x_BxLxW: jax.Array) -> jax.Array:
        batch, _, width = x_BxLxW.shape
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, 1, width))
        x = nn.MultiHeadDotProductAttention(num_heads=self.heads, kernel_init=init)(
            jnp.tile(probe, (batch, 1, 1)), x_BxLxW
        )
        x += Mlp(self.hidden)(nn.LayerNorm()(x))
        return x[:, 0]
