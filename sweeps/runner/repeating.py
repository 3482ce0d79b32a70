"""Does something again and again while other code runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(action: Callable[[], object], *, every_s: float, name: str) -> Iterator[None]:
    """Calls `action` every `every_s` seconds in a thread, until the block ends.

    An error ends nothing: the next call meets it again, or does not.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            with contextlib.suppress(Exception):
                action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
