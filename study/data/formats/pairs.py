"""Rows of (image, text) over the images of another split: several texts of one image.

An image with captions in 36 languages is stored, decoded and embedded once. A row of the table
names an image by its number in the other split:

    image: int32        text: string        and further columns, such as language: string

In dataset.json: {"train": {"images": "drawings", "shards": ["train.parquet"], "examples": 100}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import Reader
from study.records.record import atomic_write


class PairsReader(Reader):
    """The rows of a table as examples.

    Metadata of an example are those of its image, and the further columns of its row.

    Arguments:
      images: the examples that have the images.
      path: the table.
    """

    def __init__(self, images: Reader, path: Path):
        self.paths, self._images = (path,), images
        self._table = read_table(path)
        self._images_N = image_rows(self._table, path, len(images))
        self._text = _Column(self._table["text"])
        self._others = {
            name: _Column(self._table[name])
            for name in self._table.column_names
            if name not in ("image", "text")
        }

    def __len__(self) -> int:
        return len(self._images_N)

    def key(self, i: int) -> str:
        return f"row {i}"

    def path(self, i: int) -> Path:
        return self.paths[0]

    def image(self, i: int) -> bytes:
        return self._images.image(int(self._images_N[i]))

    def prefetch(
        self, index_N: np.ndarray, *, image: bool = True, text: bool = True, json: bool = False
    ) -> None:
        if image or json:
            image_N = self._images_N[np.asarray(index_N)]
            self._images.prefetch(image_N, image=image, text=False, json=json)

    def text(self, i: int) -> str:
        text = self._text[i]
        if not isinstance(text, str):
            raise self.bad_example(i, "it has no text")
        return text

    def json(self, i: int) -> dict[str, Any]:
        of_image = self._images.json(int(self._images_N[i]))
        return of_image | {name: column[i] for name, column in self._others.items()}


class _Column:
    """A column by row; each distinct value is one object."""

    def __init__(self, column: pa.ChunkedArray):
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        self._values = encoded.dictionary.to_pylist()
        self._codes_N = encoded.indices.to_numpy()

    def __getitem__(self, i: int) -> Any:
        return self._values[self._codes_N[i]]


def write_pairs(path: Path, image_N: np.ndarray, columns: Mapping[str, Any]) -> None:
    """Writes a table; the same rows and version of pyarrow give the same bytes.

    Arguments:
      image_N: the image of each row, a number in the other split.
      columns: "text" and others, N values each.
    """
    table = pa.table({"image": pa.array(image_N, pa.int32()), **columns})
    with atomic_write(path) as file:
        pa.parquet.write_table(table, file, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A table of pairs, or some of its columns."""
    try:
        table = pa.parquet.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a readable table ({error}); {HINT}") from None
    if missing := {"image", *(columns or ["text"])} - set(table.column_names):
        raise DataError(f"{path} has no column {min(missing)}; {HINT}")
    return table


def image_rows(table: pa.Table, path: Path, images: int) -> np.ndarray:
    """The image of each row, a number below `images`, int64 N."""
    image_N = table["image"].to_numpy().astype(np.int64)
    if len(image_N) and not 0 <= image_N.min() <= image_N.max() < images:
        raise DataError(f"{path} names an image outside of the {images:,} that exist; {HINT}")
    return image_N
