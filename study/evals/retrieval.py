"""Recall@1 over matched pairs: each image finds its text, each text its image."""

from __future__ import annotations

import numpy as np


def correct(zimg_NxE: np.ndarray, ztxt_NxE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the nearest is the matching one: image to text and text to image, bool `N` each."""
    similarity_NxN = zimg_NxE @ ztxt_NxE.T
    own_N = np.arange(len(zimg_NxE))
    return similarity_NxN.argmax(1) == own_N, similarity_NxN.argmax(0) == own_N
