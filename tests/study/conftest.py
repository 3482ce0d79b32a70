"""What tests of one cell share."""

import jax
import pytest


@pytest.fixture
def one_device(monkeypatch):
    """As on a machine with one device: the rest of the suite sees eight."""
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
