"""Pairs whose captions are equal though they are not the same example: "false negatives".

Another image's caption that reads the same is no wrong caption for this image, so such a pair can
be left out of the loss ("masked") or count as a positive ("positive").
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from study.config.loss import SameCaption
from study.losses.tiled import NegativeSums, pairwise_gradients, softplus_and_sigmoid
from study.losses.tiles import BIG, Tile
from study.rng import mix

_SEEDS = (0x9E3779B9, 0x7F4A7C15)


def caption_ids(text_BxL: jax.Array) -> jax.Array:
    """Two 32-bit hashes of each row of tokens, uint32 B x 2; equal rows have equal ids.

    Different rows have equal ids with a chance of 2**-64 a pair: 6e-8 in a batch of 1,048,576.
    """
    token_BxL = text_BxL.astype(jnp.uint32)
    place_L = jnp.arange(text_BxL.shape[1], dtype=jnp.uint32)
    hashes = [
        mix(jnp.sum(mix(mix(place_L + seed) ^ token_BxL), axis=1, dtype=jnp.uint32))
        for seed in map(jnp.uint32, _SEEDS)
    ]
    return jnp.stack(hashes, axis=1)


def compare(
    l_TxT: jax.Array,
    at: Tile,
    caption_Tx2: jax.Array | None,
    caption_Ux2: jax.Array | None,
    usable_T: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The logits of a tile's negatives, and which of these pairs have equal captions.

    Arguments:
      caption_Tx2, caption_Ux2: ids of the tile's rows and columns; None if none are compared.
      usable_T: which columns hold a text; None is all.

    Returns the logits, -BIG for all that is no negative, a mask, and the smallest logit.
    """
    if usable_T is not None:
        # The smallest logit is not exact then; nothing reads it for stored embeddings.
        l_TxT = jnp.where(usable_T[None, :], l_TxT, -BIG)
    all_TxT, logit_min = at.negatives(l_TxT)
    if caption_Tx2 is None or caption_Ux2 is None:
        return all_TxT, jnp.zeros(l_TxT.shape, bool), logit_min
    same_TxT = caption_Tx2[:, None, 0] == caption_Ux2[None, :, 0]
    same_TxT &= caption_Tx2[:, None, 1] == caption_Ux2[None, :, 1]
    return all_TxT, same_TxT & (all_TxT > -BIG), logit_min


def sums_of_kept(
    all_TxT: jax.Array, same_TxT: jax.Array, logit_min: jax.Array
) -> tuple[jax.Array, NegativeSums]:
    """The logits without pairs of equal captions, and what `NegativeSums` has on logits."""
    kept_TxT = jnp.where(same_TxT, -BIG, all_TxT)
    zero = jnp.zeros((), jnp.float32)
    return kept_TxT, NegativeSums(
        loss=zero,
        db=zero,
        logit_min=logit_min,
        logit_max=jnp.max(all_TxT),
        kept_sum=jnp.sum(jnp.where(kept_TxT > -BIG, kept_TxT, 0.0)),
        kept_min=jnp.min(jnp.where(kept_TxT > -BIG, kept_TxT, BIG)),
        kept_max=jnp.max(kept_TxT),
        same=jnp.sum(same_TxT, dtype=jnp.float32),
    )


def captioned_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    captions: tuple[jax.Array, jax.Array] | None,
    usable_m: jax.Array | None = None,
    same: SameCaption,
    shift: jax.Array | int,
    tile: int,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """`study.losses.tiled.sigmoid_negatives` that knows captions and columns without a text.

    Arguments:
      captions: `caption_ids` of the rows and of the columns; None compares none.
      usable_m: which columns hold a text; None is all.
      same: "masked" or "positive": what pairs with equal captions are, beside an example's own.

    Returns as `sigmoid_negatives`; the sums have `same` and the fields of kept negatives.
    """

    def dlogits(
        x_TxT: jax.Array, at: Tile, caption_Tx2: Any, col: Any
    ) -> tuple[NegativeSums, jax.Array]:
        l_TxT = t * x_TxT + b
        all_TxT, same_TxT, logit_min = compare(l_TxT, at, caption_Tx2, *col)
        kept_TxT, sums = sums_of_kept(all_TxT, same_TxT, logit_min)
        loss, p_TxT, _ = softplus_and_sigmoid(kept_TxT)
        if captions is not None and same == "positive":
            # The loss of a positive with logit l is softplus(-l), its derivative -sigmoid(-l).
            more, q_TxT, _ = softplus_and_sigmoid(jnp.where(same_TxT, -l_TxT, -BIG))
            loss, p_TxT = loss + more, p_TxT - q_TxT
        return sums._replace(loss=loss, db=jnp.sum(p_TxT)), p_TxT

    row_captions, col_captions = (None, None) if captions is None else captions
    return pairwise_gradients(
        dlogits,
        NegativeSums.zeros(kept=True, same=True),
        zimg_nxD,
        ztxt_mxD,
        per_row=row_captions,
        per_col=(col_captions, usable_m),
        origin=(shift, 0),
        tile=tile,
    )
