"""What the text towers need to know of a tokenizer."""

from __future__ import annotations

from typing import NamedTuple


class Vocabulary(NamedTuple):
    """The number of a tokenizer's pieces, and the ids of two of them.

    size: number of pieces; their ids are 0 to size - 1.
    eos: id of the piece that ends a text.
    pad: id that fills a text up to its length, which may be `eos` itself.
    """

    size: int
    eos: int
    pad: int
