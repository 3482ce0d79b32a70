"""The loss benchmark: all contenders compute the same values and gradients."""

from __future__ import annotations

import os
import types

import numpy as np
import psutil
import pytest

from study.bench import contenders, loss


@pytest.mark.parametrize("name", ["sigmoid", "naive_sigmoid", "chunked_sigmoid"])
def test_contenders_compute_the_same_value_and_gradients(name, monkeypatch):
    monkeypatch.setattr(contenders, "CHUNK", 16)
    z = contenders.embeddings(48, 8)
    value, grads = getattr(contenders, name)(*z).run()
    value = value[0] if isinstance(value, tuple) else value
    want, want_grads = contenders.naive_sigmoid(*z).run()
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_contenders_for_hard_negatives_compute_the_same_value_and_gradients():
    z = contenders.embeddings(48, 8)
    (value, _), grads = contenders.hard(*z).run()
    want, want_grads = contenders.naive_hard(*z).run()
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_softmax_contenders_compute_the_same_value():
    z = contenders.embeddings(48, 8)
    (ours, _), _ = contenders.softmax(*z).run()
    np.testing.assert_allclose(ours, contenders.naive_softmax(*z).run()[0], rtol=1e-5)


def test_a_missing_contender_is_skipped_with_a_reason():
    results = {r.name: r for r in loss.bench(64, 8, cores=1, rounds=2)}
    assert results["sigmoid"].ratio == 1 and results["naive_sigmoid"].ratio > 0
    assert len(results["matmuls"].ratios) == 2
    for name in ("open_clip_sigmoid", "open_clip_softmax"):
        assert results[name].skipped is None or "not installed" in results[name].skipped


def test_a_contender_that_does_not_fit_is_skipped():
    reason = loss._skip_reason("naive_sigmoid", 1 << 20)
    assert reason.startswith("needs about 12288 GiB of memory, ")
    assert reason.endswith("are available")
    assert loss._skip_reason("sigmoid", 1 << 20) is None
    assert (
        loss._skip_reason("naive_hard", 8192) == "sorts all logits; give a --batch-size up to 4096"
    )


def test_memory_that_caches_hold_counts_as_available(monkeypatch):
    """A machine that has read files has little free memory and much that is available."""
    memory = types.SimpleNamespace(total=2**35, available=23 * 2**30, free=2**28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 2**16))
    for name in ("naive_sigmoid", "naive_softmax", "chunked_sigmoid"):
        assert loss._skip_reason(name, 16_384) is None
