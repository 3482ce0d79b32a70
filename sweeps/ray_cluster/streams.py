"""Standard output and error of this process, at the level of file descriptors: also of C++."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def redirected(fd: int) -> Iterator[tuple[int, int]]:
    """Sends both to `fd` for the block; yields descriptors of where they went before."""
    flush()
    saved = os.dup(1), os.dup(2)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    try:
        yield saved
    finally:
        flush()
        for target, descriptor in enumerate(saved, 1):
            os.dup2(descriptor, target)
            os.close(descriptor)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a closed stream
            stream.flush()
