"""The same tests for records in a folder and in a bucket of a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from study.records.storage import resolve
from sweeps.runner import attempts
from sweeps.runner.store import Store, open_store
from tests.sweeps import fake_worker


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch):
    """Attempts follow each other at once."""
    monkeypatch.setattr(attempts, "BACKOFF_S", 0.0)


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path) -> Path:
    """Where records are kept."""
    if request.param == "folder":
        return tmp_path / "runs"
    return resolve(f"gs://{request.getfixturevalue('gcs').bucket()}/runs")


@pytest.fixture
def folder(root) -> Path:
    """The folder of a study's records."""
    return root / "s"


@pytest.fixture
def cell(root) -> Callable[[int], Path]:
    """The folder of the fake cell of a seed."""
    return lambda seed: root / "fake" / fake_worker.study([seed]).cells[0].id


@pytest.fixture
def quick() -> Callable[..., Store]:
    """Opens a store whose leases become stale soon."""

    def quick(folder: Path, *, renew_s: float = 0.02, stale_s: float = 0.6) -> Store:
        store = open_store(folder)
        store.renew_s, store.stale_s, store.poll_s = renew_s, stale_s, 0.02
        return store

    return quick
