"""Corrupted training data (paper Sec. 4.10, Fig. 7), the same whatever the batch size.

What befalls the example at position i of a run depends on the corruption, the run's seed, i and
the example that stands there, and on nothing else: so both losses and all batch sizes of a study
meet the same corrupted stream, on any number of hosts and after any restart.

- **image**: uniform noise in [-1, 1] in place of each value. For cached embeddings, which have no
  pixels to corrupt, each coordinate is such noise: a direction that tells nothing of the text.
  (What a frozen tower would make of a noise image only that tower knows.)
- **text**: uniform tokens, without EOS and padding, in a uniform number from 1 to length - 1; then
  EOS and padding.
- **alignment**: within a window of the stream (or of the data set, if drawn once for good) the
  exact share of the examples, drawn at random, hand their texts on in a ring of random order. The
  paper shuffles within the batch, which would make the data depend on the batch size.

All three are drawn independently; noise replaces a text wherever it came from.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from study.config.cell import Cell, Corruption
from study.config.vocabulary import Vocabulary
from study.data import rng
from study.data.images import scale_pixels
from study.data.stream import ROUNDS, ReadFn, Source, indices, permute

Batch = dict[str, np.ndarray]
_IMAGE, _TEXT, _ALIGNMENT, _PIXELS, _LENGTH, _TOKENS = range(6)


def make_read_fn(cell: Cell, *, vocabulary: Vocabulary) -> ReadFn | None:
    """How the cell's stream reads its source; None where nothing is corrupted."""
    corruption = cell.data.corrupt
    if corruption.is_identity:
        return None
    return Corruptor(corruption=corruption, seed=cell.seed, vocabulary=vocabulary).batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruptor:
    """Reads batches and corrupts them.

    seed: the run's; it matters only where the corruption is redrawn at each visit.
    vocabulary: of the tokenizer.
    """

    corruption: Corruption
    seed: int
    vocabulary: Vocabulary

    def batch(self, source: Source, position_N: np.ndarray, index_N: np.ndarray) -> Batch:
        """`source.batch(index_N)`, corrupted as at these positions of the stream."""
        c = self.corruption
        arrays = source.batch(index_N)
        image, text = arrays["image"], arrays["text"]  # the source's gift: changed in place
        where_N = position_N if c.redraw else index_N
        if c.alignment:
            partner_N = self._partner(source.size, position_N, index_N)
            moved = np.flatnonzero(partner_N != index_N)
            if len(moved):
                text[moved] = source.text(partner_N[moved])
        hit = np.flatnonzero(self._chance(_TEXT, where_N) < c.text)
        text[hit] = self._tokens(where_N[hit], text.shape[1])
        hit = np.flatnonzero(self._chance(_IMAGE, where_N) < c.image)
        image[hit] = self._noise(where_N[hit], image.shape[1:])
        return arrays

    # --- what is drawn ---------------------------------------------------------------------------

    def _words(self, what: int, where_N: np.ndarray) -> np.ndarray:
        """64 random bits for each example, uint64 N."""
        c = self.corruption
        seeds = (c.seed, self.seed) if c.redraw else (c.seed,)
        key = np.random.SeedSequence([what, *seeds]).generate_state(1, np.uint64)[0]
        return rng.mix64(where_N.astype(np.uint64) ^ key)

    def _chance(self, what: int, where_N: np.ndarray) -> np.ndarray:
        """A number in [0, 1) for each example."""
        return rng.uniform(self._words(what, where_N))

    def _noise(self, where_N: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform over the 256 levels that pixels have, float32 N x shape."""
        count = int(np.prod(shape))
        words_NxW = rng.streams(self._words(_PIXELS, where_N), -(-count // 8))
        bytes_NxP = words_NxW.astype("<u8", copy=False).view(np.uint8)[:, :count]
        return scale_pixels(bytes_NxP).reshape(-1, *shape)

    def _tokens(self, where_N: np.ndarray, length: int) -> np.ndarray:
        size, eos, pad = self.vocabulary
        left_out = sorted({eos, pad})
        words_NxL = rng.streams(self._words(_TOKENS, where_N), length)
        ids_NxL = _below(size - len(left_out), words_NxL)
        for one in left_out:
            ids_NxL += ids_NxL >= one
        kept_N = 1 + _below(max(1, length - 1), self._words(_LENGTH, where_N))
        end_Nx1 = np.minimum(kept_N, length - 1)[:, None]
        ids_NxL[np.arange(length) == end_Nx1] = eos
        ids_NxL[np.arange(length) > end_Nx1] = pad
        return ids_NxL.astype(np.int32)

    def _partner(self, size: int, position_N: np.ndarray, index_N: np.ndarray) -> np.ndarray:
        """The example whose text each example gets; its own for those that stay aligned.

        A keyed permutation ranks the places of a window; the first share of the ranks are
        misplaced, and each gets the text of the next rank. So nothing is listed or stored.
        """
        c = self.corruption
        window = c.window or size
        window_N, place_N = np.divmod(position_N, window) if c.redraw else (0 * index_N, index_N)
        words_RxN = rng.streams(self._words(_ALIGNMENT, window_N), ROUNDS).T
        key_RxN = words_RxN & np.uint64(0xFFFFFFFF)
        rank_N = permute(place_N, size=window, key=key_RxN)
        count = round(c.alignment * window)
        moved = np.flatnonzero(rank_N < count)
        partner_N = index_N.copy()
        if len(moved):
            next_M = (rank_N[moved] + 1) % count
            place_M = permute(next_M, size=window, key=key_RxN[:, moved], inverse=True)
            if c.redraw:
                there_M = window_N[moved] * window + place_M
                place_M = indices(there_M, size=size, seed=self.seed)
            partner_N[moved] = place_M
        return partner_N


def _below(bound: int, word_N: np.ndarray) -> np.ndarray:
    """Uniform in range(bound), int64, from 32 bits of each word."""
    return ((word_N >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
