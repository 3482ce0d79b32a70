"""The image tower: a ViT on patches."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from study.config import ViT
from study.config.execution import Remat
from study.models.dropout import dropout
from study.models.transformer import Dtype, Encoder, MapHead, Rows


class PatchEmbedding(nn.Module):
    """A p x p convolution with stride p, computed as a matrix product: `BxHxWxC` to `BxLxW`.

    The kernel keeps its convolution shape `pxpxCxW`. XLA's convolutions are many times slower on
    CPU, and no faster elsewhere. Pixels beyond the last whole patch are ignored.
    """

    width: int
    patch: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image_BxHxWxC: jax.Array) -> jax.Array:
        batch, height, width, channels = image_BxHxWxC.shape
        p, rows, cols = self.patch, height // self.patch, width // self.patch
        init = nn.initializers.lecun_normal()
        kernel_pxpxCxW = self.param("kernel", init, (p, p, channels, self.width))
        bias_W = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        whole = image_BxHxWxC[:, : rows * p, : cols * p]
        x = whole.reshape(batch, rows, p, cols, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x_BxLxP = scale_pixels(x.reshape(batch, rows * cols, p * p * channels))
        kernel_PxW = kernel_pxpxCxW.reshape(-1, self.width).astype(self.dtype)
        return x_BxLxP.astype(self.dtype) @ kernel_PxW + bias_W


class ImageTower(nn.Module):
    """`image_BxHxWxC`, uint8 or in [-1, 1], to `BxE`; `study.config.model.ViT` has the choices."""

    config: ViT
    embed_dim: int
    dtype: Dtype = jnp.float32
    remat: Remat | None = None
    rows: Rows = None

    @nn.compact
    def __call__(
        self,
        image_BxHxWxC: jax.Array,
        keys_B: jax.Array | None = None,
        *,
        features_only: bool = False,
    ) -> jax.Array:
        """keys_B: of dropout. features_only: leave out the head."""
        config, v = self.config, self.config.size
        x_BxLxW = PatchEmbedding(v.width, config.patch, self.dtype, name="embedding")(image_BxHxWxC)
        if config.posemb == "learn":
            init = nn.initializers.normal(v.width**-0.5)
            x_BxLxW += self.param("pos_embedding", init, (1, *x_BxLxW.shape[1:]))
        else:
            rows, cols = (side // config.patch for side in image_BxHxWxC.shape[1:3])
            x_BxLxW += sincos2d(rows, cols, v.width)
        if config.pool == "tok":
            cls_1x1xW = self.param("cls", nn.initializers.zeros_init(), (1, 1, v.width))
            cls_Bx1xW = jnp.tile(cls_1x1xW, (len(x_BxLxW), 1, 1))
            x_BxLxW = jnp.concatenate([cls_Bx1xW, x_BxLxW], axis=1)
        x_BxLxW = dropout(x_BxLxW, config.dropout, keys_B, 0)
        encoder = Encoder(v, self.dtype, config.dropout, self.remat, self.rows, name="Transformer")
        x_BxLxW = encoder(x_BxLxW, keys_B)
        match config.pool:
            case "map":
                x_BxW = MapHead(v.mlp, v.heads, self.dtype)(x_BxLxW)
            case "gap":
                x_BxW = x_BxLxW.mean(1)
            case "tok":
                x_BxW = x_BxLxW[:, 0]
        if features_only or (config.head == "if_needed" and v.width == self.embed_dim):
            return x_BxW
        return nn.Dense(self.embed_dim, name="head")(x_BxW)


def scale_pixels(image: jax.Array) -> jax.Array:
    """uint8 pixels scaled to float32 in [-1, 1]; floats as they are.

    Images travel to the devices as uint8, a quarter of the bytes.
    """
    if image.dtype != jnp.uint8:
        return image
    scaled = image.astype(jnp.float32) * np.float32(1 / 127.5)
    # The minimum changes no value. It keeps compilers from fusing the product and the sum, which
    # would round once instead of twice: all devices get the same bits, and those of NumPy.
    return jnp.minimum(scaled, 3) - 1


def sincos2d(rows: int, cols: int, width: int) -> np.ndarray:
    """Fixed position embeddings, 1 x rows*cols x width: sine and cosine of x, then of y.

    Each has width / 4 frequencies in a geometric series from 1 to 1 / 10,000.
    """
    rate_K = 10_000.0 ** -np.linspace(0, 1, width // 4)
    y_L, x_L = (side.ravel() for side in np.mgrid[:rows, :cols])
    x_LxK, y_LxK = np.outer(x_L, rate_K), np.outer(y_L, rate_K)
    parts = [np.sin(x_LxK), np.cos(x_LxK), np.sin(y_LxK), np.cos(y_LxK)]
    return np.concatenate(parts, axis=1).astype(np.float32)[None]
