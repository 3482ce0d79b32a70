"""Corrupted training data (paper Sec. 4.10, Fig. 7), the same whatever the batch size.

How the example at position i of a run is corrupted is a function of the corruption, the run's
seed, i and the example. So both losses and all batch sizes of a study see the same corrupted
stream, on any number of hosts and after any restart.

- **image**: each value is replaced by uniform noise in [-1, 1]. For cached embeddings, which have
  no pixels to corrupt, each coordinate is replaced so: a direction unrelated to the text. (The
  embedding of a noise image would depend on the frozen tower.)
- **text**: uniform tokens other than EOS and padding, their number uniform from 1 to length - 1,
  then EOS and padding.
- **alignment**: within a window of the stream (or of the data set, if drawn once), the exact share
  of examples, chosen at random, exchange texts in a random cycle. The paper shuffles within the
  batch, which would make the data depend on the batch size. (Of a bucket, texts from elsewhere are
  read one by one, so give a short window.)

The three are drawn independently; noise replaces a text after texts were exchanged.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from study.config import Cell, Corruption
from study.config.model import Vocabulary
from study.data import rng
from study.data.order import Order
from study.data.permute import ROUNDS, permute
from study.data.stream import ReadFn, Source

Batch = dict[str, np.ndarray]
_IMAGE, _TEXT, _ALIGNMENT, _PIXELS, _LENGTH, _TOKENS = range(6)  # one random stream each


def make_read_fn(cell: Cell, *, vocabulary: Vocabulary) -> ReadFn | None:
    """A function that reads the cell's examples and corrupts them; None without corruption."""
    corruption = cell.data.corruption
    if corruption.is_identity:
        return None
    return Corruptor(corruption=corruption, seed=cell.seed, vocabulary=vocabulary).read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruptor:
    """Reads batches and corrupts them.

    Arguments:
      seed: the run's seed; used only if the corruption is redrawn at each visit.
      vocabulary: of the tokenizer.
    """

    corruption: Corruption
    seed: int
    vocabulary: Vocabulary

    def read(
        self, source: Source, order: Order, position_N: np.ndarray, index_N: np.ndarray
    ) -> Batch:
        """`source.batch(index_N)`, corrupted as at these positions of the stream."""
        c = self.corruption
        arrays = source.batch(index_N)
        image, text = arrays["image"], arrays["text"]  # new arrays, so they are changed in place
        draw_N = (
            position_N if c.resample_each_epoch else index_N
        )  # what the random draws are a function of
        last = np.inf if c.until_examples is None else c.until_examples
        early_N = position_N < last
        if c.alignment:
            partner_N = self._partners(order, source.size, position_N, index_N)
            moved = np.flatnonzero(early_N & (partner_N != index_N))
            if len(moved):
                text[moved] = source.text(partner_N[moved])
        hit = np.flatnonzero(early_N & (rng.uniform(self._words(_TEXT, draw_N)) < c.text))
        text[hit] = self._random_tokens(draw_N[hit], text.shape[1])
        hit = np.flatnonzero(early_N & (rng.uniform(self._words(_IMAGE, draw_N)) < c.image))
        if c.image and image.dtype == np.float16:  # which would round the noise
            image = arrays["image"] = image.astype(np.float32)
        image[hit] = self._noise(draw_N[hit], image.shape[1:], image.dtype)
        return arrays

    def _words(self, stream: int, draw_N: np.ndarray) -> np.ndarray:
        """64 random bits for each example, uint64 N."""
        c = self.corruption
        seeds = (c.seed, self.seed) if c.resample_each_epoch else (c.seed,)
        key = np.random.SeedSequence([stream, *seeds]).generate_state(1, np.uint64)[0]
        return rng.mix64(draw_N.astype(np.uint64) ^ key)

    def _noise(
        self, draw_N: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> np.ndarray:
        """Uniform over the 256 pixel levels, N x shape; from -1 to 1 unless `dtype` is uint8."""
        count = int(np.prod(shape))
        words_NxW = rng.streams(self._words(_PIXELS, draw_N), -(-count // 8))
        bytes_NxP = words_NxW.astype("<u8", copy=False).view(np.uint8)[:, :count]
        noise_NxP = bytes_NxP if dtype == np.uint8 else bytes_NxP * np.float32(1 / 127.5) - 1
        return noise_NxP.reshape(-1, *shape)

    def _random_tokens(self, draw_N: np.ndarray, length: int) -> np.ndarray:
        size, eos, pad = self.vocabulary
        excluded = sorted({eos, pad})
        words_NxL = rng.streams(self._words(_TOKENS, draw_N), length)
        ids_NxL = _randbelow(size - len(excluded), words_NxL)
        for token in excluded:
            ids_NxL += ids_NxL >= token
        length_N = 1 + _randbelow(max(1, length - 1), self._words(_LENGTH, draw_N))
        end_Nx1 = np.minimum(length_N, length - 1)[:, None]
        ids_NxL[np.arange(length) == end_Nx1] = eos
        ids_NxL[np.arange(length) > end_Nx1] = pad
        return ids_NxL.astype(np.int32)

    def _partners(
        self, order: Order, size: int, position_N: np.ndarray, index_N: np.ndarray
    ) -> np.ndarray:
        """For each example the one whose text it gets: itself, if it stays aligned.

        A keyed permutation ranks the offsets in a window. The examples of the first ranks, up to
        the share, are misaligned: each gets the text of the next rank. Nothing is stored.
        """
        c = self.corruption
        window = c.window or size
        window_N, offset_N = (
            np.divmod(position_N, window) if c.resample_each_epoch else (0 * index_N, index_N)
        )
        words_RxN = rng.streams(self._words(_ALIGNMENT, window_N), ROUNDS).T
        key_RxN = words_RxN & np.uint64(0xFFFFFFFF)
        rank_N = permute(offset_N, size=window, key=key_RxN)
        count = round(c.alignment * window)
        moved = np.flatnonzero(rank_N < count)
        partner_N = index_N.copy()
        if len(moved):
            next_M = (rank_N[moved] + 1) % count
            offset_M = permute(next_M, size=window, key=key_RxN[:, moved], inverse=True)
            if c.resample_each_epoch:
                position_M = window_N[moved] * window + offset_M
                partner_N[moved] = order.indices(position_M)
            else:
                partner_N[moved] = offset_M
        return partner_N


def _randbelow(bound: int, word_N: np.ndarray) -> np.ndarray:
    """Uniform in range(bound), int64, from the upper 32 bits of each word."""
    return ((word_N >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
