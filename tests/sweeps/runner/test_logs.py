"""What a process prints is in the record, and a bucket is written to only if it printed more."""

from __future__ import annotations

import os

from study.records.storage import read, resolve
from sweeps.runner import logs
from tests.bucket import Strict


def test_a_log_in_a_bucket_is_written_when_something_was_printed(monkeypatch, wait_for):
    Strict.clear()
    monkeypatch.setattr(logs, "COPY_S", 0.01)
    looks = []
    flush = logs.flush
    monkeypatch.setattr(logs, "flush", lambda: looks.append(flush()))
    folder = resolve("bucket://lab/runs/s/x")
    with logs.logged(folder):
        wait_for(lambda: Strict.requests["write"] == 1)
        before = len(looks)
        wait_for(lambda: len(looks) > before + 10)
        written = Strict.requests["write"]
        os.write(1, b"more\n")
        wait_for(lambda: Strict.requests["write"] == 2)
    assert written == 1
    (path,) = logs.logs_of(folder)
    assert read(path).endswith(b"\nmore\n")
    assert Strict.requests["write"] == 2
