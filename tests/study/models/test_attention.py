"""Attention by cuDNN: taken where it can be, and the same function."""

from __future__ import annotations

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.models import attention


@pytest.mark.parametrize(
    ("platform", "dtype", "width", "traced"),
    [
        ("PJRT C API\ncuda 12090", jnp.bfloat16, 64, 1),
        ("PJRT C API\ncuda 12090", jnp.float32, 64, 0),
        ("PJRT C API\ncuda 12090", jnp.bfloat16, 12, 0),
        ("cpu", jnp.bfloat16, 64, 0),
    ],
)
def test_cudnn_is_traced_for_nvidia_alone(platform, dtype, width, traced, monkeypatch):
    by_xla, calls = jax.nn.dot_product_attention, []

    def as_cudnn(*qkv, implementation):
        calls.append(implementation)
        return by_xla(*qkv, implementation="xla")

    device = types.SimpleNamespace(platform_version=platform)
    monkeypatch.setattr(attention.backend, "get_backend", lambda: device)
    monkeypatch.setattr(jax.nn, "dot_product_attention", as_cudnn)
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, 5, 3, width), dtype) for key in keys)
    got = jax.jit(attention.attention)(q, k, v)
    assert calls == ["cudnn"] * traced
    # What cuDNN replaces is the same function to the rounding of the type.
    want = nn.dot_product_attention(q, k, v, force_fp32_for_softmax=True)
    for one in (got, by_xla(q, k, v)):
        one, want = (np.asarray(a, np.float32) for a in (one, want))
        np.testing.assert_allclose(one, want, atol=4 * float(jnp.finfo(dtype).eps))
