"""Pre-LN transformer blocks, scanned over depth, shared by both towers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding

from study.config.execution import Remat
from study.config.model import Variant
from study.models.attention import attention
from study.models.dropout import dropout

Dtype = Any
# The sharding of the rows of activations. With it, sharded parameters (FSDP) are gathered layer by
# layer; without it, the compiler may move the activations instead.
Rows = NamedSharding | None


def constrain_rows(x: jax.Array, rows: Rows) -> jax.Array:
    return x if rows is None else jax.lax.with_sharding_constraint(x, rows)


def product(x: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
    """`x @ kernel`, in which XLA:CPU computes the kernel's gradient at full speed.

    JAX asks for `(dy.T @ x).T`. XLA makes one product of it, of two arrays that are transposed, and
    has no fast code for that: 48 to 66 GFLOP/s where other products reach 100 (1,024 rows, 192 and
    768 columns, one core). So this transpose is kept out of the product.
    """
    return lax.dot_general(x, _transpose(kernel_IxO), (((x.ndim - 1,), (1,)), ((), ())))


@jax.custom_vjp
def _transpose(kernel_IxO: jax.Array) -> jax.Array:
    return kernel_IxO.T


def _transpose_gradient(_: None, dkernel_OxI: jax.Array) -> tuple[jax.Array]:
    apart = lax.platform_dependent(
        dkernel_OxI, cpu=lambda g: lax.optimization_barrier(g).T, default=lambda g: g.T
    )
    return (apart,)


_transpose.defvjp(lambda kernel_IxO: (kernel_IxO.T, None), _transpose_gradient)


class Mlp(nn.Module):
    """Two dense layers with a gelu between; matrix products in `dtype`."""

    hidden: int
    dtype: Dtype = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, keys_B: jax.Array | None = None, site: jax.Array | int = 0
    ) -> jax.Array:
        dim = x.shape[-1]
        init: Any = {
            "kernel_init": nn.initializers.xavier_uniform(),
            "bias_init": nn.initializers.normal(1e-6),
            "dtype": self.dtype,
            "dot_general": lambda x, kernel, *_, **__: product(x, kernel),
        }
        # `down` first, so that it is Dense_0: names seed the initialisation, and the cells of
        # earlier records started that way.
        down, up = nn.Dense(dim, **init), nn.Dense(self.hidden, **init)
        return down(dropout(nn.gelu(up(x)), self.dropout, keys_B, site))


class Block(nn.Module):
    """Pre-norm self-attention and MLP, each with a float32 residual."""

    hidden: int
    heads: int
    dtype: Dtype
    dropout: float
    rows: Rows = None

    @nn.compact
    def __call__(
        self, x_BxLxW: jax.Array, layer: jax.Array, keys_B: jax.Array | None
    ) -> tuple[jax.Array, None]:
        site = 3 * layer + 1  # 0 is the dropout before the first block
        x_BxLxW = constrain_rows(x_BxLxW, self.rows)
        y = nn.LayerNorm()(x_BxLxW)
        y = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            attention_fn=attention,
        )(y, y)
        x_BxLxW += dropout(constrain_rows(y, self.rows), self.dropout, keys_B, site)
        y = nn.LayerNorm()(x_BxLxW)
        y = Mlp(self.hidden, self.dtype, self.dropout)(y, keys_B, site + 1)
        x_BxLxW += dropout(constrain_rows(y, self.rows), self.dropout, keys_B, site + 2)
        return x_BxLxW, None


class Encoder(nn.Module):
    """`depth` blocks with stacked parameters and a final layer norm: `BxLxW` to `BxLxW`.

    Attributes:
      dtype: of the matrix products.
      dropout: rate, if keys are given.
      remat: see `Execution.remat`.
      rows: the sharding of the rows of activations.
    """

    variant: Variant
    dtype: Dtype = jnp.float32
    dropout: float = 0.0
    remat: Remat | None = None
    rows: Rows = None

    @nn.compact
    def __call__(self, x_BxLxW: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        v = self.variant
        block: Any = Block
        if self.remat is not None:
            # Inside a scan XLA cannot merge the two forward passes.
            policy = getattr(jax.checkpoint_policies, self.remat)
            block = nn.remat(Block, prevent_cse=False, policy=policy)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=v.depth,
        )(v.mlp, v.heads, self.dtype, self.dropout, self.rows, name="encoderblock")
        x_BxLxW, _ = blocks(x_BxLxW.astype(jnp.float32), jnp.arange(v.depth), keys_B)
        return nn.LayerNorm(name="encoder_norm")(constrain_rows(x_BxLxW, self.rows))


class MapHead(nn.Module):
    """Attention pooling `BxLxW` to `BxW`: one learned probe attends to all positions."""

    hidden: int
    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxLxW: jax.Array) -> jax.Array:
        batch, _, width = x_BxLxW.shape
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, 1, width))
        x = nn.MultiHeadDotProductAttention(
            num_heads=self.heads, kernel_init=init, dtype=self.dtype, attention_fn=attention
        )(jnp.tile(probe, (batch, 1, 1)), x_BxLxW).astype(jnp.float32)
        x += Mlp(self.hidden, self.dtype)(nn.LayerNorm()(x))
        return x[:, 0]
