"""The captions of a split for retrieval: one or several per image, in one or many languages."""

from __future__ import annotations

import numpy as np

from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split


def read_captions(
    dataset: Dataset, split: str, index_N: np.ndarray, *, language: str | None = None
) -> tuple[list[str], np.ndarray]:
    """All captions of these examples, and for each the row of N that it belongs to, int64 M.

    An example's captions are the list "captions" of its metadata (an object by language, in a
    multilingual benchmark), or else its text. An example without any in `language` has no row.

    Raises:
      DataError: no captions in `language` at all, or several languages and none chosen.
    """
    reader = open_split(dataset, split)
    texts: list[str] = []
    rows: list[int] = []
    for row, i in enumerate(index_N.tolist()):
        captions = reader.json(i).get("captions") or [reader.text(i)]
        if isinstance(captions, dict):
            if language is None:
                raise reader.bad_example(
                    i, f"its captions are in {len(captions)} languages; evaluate it by language"
                )
            captions = captions.get(language, [])
        elif language is not None:
            captions = []
        texts += captions
        rows += [row] * len(captions)
    if not texts:
        raise DataError(
            f"the split {split} of {dataset.name} has no caption in the language {language!r}"
        )
    return texts, np.array(rows, np.int64)


def read_languages(dataset: Dataset, split: str) -> tuple[str, ...]:
    """The languages of a multilingual split: all that any of its examples has.

    Raises:
      DataError: the captions are not by language.
    """
    reader = open_split(dataset, split)
    languages: set[str] = set()
    for i in range(len(reader)):
        captions = reader.json(i).get("captions")
        if not isinstance(captions, dict):
            raise DataError(
                f"the split {split} of {dataset.name} has no captions by language; import it from "
                "captions.jsonl (`study data import`) or use a Retrieval evaluation"
            )
        languages.update(captions)
    return tuple(sorted(languages))
