"""study run emoji-vocabulary

Tokenizers of 2,000 to 64,000 pieces, at B = 1,024, three seeds (paper Sec. 4.3: 250,000 pieces are
one percent better than 32,000). `prepare` trains those that the data set lacks, in a minute. The
one of 16,000 is the data set's own, and its cells are in `emoji-batch-size` too. With 64,000 a cell
takes half as long again.
"""

from __future__ import annotations

from pathlib import Path

from study.config import Cell
from study.data.emoji.vocabularies import file_name, train_tokenizers
from study.data.parallel import ProgressFn, no_progress
from sweeps.grids.emoji.recipe import ASSUMPTIONS, LONG, SEEDS, emoji_cell, emoji_study
from sweeps.study import Assumption, Study

BATCH_SIZE = 1024
SIZES = (2000, 32_000, 64_000)
TOKENIZERS = (None, *map(file_name, SIZES))
CHARACTERS = Assumption(
    "small vocabularies",
    "half of 2,000 pieces are characters, and 1.3 % of the pieces of a text are unknown",
    "The captions have 4,000 characters; a vocabulary of them alone would spell every word.",
)


def cells() -> list[Cell]:
    return [
        emoji_cell(batch_size=BATCH_SIZE, seed=seed, examples=LONG, tokenizer=tokenizer)
        for seed in SEEDS
        for tokenizer in TOKENIZERS
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-vocabulary",
        question="In 36 languages: how many pieces does the tokenizer need?",
        cells=cells(),
        paper="Sec. 4.3",
        prepare="sweeps.grids.emoji.vocabulary:prepare",
        assumptions=(*ASSUMPTIONS, CHARACTERS),
    )


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """Makes the data set, and its tokenizers of other sizes; keeps what exists.

    Raises:
      DataError: see `study.interop.emoji.prepare`.
    """
    from study.interop import emoji

    train_tokenizers(emoji.prepare(data_root, progress), SIZES, progress)
