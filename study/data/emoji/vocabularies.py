"""Tokenizers of other sizes than the data set's own, from the captions of its split `train`.

The data set's own has 16,000 pieces and knows every character of 36 languages, 4,000 of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from study.data.errors import DataError
from study.data.formats.dataset import TOKENIZER, Dataset
from study.data.formats.open_split import open_split
from study.data.parallel import ProgressFn, no_progress
from study.data.tokenizer import train_tokenizer
from study.records.record import atomic_write

# Characters take half of a vocabulary at most, and the rarest are unknown; but SentencePiece leaves
# out 2 % of a text at most.
CHARACTERS, LEAST_COVERAGE = 0.5, 0.98


def file_name(pieces: int) -> str:
    """The file of a tokenizer of that size, in the folder of the data set."""
    return TOKENIZER.replace(".", f"-{pieces}.")


def train_tokenizers(
    dataset: Dataset, sizes: Iterable[int], progress: ProgressFn = no_progress
) -> None:
    """Trains a tokenizer of each size in the folder of the data set; keeps what exists.

    The same data set and version of SentencePiece give the same bytes.

    Raises:
      DataError: The disk is full or read-only.
    """
    missing = [n for n in sizes if not (dataset.folder / file_name(n)).exists()]
    if not missing:
        return
    texts = read_names_and_keywords(dataset)
    for done, pieces in enumerate(missing):
        progress("training tokenizers", done, len(missing))
        coverage = _coverage(texts, round(CHARACTERS * pieces))
        model = train_tokenizer(texts, vocabulary=pieces, coverage=coverage)
        path = dataset.folder / file_name(pieces)
        try:
            with atomic_write(path) as file:
                file.write(model)
        except OSError as error:
            raise DataError(
                f"cannot write {path}: {error.strerror or error}; make room and run again"
            ) from None
    progress("training tokenizers", len(missing), len(missing))


def read_names_and_keywords(dataset: Dataset) -> list[str]:
    """Those that are captions of `train`, each once, sorted. A keyword with a comma is two."""
    rows = open_split(dataset, "train")
    captions = {(rows.text(i), rows.json(i)["kind"]) for i in range(len(rows))}
    return sorted({t for text, kind in captions for t in _parts(text, kind)})


def _parts(caption: str, kind: str) -> list[str]:
    return caption.split(", ") if kind == "keywords" else [caption]


def _coverage(texts: list[str], characters: int) -> float:
    """The share of the texts' letters that the `characters` most frequent ones are."""
    counts = Counter(letter for text in texts for letter in text.lower() if not letter.isspace())
    share = sum(n for _, n in counts.most_common(characters)) / counts.total()
    return max(share, LEAST_COVERAGE)
