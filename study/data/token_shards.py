"""Tokens of all texts of a data set in shards, for splits whose tokens do not fit in memory.

    <data set>/tokens/<length><options>-<tokenizer>/tokens.json       the index
                                                    train-00000.npy   uint16 or int32 N x L

`study.data.row_files` describes the layout. The row of a text that cannot be used holds the
vocabulary's size, which is not an id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from study.config import Data
from study.data.errors import DataError
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_shard, open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.parallel import ProgressFn, no_progress
from study.data.row_files import Layout, read_index
from study.data.row_shards import RowShards
from study.data.tokenizer import Tokenizer
from study.data.write_rows import Array, write_rows

TOKENS_FILE = "tokens.json"
_CHUNK = 1 << 16  # texts tokenized at a time


def tokenize_dataset(
    dataset: Dataset,
    data: Data,
    *,
    workers: int = 2,
    max_bad_share: float = 0.01,
    part: tuple[int, int] = (0, 1),
    progress: ProgressFn = no_progress,
) -> Path:
    """Tokenizes the texts of every split as `data` says, and returns the folder of the tokens.

    Arguments:
      max_bad_share: largest share of a split's texts that may be unusable.
      workers, part, progress: see `study.data.write_rows.write_rows`.

    Raises:
      DataError: as `write_rows`, or a tokenizer that cannot be used.
    """
    tokenizer = Tokenizer.open(dataset, data)
    metadata = {
        "dataset_fingerprint": dataset.fingerprint,
        "length": data.text_length,
        "tokenizer": tokenizer.digest,
        "not_an_id": tokenizer.vocabulary.size,
    }
    array = Array(
        folder=tokens_folder(dataset, tokenizer),
        layout=token_layout(tokenizer),
        metadata=metadata,
        make=_Tokenize(data),
        action="tokenizing",
        bad="texts",
    )
    return write_rows(
        dataset,
        array,
        splits=list(dataset.splits),
        workers=workers,
        max_bad_share=max_bad_share,
        part=part,
        progress=progress,
    )


def tokens_folder(dataset: Dataset, tokenizer: Tokenizer) -> Path:
    name = f"{tokenizer.length}{tokenizer.options}-{tokenizer.digest[:12]}"
    return dataset.folder / "tokens" / name


def token_dtype(tokenizer: Tokenizer) -> np.dtype[np.generic]:
    """The type in which tokens are kept."""
    return np.dtype(np.uint16 if tokenizer.vocabulary.size < 1 << 16 else np.int32)


def open_tokens(dataset: Dataset, split: str, data: Data) -> tuple[RowShards, int]:
    """Opens the tokens of a split, and the number of its texts that cannot be used.

    Raises:
      DataError: missing, unfinished or stale tokens, or missing rows.
    """
    tokenizer = Tokenizer.open(dataset, data)
    folder = tokens_folder(dataset, tokenizer)
    examples = dataset.split(split).examples
    index = read_index(folder, TOKENS_FILE, split)
    if index is None:
        raise DataError(
            f"the tokens of {examples:,} texts do not fit in memory, and {folder} has no finished "
            f"ones; make them with `{_command(dataset, data)}`"
        )
    stored = RowShards(folder, index.shards, token_layout(tokenizer))
    if index.metadata.get("dataset_fingerprint") != dataset.fingerprint or len(stored) != examples:
        raise DataError(
            f"{folder} was made from another version of the data set; remove it and make it again "
            f"with `{_command(dataset, data)}`"
        )
    return stored, index.bad_rows


def read_texts(
    reader: Reader, index: Iterable[int]
) -> tuple[list[str], dict[int, BadExampleError]]:
    """The texts of these examples ("" where it is bad), and the bad ones."""
    texts, bad = [], {}
    for i in index:
        try:
            texts.append(reader.text(i))
        except BadExampleError as error:
            texts.append("")
            bad[i] = error
    return texts, bad


def tokenize_all(
    reader: Reader, tokenizer: Tokenizer
) -> tuple[np.ndarray, dict[int, BadExampleError]]:
    """Tokens of all texts of a reader, N x length, and the texts that cannot be used."""
    tokens_NxL = np.empty((len(reader), tokenizer.length), token_dtype(tokenizer))
    all_bad: dict[int, BadExampleError] = {}
    for start in range(0, len(reader), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(reader)))
        reader.prefetch(np.array(rows), image=False)
        texts, bad = read_texts(reader, rows)
        tokens_NxL[rows.start : rows.stop] = tokenizer(texts)
        tokens_NxL[list(bad)] = tokenizer.vocabulary.size
        all_bad |= bad
    return tokens_NxL, all_bad


@dataclasses.dataclass(frozen=True)
class _Tokenize:
    """Makes the tokens of a shard."""

    data: Data

    def __call__(
        self, dataset: Dataset, split: str, number: int
    ) -> tuple[np.ndarray, dict[int, str]]:
        pairs = dataset.split(split).images is not None  # one table
        reader = open_split(dataset, split) if pairs else open_shard(dataset, split, number)
        tokens_NxL, bad = tokenize_all(reader, Tokenizer.open(dataset, self.data))
        return tokens_NxL, {i: str(error) for i, error in bad.items()}


def token_layout(tokenizer: Tokenizer) -> Layout:
    """What files of tokens hold."""
    return Layout(
        width=tokenizer.length,
        dtype=token_dtype(tokenizer),
        recorded=TOKENS_FILE,
        redo="remove it and run `study data tokenize` again",
    )


def _command(dataset: Dataset, data: Data) -> str:
    """The command that makes the tokens of a cell."""
    options = [f"--length {data.text_length}"]
    if data.tokenizer is not None:
        options.append(f"--tokenizer {data.tokenizer}")
    if data.lower_case != "unicode":
        options.append(f"--lower-case {data.lower_case or 'none'}")
    if not data.sticky_eos:
        options.append("--no-sticky-eos")
    if data.pad != "eos":
        options.append(f"--pad {data.pad}")
    return f"study data tokenize {dataset.folder} {' '.join(options)}"
