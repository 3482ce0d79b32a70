"""Batches of a run, in chunks of some steps, from the source to the devices."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from study.config import Cell, Execution
from study.data.formats.dataset import Dataset
from study.data.mix import Mixture
from study.data.sources import load_labels
from study.data.stream import ReadFn, batches, with_classes
from study.models.sharding import batch_sharding, local_rows

REPLACED, EXAMPLES = "data/replaced_examples", "data/examples"


class Steps(NamedTuple):
    """Some steps: batches `begin` to `end` of a chunk.

    Attributes:
      batches: the whole chunk, `image`, `text` and, for a loss that compares them, `class` with
        axes (steps, rows, ...), on the devices.
      replaced: `TrainLoader.replaced` after these steps.
    """

    batches: dict[str, jax.Array]
    begin: int
    end: int
    replaced: int


class TrainLoader:
    """The training data of a cell.

    Arguments:
      read: corrupts examples as it reads them; None reads them as they are.

    Attributes:
      image_shape, image_dtype: of one example: uint8 pixels, or a cached embedding, float16 if it
        is stored so.
      fingerprint, examples: of the data set, or of all that are mixed.
      replaced: examples so far that could not be used and were replaced, of this process's rows,
        to the end of the steps that `steps` yielded last.

    Raises:
      DataError: see `study.data.sources.open_source`; and `load_labels` for a loss that compares
        classes.
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
        mixture = Mixture(dataset, cell.data)
        self.fingerprint, self.examples = mixture.fingerprint, mixture.examples
        self._names = [name for name, _ in cell.data.mix]
        self._source = mixture.open(
            cell.model.image,
            threads=execution.decode_threads,
            workers=execution.decode_workers,
        )
        if cell.loss.same_by == "class":
            self._read = read = with_classes(load_labels(dataset, cell.data.split), read)
        self._order = mixture.order(cell.seed)
        self._origin = cell.origin
        first = np.zeros(1, np.int64)
        example = (
            read(self._source, self._order, first, first) if read else self._source.batch(first)
        )
        self.image_shape: tuple[int, ...] = example["image"].shape[1:]
        self.image_dtype = example["image"].dtype
        self.replaced = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._coming: Iterator[Steps] = iter(())
        self._ahead: Future[Steps] | None = None

    def steps(self, first_step: int, due: set[int], chunk_steps: int) -> Iterator[Steps]:
        """The steps from `first_step` to the end of the run, some at a time.

        Batches travel to the devices in chunks of equal length, whatever is due, since one compiled
        loop takes all of them. The last chunk is padded with zeros.

        Arguments:
          due: steps after which the caller has something else to do.
          chunk_steps: steps of a chunk.
        """
        self._coming = self._place(first_step, due, chunk_steps)
        while True:
            self.prefetch()
            assert self._ahead is not None
            future, self._ahead = self._ahead, None
            try:
                steps = future.result()
            except StopIteration:
                return
            self.replaced = steps.replaced
            yield steps

    def prefetch(self) -> None:
        """Have the next steps placed on the devices, in a thread.

        Called when all steps but those of one chunk are finished, it bounds the devices' memory to
        two chunks.
        """
        if self._ahead is None:
            self._ahead = self._thread.submit(next, self._coming)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _place(self, first_step: int, due: set[int], chunk_steps: int) -> Iterator[Steps]:
        last_step = self._cell.steps
        starts = range(first_step, last_step, chunk_steps)
        lengths = [min(chunk_steps, last_step - start) for start in starts]
        replaced, replaced_S = self.replaced, collections.deque[int]()
        stream = batches(
            self._source,
            seed=self._cell.seed,
            batch_size=self._cell.batch_size,
            first_step=first_step,
            chunks=lengths,
            origin=self._origin,
            order=self._order,
            rows=local_rows(self._mesh, self._cell.batch_size),
            read=self._read,
            flip=self._cell.data.flip,
            on_replaced=replaced_S.extend,
        )
        sharding = batch_sharding(self._mesh, leading=1)
        for start, length, arrays in zip(starts, lengths, stream, strict=True):
            chunk = {}
            for name, a in arrays.items():
                if length < chunk_steps:
                    padding = np.zeros((chunk_steps - length, *a.shape[1:]), a.dtype)
                    a = np.concatenate([a, padding])
                chunk[name] = jax.make_array_from_process_local_data(sharding, a)
            begin = 0
            for end in sorted({step - start for step in due | {start + length}}):
                if begin < end <= length:
                    replaced += sum(replaced_S.popleft() for _ in range(begin, end))
                    yield Steps(chunk, begin, end, replaced)
                    begin = end

    def resume(self, step: int, replaced: int) -> None:
        """Go on from `step`, before which `replaced` examples of all processes were replaced.

        Each process limits the share of bad examples in its own rows, and so takes an equal part
        of the earlier ones.
        """
        self.replaced = replaced if jax.process_index() == 0 else 0
        share = 1 / jax.process_count()
        self._source.replacements.resume(step * self._cell.batch_size * share, replaced * share)

    def metrics(self, step: int) -> dict[str, int]:
        """What the first `step` steps took, over all processes.

        The number of replaced examples, if there are any, and in a mix that of each data set.
        """
        count = self.replaced
        if jax.process_count() > 1:
            count = int(np.sum(multihost_utils.process_allgather(np.asarray(count))))
        metrics = {REPLACED: count} if count else {}
        if self._names:
            counts = self._order.counts(self._origin + step * self._cell.batch_size)
            metrics |= {f"{EXAMPLES}/{n}": c for n, c in zip(self._names, counts, strict=True)}
        return metrics
