"""The data of a run, some steps at a time, from the source onto the devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from study.config.cell import Cell, Execution
from study.data.formats.dataset import Dataset
from study.data.sources import open_source
from study.data.stream import ReadFn, batches
from study.models.sharding import batch_sharding, local_rows
from study.training.compile import steps_per_chunk

REPLACED = "data/replaced_examples"


class Feed:
    """What a cell trains on, in pieces that one compiled loop of steps takes.

    chunk: steps in the largest piece, to which all are padded.
    replaced: examples of this process, so far, that stood in for ones that cannot be used.

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
        self.chunk = steps_per_chunk(cell, execution, self.image_shape)
        self.replaced = 0

    def pieces(self, first_step: int, due: set[int]) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """Lengths in steps, and batches on the devices, from `first_step` to the end of the run.

        A piece ends at every due step.
        """
        lengths = _lengths(first_step, self._cell.steps, self.chunk, due)
        stream = self._stream(first_step, lengths, self._count)
        for length, arrays in zip(lengths, stream, strict=True):
            yield length, self._to_devices(arrays, self.chunk)

    def resume(self, step: int, replaced: int) -> None:
        """Goes on at `step`, before which `replaced` examples of all processes stood in.

        Of several processes each judges its own rows, and takes an equal part of what was before.
        """
        self.replaced = replaced if jax.process_index() == 0 else 0
        share = 1 / jax.process_count()
        self._source.replacements.resume(step * self._cell.batch_size * share, replaced * share)

    def metrics(self) -> dict[str, int]:
        """How many examples of all processes stood in for others; nothing where none did."""
        count = self.replaced
        if jax.process_count() > 1:
            count = int(np.sum(multihost_utils.process_allgather(np.asarray(count))))
        return {REPLACED: count} if count else {}

    def _stream(
        self, first_step: int, lengths: list[int], replaced: Callable[[int], None] | None
    ) -> Iterator[dict[str, np.ndarray]]:
        return batches(
            self._source,
            seed=self._cell.seed,
            batch_size=self._cell.batch_size,
            first_step=first_step,
            chunks=lengths,
            rows=local_rows(self._mesh, self._cell.batch_size),
            read=self._read,
            flip=self._cell.data.flip,
            on_replaced=replaced,
        )

    def _count(self, replaced: int) -> None:
        self.replaced += replaced

    def _to_devices(self, arrays: dict[str, np.ndarray], length: int) -> dict[str, jax.Array]:
        """Batches padded to the length that a loop was compiled for, spread over devices."""
        out, where = {}, batch_sharding(self._mesh, leading=1)
        for name, a in arrays.items():
            if len(a) < length:
                a = np.concatenate([a, np.zeros((length - len(a), *a.shape[1:]), a.dtype)])
            out[name] = jax.make_array_from_process_local_data(where, a)
        return out


def _lengths(first: int, steps: int, chunk: int, due: set[int]) -> list[int]:
    """Lengths of compiled loops from `first` to `steps` that stop at every due step."""
    out = []
    for stop in sorted(d for d in due | {steps} if d > first):
        while first < stop:
            out.append(min(chunk, stop - first))
            first += out[-1]
    return out
