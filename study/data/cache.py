"""Arrays derived from a data set, made once: on disk (tokens, labels) or in this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import numpy as np

from study.data.files import absolute
from study.data.formats.dataset import Dataset
from study.records.record import atomic_write

IN_MEMORY_BYTES = 1 << 30  # larger arrays stay memory-mapped

_LOADED: dict[tuple[str, str, str], np.ndarray] = {}
_SHARED: dict[tuple[str, str, Hashable], tuple[np.ndarray, ...]] = {}  # last used last
_LOCK = threading.RLock()


@contextlib.contextmanager
def nothing_in_memory() -> Iterator[None]:
    """Has sources that are opened meanwhile read a small set as one larger than memory."""
    global IN_MEMORY_BYTES
    limit, IN_MEMORY_BYTES = IN_MEMORY_BYTES, 0
    try:
        yield
    finally:
        IN_MEMORY_BYTES = limit


def get_or_make(dataset: Dataset, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The read-only array `name` of a data set: from this process, from disk, or from `make()`.

    On disk it is in `<folder>/cache/`, or for a data set in a bucket in the data cache of this
    machine. The data set's fingerprint is part of the key. Where the folder is read-only, the array
    is made once in each process.
    """
    key = (*_identity(dataset), name)
    with _LOCK:
        if key not in _LOADED:
            path = dataset.cache_folder / f"{name}-{dataset.fingerprint[:12]}.npy"
            array = _load(path)
            if array is None:
                array = make()
                with contextlib.suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_write(path) as file:
                        np.save(file, array)
            array.flags.writeable = False
            _LOADED[key] = array
        return _LOADED[key]


def share(
    dataset: Dataset, name: Hashable, make: Callable[[], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """The arrays `name` of a data set that all sources of this process share.

    Those used last stay when no source is open, up to `IN_MEMORY_BYTES` together.
    """
    key = (*_identity(dataset), name)
    with _LOCK:
        arrays = _SHARED.pop(key, None) or make()
        _SHARED[key] = arrays
        sizes = {k: sum(a.nbytes for a in kept) for k, kept in _SHARED.items()}
        for k in list(_SHARED):
            if sum(sizes.values()) <= IN_MEMORY_BYTES:
                break
            del _SHARED[k], sizes[k]
        return arrays


def _identity(dataset: Dataset) -> tuple[str, str]:
    return absolute(dataset.folder), dataset.fingerprint


def _load(path: Path) -> np.ndarray | None:
    """The array, memory-mapped if it is large; None if the file is missing or damaged."""
    try:
        mapped = np.load(path, mmap_mode="r")
        return np.array(mapped) if mapped.nbytes <= IN_MEMORY_BYTES else mapped
    except (OSError, ValueError, EOFError):
        return None
