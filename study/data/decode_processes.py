"""Decodes images in other processes, into memory that they share with this one.

Pillow holds the interpreter's lock for an eighth to a fifth of the time that a JPEG of 224 pixels
takes, so threads of one process use eight cores at most. Reading, replacing bad examples and
tokenizing stay in this process, which sends encoded images and copies pixels: 90 us of each 2 ms.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from study.data.errors import DataError
from study.data.images import DecodeOptions, decode_into


class DecodeProcesses:
    """Calls `study.data.images.decode_into` in `workers` processes; safe in several threads.

    Arguments:
      block: most images of a call.
      shape: of an image.

    Attributes:
      calls: most calls in progress at a time; others wait.
    """

    def __init__(self, workers: int, *, block: int, shape: tuple[int, ...]):
        self.calls = 2 * workers
        # "spawn", because a fork of a process that runs threads (JAX, Ray) can deadlock.
        context = multiprocessing.get_context("spawn")
        shape = (self.calls, block, *shape)
        memory: Any = context.RawArray(ctypes.c_uint8, math.prod(shape))
        self._pixels_SxBxHxWxC = np.frombuffer(memory, np.uint8).reshape(shape)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.calls):
            self._free.put(slot)
        self._pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(memory, shape)
        )

    def __call__(
        self,
        data_K: Sequence[bytes],
        out_NxHxWxC: np.ndarray,
        row_K: Sequence[int],
        options: DecodeOptions,
    ) -> dict[int, str]:
        slot = self._free.get()
        try:
            errors = self._pool.submit(_decode, slot, data_K, options).result()
            out_NxHxWxC[row_K] = self._pixels_SxBxHxWxC[slot, : len(row_K)]
        except BrokenProcessPool:
            raise DataError(
                "a process that decodes images was killed (out of memory?); run again, with fewer "
                "of them (--decode-workers)"
            ) from None
        finally:
            self._free.put(slot)
        return errors


# --- in a worker ----------------------------------------------------------------------------------

_SHARED: list[np.ndarray] = []


def _begin(memory: Any, shape: tuple[int, ...]) -> None:
    _SHARED.append(np.frombuffer(memory, np.uint8).reshape(shape))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _decode(slot: int, data_K: Sequence[bytes], options: DecodeOptions) -> dict[int, str]:
    pixels_BxHxWxC = _SHARED[0][slot]
    return decode_into(data_K, pixels_BxHxWxC, range(len(data_K)), options)
