"""A program that copies standard input to standard output and removes keys and tokens.

    python -I -S log_pump.py SECRETS MARK ACK

SECRETS is the path of `study/records/redact.py`. A writer that sends MARK receives a byte on the
file descriptor ACK once everything before it is copied. This is a process and not a thread, so that
the last output of a killed writer is read from the pipe to its end. It imports the standard library
only, because one starts with every cell.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

_CHUNK = 1 << 16
LONGEST_LINE = 1 << 20  # bytes held back until the line ends


def pump(secrets: Any, mark: bytes, ack: int) -> None:
    """Copies descriptor 0 to descriptor 1 until the last process that writes to it has ended."""
    held = b""
    while chunk := os.read(0, _CHUNK):
        held += chunk
        before, found, after = held.partition(mark)
        if found:
            _write(_hidden(secrets, before))
            _write_all(ack, b".")
            held = after
        done, held = split(secrets, held)
        _write(_hidden(secrets, done))
    _write(_hidden(secrets, held))


def split(secrets: Any, held: bytes) -> tuple[bytes, bytes]:
    """Splits off what must wait: an unfinished line may hold half of a key."""
    cut = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
    begin = held.rfind(b"-----BEGIN", 0, cut)
    if begin >= 0 and b"-----END" not in held[begin:cut] and cut - begin < secrets.LONGEST:
        cut = begin  # a private key spans several lines
    if len(held) - cut > LONGEST_LINE:
        text = held.decode("utf-8", "surrogateescape")
        at = secrets.safe_cut(text, len(text) - secrets.LONGEST) or len(text)
        cut = len(text[:at].encode("utf-8", "surrogateescape"))
    return held[:cut], held[cut:]


def _hidden(secrets: Any, data: bytes) -> bytes:
    hidden: str = secrets.redact(data.decode("utf-8", "surrogateescape"))
    return hidden.encode("utf-8", "surrogateescape")


def _write(data: bytes) -> None:
    _write_all(1, data)


def _write_all(fd: int, data: bytes) -> None:
    """Writes what it can: a full disk must not stop the process that is logged."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:
            return


def main() -> None:
    path, mark, ack = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("study_secrets", path)
    assert spec is not None and spec.loader is not None
    secrets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(secrets)
    # An orphan, because Ray kills the children of a worker that ends.
    if os.fork() == 0:
        pump(secrets, mark.encode(), int(ack))
    os._exit(0)


if __name__ == "__main__":
    main()
