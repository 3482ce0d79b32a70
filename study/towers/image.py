"""The image tower: a ViT on patches."""

from __future__ import annotations

import flax.linen as nn
import jax

from study.cell import ViT
from study.towers.transformer import Encoder, MapHead, variant


class PatchEmbedding(nn.Module):
    """A p x p convolution with stride p, as the matrix product that it is: `BxHxWxC` to `BxLxW`.

    The kernel keeps its convolution shape `pxpxCxW`. XLA's convolutions are many times slower
    than this on CPU, and no faster elsewhere. Pixels beyond the last whole patch are not seen.
    """

    width: int
    patch: int

    @nn.compact
    def __call__(self, image_BxHxWxC: jax.Array) -> jax.Array:
        batch, height, width, channels = image_BxHxWxC.shape
        p, rows, cols = self.patch, height // self.patch, width // self.patch
        init = nn.initializers.lecun_normal()
        kernel_pxpxCxW = self.param("kernel", init, (p, p, channels, self.width))
        bias_W = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        whole = image_BxHxWxC[:, : rows * p, : cols * p]
        x = whole.reshape(batch, rows, p, cols, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x_BxLxP = x.reshape(batch, rows * cols, p * p * channels)
        return x_BxLxP @ kernel_pxpxCxW.reshape(-1, self.width) + bias_W


class ImageTower(nn.Module):
    """`image_BxHxWxC` in [-1, 1] to `BxE`.

    No projection follows the pooling when the width is E already, as in the released models.
    """

    config: ViT
    embed_dim: int

    @nn.compact
    def __call__(self, image_BxHxWxC: jax.Array) -> jax.Array:
        name, patch = self.config.variant.rsplit("/", 1)
        v, p = variant(name), int(patch)
        x_BxLxW = PatchEmbedding(v.width, p, name="embedding")(image_BxHxWxC)
        init = nn.initializers.normal(v.width**-0.5)
        x_BxLxW += self.param("pos_embedding", init, (1, *x_BxLxW.shape[1:]))
        x_BxLxW = Encoder(v, name="Transformer")(x_BxLxW)
        pool = MapHead(v.mlp, v.heads) if self.config.pool == "map" else lambda x: x.mean(1)
        x_BxW = pool(x_BxLxW)
        return x_BxW if v.width == self.embed_dim else nn.Dense(self.embed_dim, name="head")(x_BxW)
