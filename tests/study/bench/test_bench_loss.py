"""The loss benchmark: what it times is the same value, and what it says is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from study.bench import contenders, loss
from study.config.pairs import AllPairs
from study.losses import sigmoid_loss


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


def test_softmax_contenders_compute_the_same_value():
    z = contenders.embeddings(48, 8)
    (ours, _), _ = contenders.softmax(*z).run()
    np.testing.assert_allclose(ours, contenders.naive_softmax(*z).run()[0], rtol=1e-5)


@pytest.mark.parametrize("size", [53, 64, 144])
def test_a_whole_batch_in_blocks_is_the_loss(size):
    """On eight devices: with a last block that is not full, one block each, and two rounds."""
    zimg, ztxt = contenders.embeddings(size, 8)
    calls = []
    found = loss.whole(size, 8, block=9, progress=lambda *a: calls.append(a[:2]))
    (value, _), grads = jax.value_and_grad(
        lambda *z: sigmoid_loss(
            *z,
            jnp.float32(contenders.T),
            jnp.float32(contenders.B),
            pairs=AllPairs(),
            key=jnp.uint32(0),
        ),
        (0, 1),
        has_aux=True,
    )(zimg, ztxt)
    np.testing.assert_allclose(found.loss, value, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads))
    np.testing.assert_allclose(found.gradient_norm, norm, rtol=1e-4)
    done = [d for d, _ in calls]
    assert done == sorted(set(done)) and calls[-1][0] == calls[-1][1]


def test_a_contender_that_is_not_there_says_so():
    found = {r.name: r for r in loss.bench(64, 8, cores=1, rounds=2)}
    assert found["sigmoid"].ratio == 1 and found["naive_sigmoid"].ratio > 0
    assert len(found["matmuls"].ratios) == 2
    for name in ("open_clip_sigmoid", "open_clip_softmax"):
        assert found[name].skipped is None or "not installed" in found[name].skipped


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_from_a_size_on_one_whole_batch_is_done_by_the_command(more):
    """In a process of its own: it sets what JAX is to find."""
    command = (
        "from sweeps.cli import app, bench\nbench.WHOLE_FROM = 256\napp.main()",
        *("bench", "loss", "--batch-size", "300", "--dim", "8", "--cores", "1", *more),
    )
    done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("B = 300, D = 8: 9e+04 pairs")
    expected = loss.whole(300, 8)
    said = json.loads(done.stdout)[0]["loss"] if more else done.stdout.split()[1].rstrip(",")
    assert float(said) == pytest.approx(expected.loss, rel=1e-5)


def test_what_does_not_fit_is_left_out():
    said = loss._skip_reason("naive_sigmoid", 1 << 20)
    assert said.startswith("needs about 12288 GiB of memory, ") and said.endswith("are available")
    assert loss._skip_reason("sigmoid", 1 << 20) is None


def test_memory_that_caches_hold_counts_as_available(monkeypatch):
    """A machine that has read files has little free memory and much that is available."""
    memory = types.SimpleNamespace(total=2**35, available=23 * 2**30, free=2**28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 2**16))
    for name in ("naive_sigmoid", "naive_softmax", "chunked_sigmoid"):
        assert loss._skip_reason(name, 16_384) is None
