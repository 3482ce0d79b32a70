"""The text towers: the paper's transformer, and mean pooling for studies on CPU."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from study.config import MeanPoolText, TextTransformer
from study.config.execution import Remat
from study.config.model import Vocabulary
from study.models.transformer import Dtype, Encoder, Mlp, Rows


class TransformerText(nn.Module):
    """`text_BxL` to `BxE`: bidirectional encoder, last position, linear head.

    The last position attends to all others, whether it holds EOS or padding.
    """

    config: TextTransformer
    vocabulary: int
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: Remat | None = None
    rows: Rows = None

    @nn.compact
    def __call__(self, text_BxL: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        v, narrow = self.config.size, self.config.bottleneck
        init = nn.initializers.normal(v.width**-0.5)
        x_BxLxW = nn.Embed(self.vocabulary, narrow or v.width, embedding_init=init)(text_BxL)
        if narrow is not None:
            # With lecun_normal here, embeddings start at the scale of an unfactored table.
            project = nn.Dense(v.width, use_bias=False, dtype=self.dtype, name="embed_projection")
            x_BxLxW = project(x_BxLxW)
        x_BxLxW += self.param("pos_embedding", init, (1, *x_BxLxW.shape[1:]))
        encoder = Encoder(
            v, self.dtype, self.config.dropout, self.remat, self.rows, name="Encoder_0"
        )
        x_BxLxW = encoder(x_BxLxW, keys_B)
        return nn.Dense(self.embed_dim, name="head")(x_BxLxW[:, -1])


class MeanPoolTower(nn.Module):
    """`text_BxL` to `BxE`: mean of the pieces' embeddings, one residual MLP, linear head.

    The mean leaves out EOS and padding.
    """

    config: MeanPoolText
    vocabulary: Vocabulary
    embed_dim: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, text_BxL: jax.Array, _keys_B: jax.Array | None = None) -> jax.Array:
        width, narrow = self.config.width, self.config.bottleneck
        init = nn.initializers.normal(width**-0.5)
        table_VxK = self.param("embedding", init, (self.vocabulary.size, narrow or width))
        is_word_BxL = text_BxL != self.vocabulary.eos
        if self.vocabulary.pad != self.vocabulary.eos:
            is_word_BxL &= text_BxL != self.vocabulary.pad
        mask_BxL = is_word_BxL.astype(table_VxK.dtype)
        total_BxK = jnp.einsum("bl,blk->bk", mask_BxL, table_VxK[text_BxL])
        x_BxW = total_BxK / jnp.maximum(mask_BxL.sum(1, keepdims=True), 1)
        if narrow is not None:
            # The mean of the projected pieces, since both are linear.
            project = nn.Dense(width, use_bias=False, dtype=self.dtype, name="embed_projection")
            x_BxW = project(x_BxW).astype(x_BxW.dtype)
        x_BxW = x_BxW * jnp.sqrt(jnp.asarray(width, x_BxW.dtype))
        x_BxW += Mlp(2 * width, self.dtype)(x_BxW)
        return nn.Dense(self.embed_dim, name="head")(x_BxW)
