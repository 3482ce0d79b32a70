"""The texts of a split for retrieval: one or several for each image, in one language or many."""

from __future__ import annotations

import numpy as np

from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split


def read_captions(
    dataset: Dataset, split: str, index_N: np.ndarray, *, language: str | None = None
) -> tuple[list[str], np.ndarray]:
    """All texts of these examples, and which of the N each belongs to, int64 `M`.

    An example's texts are the list "captions" of its metadata (by language, where it is an
    object), or else its text.

    Raises:
      DataError: no captions in `language`, or several languages and none chosen.
    """
    reader = open_split(dataset, split)
    texts: list[str] = []
    owner: list[int] = []
    for n, i in enumerate(index_N.tolist()):
        found = reader.json(i).get("captions") or [reader.text(i)]
        if isinstance(found, dict):
            if language is None:
                raise reader.bad_example(
                    i, f"its captions are in {len(found)} languages; evaluate it by language"
                )
            found = found.get(language)
        elif language is not None:
            found = None
        if not found:
            raise reader.bad_example(i, f"it has no caption in the language {language!r}")
        texts += found
        owner += [n] * len(found)
    return texts, np.array(owner, np.int64)


def read_languages(dataset: Dataset, split: str) -> tuple[str, ...]:
    """The languages that a split has captions in, as its first example says.

    Raises:
      DataError: captions that are not by language.
    """
    found = open_split(dataset, split).json(0).get("captions")
    if not isinstance(found, dict):
        raise DataError(
            f"the split {split} of {dataset.name} has no captions by language; import it from "
            "captions.jsonl (`study data import`) or use a Retrieval evaluation"
        )
    return tuple(sorted(found))
