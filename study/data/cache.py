"""Arrays derived from a data set, made once: kept in this process and in `<folder>/cache/`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from study.data.formats.dataset import Dataset
from study.records.record import atomic_write

IN_MEMORY_BYTES = 1 << 30  # larger arrays stay memory-mapped

_KNOWN: dict[tuple[str, str, str], np.ndarray] = {}
_LOCK = threading.RLock()


def get_or_make(dataset: Dataset, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array `name` of this very data set (by fingerprint), from memory, disk or `make()`."""
    place = (str(dataset.folder.resolve()), dataset.fingerprint, name)
    with _LOCK:
        if place not in _KNOWN:
            path = dataset.folder / "cache" / f"{name}-{dataset.fingerprint[:12]}.npy"
            found = load(path)
            if found is None:
                found = make()
                with contextlib.suppress(OSError):  # a read-only folder: only slower
                    save(path, found)
            found.flags.writeable = False
            _KNOWN[place] = found
        return _KNOWN[place]


def load(path: Path) -> np.ndarray | None:
    """The array in memory, or memory-mapped when it is large; None if missing or torn."""
    try:
        mapped = np.load(path, mmap_mode="r")
        return np.array(mapped) if mapped.nbytes <= IN_MEMORY_BYTES else mapped
    except (OSError, ValueError, EOFError):
        return None


def save(path: Path, value: np.ndarray) -> None:
    """Writes the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.save(file, value)
