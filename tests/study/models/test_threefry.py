"""Random bits on a CPU are threefry's."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

import study.training.step  # noqa: F401


# From the Random123 library of Salmon et al.
@pytest.mark.parametrize(
    ("key", "counter", "bits"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_in_one_kernel(key, counter, bits):
    arguments = [np.array(pair, np.uint32) for pair in (key, counter)]
    compiled = jax.jit(threefry_2x32).lower(*arguments).compile()
    np.testing.assert_array_equal(compiled(*arguments), np.array(bits, np.uint32))
    assert "while(" not in compiled.as_text()
