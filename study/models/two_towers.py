"""Both towers, the temperature and the bias as one module."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from study.config import CachedImage, Cell, MeanPoolText, TextTransformer, ViT
from study.config.execution import Remat
from study.config.model import Vocabulary
from study.models.text import MeanPoolTower, TransformerText
from study.models.transformer import Rows
from study.models.vit import ImageTower
from study.rng import mix


class TwoTowers(nn.Module):
    """Unit-norm embeddings of images and texts, with t' = log t and b as parameters.

    Either input may be None; its embedding is then None. A cached image is an embedding already.

    Attributes:
      remat: see `Execution.remat`; it changes no result.
      rows: the sharding of a batch's rows, which matters if parameters are sharded (FSDP).
    """

    cell: Cell
    vocabulary: Vocabulary
    remat: Remat | None = None
    rows: Rows = None

    def setup(self) -> None:
        model = self.cell.model
        dim, dtype = model.embed_dim, jnp.dtype(model.dtype)
        if isinstance(model.image, ViT):
            self.img = ImageTower(model.image, dim, dtype, self.remat, self.rows)
        match model.text:
            case TextTransformer():
                self.txt: nn.Module = TransformerText(
                    model.text, self.vocabulary.size, dim, dtype, self.remat, self.rows
                )
            case MeanPoolText():
                self.txt = MeanPoolTower(model.text, self.vocabulary, dim, dtype)
        for name, value in initial_scalars(self.cell).items():
            setattr(self, name, self.param(name, lambda _, value=value: jnp.asarray(value)))

    def __call__(
        self,
        image: jax.Array | None,
        text_BxL: jax.Array | None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """`image` (`BxHxWxC`, or cached `BxE`) and `text_BxL` to `zimg_BxE`, `ztxt_BxE`, float32.

        Arguments:
          image: uint8, or floats in [-1, 1]; cached embeddings are floats of any size.
          dropout_keys_B: uint32, from `study.models.dropout.example_keys`; None drops nothing.
        """
        zimg_BxE = ztxt_BxE = None
        keys_B = dropout_keys_B
        if image is not None:
            cached = isinstance(self.cell.model.image, CachedImage)
            zimg_BxE = l2_normalize(image if cached else self.img(image, keys_B))
        if text_BxL is not None:
            # The towers must not share dropout masks, so the text has other keys.
            ztxt_BxE = l2_normalize(self.txt(text_BxL, None if keys_B is None else mix(~keys_B)))
        return zimg_BxE, ztxt_BxE

    def image_features(self, image_BxHxWxC: jax.Array) -> jax.Array:
        """The input of the image tower's head `BxF`, float32, or its output if it has no head."""
        return self.img(image_BxHxWxC, features_only=True).astype(jnp.float32)


def l2_normalize(z_BxE: jax.Array) -> jax.Array:
    """Rows divided by their norm, in float32; a zero row stays zero with a finite gradient."""
    z_BxE = z_BxE.astype(jnp.float32)
    return z_BxE * jax.lax.rsqrt(jnp.sum(z_BxE**2, axis=1, keepdims=True) + 1e-12)


def initial_scalars(cell: Cell) -> dict[str, np.ndarray]:
    """t' = log t, and b or r of a loss with a bias, at the start: float32 of shape (1,)."""
    starts = {"t": math.log(cell.loss.t_init), "b": initial_bias(cell)}
    if getattr(cell.loss, "bias", None) == "relative":
        bias = starts.pop("b")
        assert bias is not None
        starts["r"] = -bias / cell.loss.t_init
    return {k: np.full((1,), v, np.float32) for k, v in starts.items() if v is not None}


def temperature(params: Any) -> jax.Array:
    """t, a float32 scalar, from the parameters of the whole model."""
    return jnp.exp(params["t"][0])


def bias(params: Any) -> jax.Array | None:
    """b, a float32 scalar, from the parameters of the whole model; None without a bias."""
    if "r" in params:
        return -temperature(params) * params["r"][0]
    return params["b"][0] if "b" in params else None


def initial_bias(cell: Cell) -> float | None:
    """b at the start, or None for a loss without one.

    "prior" is the log-odds of a positive among the pairs in use. The paper's -10 is the exact
    prior of a batch of 22,027 (Sec. 3.2, 4.9).
    """
    start: Any = getattr(cell.loss, "b_init", None)
    if start == "prior":
        return cell.prior_log_odds
    return start
