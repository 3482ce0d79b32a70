"""Zero-shot classification by the nearest mean of a class's prompts (paper Sec. 4)."""

from __future__ import annotations

import string

import numpy as np

CHUNK = 512  # with more, the allocation of the similarities takes longer than the product
_NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def prompts(
    class_names: tuple[str, ...], templates: tuple[str, ...], *, canonical: bool
) -> list[str]:
    """Every class name in every template, a class's templates together.

    canonical: in lower case, without punctuation and with single spaces, as big_vision does.
    """
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    if canonical:
        return [" ".join(text.lower().translate(_NO_PUNCTUATION).split()) for text in texts]
    return texts


def classifier(ztxt_PxE: np.ndarray, *, classes: int) -> np.ndarray:
    """Unit class embeddings `C x E`: the normalised mean over each class's prompts.

    Arguments:
      ztxt_PxE: unit embeddings of `classes * templates` prompts, a class's templates together.
    """
    mean_CxE = ztxt_PxE.reshape(classes, -1, ztxt_PxE.shape[1]).mean(1)
    return mean_CxE / np.linalg.norm(mean_CxE, axis=1, keepdims=True)


def correct(zimg_NxE: np.ndarray, zclass_CxE: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Whether each image's nearest class, the first of equals, is its own: bool `N`."""
    hits = [
        (zimg_NxE[i : i + CHUNK] @ zclass_CxE.T).argmax(1) == label_N[i : i + CHUNK]
        for i in range(0, len(zimg_NxE), CHUNK)
    ]
    return np.concatenate(hits)
