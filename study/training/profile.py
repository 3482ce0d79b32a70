"""A trace of a few steps by `jax.profiler`, for TensorBoard and Perfetto."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from study.config import Cell, Execution

STEPS = 8  # at most, in a trace: on a CPU each operation of each step is an event of its own


def limit_chunks(cell: Cell, execution: Execution) -> Execution:
    """The execution with chunks short enough to trace a whole one; as it is without a profile."""
    if execution.profile is None:
        return execution
    chunk_examples = min(execution.chunk_examples, STEPS * cell.batch_size)
    return dataclasses.replace(execution, chunk_examples=chunk_examples)


class Profile:
    """Traces the second chunk of steps of an attempt, the first one after compilation.

    Every process writes its own devices' trace. Operations are named by the scopes "towers",
    "loss", "ring_hop", "threshold" and "optimizer". On CPUs only the HLO inside `*.xplane.pb` has
    these names, and an event has that of its HLO instruction.

    Arguments:
      folder: `<folder>/plugins/profile/<time>/` will hold the trace; None traces nothing.
    """

    def __init__(self, folder: Path | None):
        self._folder, self._chunk, self._tracing = folder, 0, False

    def before_chunk(self, previous: Any) -> None:
        """Call before a chunk is dispatched.

        Arguments:
          previous: a result of the chunk before, which the trace waits for; None at the first.
        """
        self._chunk += 1
        if self._folder is None or self._chunk not in (2, 3):
            return
        jax.block_until_ready(previous)
        if self._chunk == 2:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call would be an event
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._tracing = True
        else:
            self.close()

    def close(self) -> None:
        """Write the trace, if it is not written yet."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
