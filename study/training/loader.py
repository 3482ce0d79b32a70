"""Batches of a run, in chunks of some steps, from the source to the devices."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from study.config import Cell, Execution
from study.data.formats.dataset import Dataset
from study.data.sources import open_source
from study.data.stream import ReadFn, batches
from study.models.sharding import batch_sharding, local_rows

REPLACED = "data/replaced_examples"


class TrainLoader:
    """The training data of a cell.

    Arguments:
      read: corrupts examples as it reads them; None reads them as they are.

    Attributes:
      image_shape: of one example.
      replaced: examples so far that could not be used and were replaced, of this process's rows.

    Raises:
      DataError: see `study.data.sources.open_source`.
    """

    def __init__(
        self,
        cell: Cell,
        execution: Execution,
        dataset: Dataset,
        mesh: Mesh,
        read: ReadFn | None,
    ):
        self._cell, self._mesh, self._read = cell, mesh, read
        self._source = open_source(
            dataset,
            cell.data.split,
            cell.model.image,
            cell.data,
            threads=execution.decode_threads,
        )
        example = self._source.batch(np.zeros(1, np.int64))
        self.image_shape: tuple[int, ...] = example["image"].shape[1:]
        self.replaced = 0

    def chunks(
        self, first_step: int, due: set[int], chunk_steps: int
    ) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """Chunks of batches on the devices, from `first_step` to the end of the run.

        Arguments:
          due: steps after which a chunk must end.
          chunk_steps: steps of the longest chunk. Shorter ones are padded to it with zeros, since
            one compiled loop takes all of them.

        Yields:
          The steps of the chunk, and `image` and `text` with axes (steps, rows, ...).
        """

        def count_replaced(replaced: int) -> None:
            self.replaced += replaced

        lengths = _lengths(first_step, self._cell.steps, chunk_steps, due)
        stream = batches(
            self._source,
            seed=self._cell.seed,
            batch_size=self._cell.batch_size,
            first_step=first_step,
            chunks=lengths,
            rows=local_rows(self._mesh, self._cell.batch_size),
            read=self._read,
            flip=self._cell.data.flip,
            on_replaced=count_replaced,
        )
        sharding = batch_sharding(self._mesh, leading=1)
        for length, arrays in zip(lengths, stream, strict=True):
            chunk = {}
            for name, a in arrays.items():
                if length < chunk_steps:
                    padding = np.zeros((chunk_steps - length, *a.shape[1:]), a.dtype)
                    a = np.concatenate([a, padding])
                chunk[name] = jax.make_array_from_process_local_data(sharding, a)
            yield length, chunk

    def resume(self, step: int, replaced: int) -> None:
        """Go on from `step`, before which `replaced` examples of all processes were replaced.

        Each process limits the share of bad examples in its own rows, and so takes an equal part
        of the earlier ones.
        """
        self.replaced = replaced if jax.process_index() == 0 else 0
        share = 1 / jax.process_count()
        self._source.replacements.resume(step * self._cell.batch_size * share, replaced * share)

    def metrics(self) -> dict[str, int]:
        """The number of replaced examples over all processes; empty if there are none."""
        count = self.replaced
        if jax.process_count() > 1:
            count = int(np.sum(multihost_utils.process_allgather(np.asarray(count))))
        return {REPLACED: count} if count else {}


def _lengths(first: int, steps: int, chunk_steps: int, due: set[int]) -> list[int]:
    """Steps of each chunk from step `first` to `steps`; a chunk ends at every due step."""
    lengths = []
    for stop in sorted(d for d in due | {steps} if d > first):
        while first < stop:
            lengths.append(min(chunk_steps, stop - first))
            first += lengths[-1]
    return lengths
