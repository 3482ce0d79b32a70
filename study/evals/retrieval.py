"""Recall of retrieval in both directions: the rank of the matching image or text."""

from __future__ import annotations

import numpy as np

TOP = (1, 5, 10)
CHUNK = 512


def hits(zimg_NxE: np.ndarray, ztxt_MxE: np.ndarray, image_M: np.ndarray) -> dict[str, np.ndarray]:
    """Whether a match ranks among the first k, by metric: bool `N` for images, `M` for texts.

    Arguments:
      image_M: the image that each text describes. Any of its texts is a match for an image. An
        image without a text is searched for none; texts may still find it, wrongly.
    """
    own_N = np.arange(len(zimg_NxE))
    described_N = np.unique(image_M)
    rank_N = ranks(zimg_NxE[described_N], ztxt_MxE, described_N, image_M)
    rank_M = ranks(ztxt_MxE, zimg_NxE, image_M, own_N)
    return {f"image_to_text_r{k}": rank_N < k for k in TOP} | {
        f"text_to_image_r{k}": rank_M < k for k in TOP
    }


def ranks(
    query_QxE: np.ndarray, key_KxE: np.ndarray, group_Q: np.ndarray, group_K: np.ndarray
) -> np.ndarray:
    """The rank, from 0, of the best key of each query's own group: int64 `Q`.

    Of equal similarities the first key ranks higher. NaN ranks before all numbers, so a diverged
    model finds nothing.
    """
    out = []
    place_K = np.arange(len(key_KxE))
    for start in range(0, len(query_QxE), CHUNK):
        chunk = slice(start, start + CHUNK)
        similarity_CxK = query_QxE[chunk] @ key_KxE.T
        own_CxK = group_Q[chunk, None] == group_K
        best_C = np.where(own_CxK, similarity_CxK, -np.inf).argmax(1)
        best_Cx1 = np.take_along_axis(similarity_CxK, best_C[:, None], 1)
        before_CxK = place_K < best_C[:, None]
        worse_CxK = (similarity_CxK < best_Cx1) | (~before_CxK & (similarity_CxK == best_Cx1))
        worse_CxK[np.arange(len(best_C)), best_C] = True  # itself
        out.append((~worse_CxK).sum(1))
    return np.concatenate(out)
