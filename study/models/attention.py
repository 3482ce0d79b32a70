"""Attention in half precision by cuDNN on NVIDIA's GPUs, flax's own elsewhere."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import backend


def attention(
    query_BxTxNxH: jax.Array, key_BxSxNxH: jax.Array, value_BxSxNxH: jax.Array
) -> jax.Array:
    """softmax(q k / sqrt(H)) v for each head: `BxTxNxH`, with the softmax in float32.

    cuDNN keeps the weights out of memory. It takes half precision, and heads of some widths.
    """

    def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        # The weights stay float32 in the second product.
        out: jax.Array = nn.dot_product_attention(q, k, v, force_fp32_for_softmax=True)
        return out.astype(query_BxTxNxH.dtype)

    qkv = (query_BxTxNxH, key_BxSxNxH, value_BxSxNxH)
    # To trace cuDNN's version needs the library, so other machines do not.
    if not _cudnn_takes(query_BxTxNxH) or "cuda" not in backend.get_backend().platform_version:
        return plain(*qkv)
    cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    out: jax.Array = lax.platform_dependent(*qkv, cuda=cudnn, default=plain)
    return out


def _cudnn_takes(query_BxTxNxH: jax.Array) -> bool:
    width = query_BxTxNxH.shape[-1]
    return query_BxTxNxH.dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= 128
