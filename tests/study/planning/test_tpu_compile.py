"""Compiling for TPUs that are not attached: what fits, and errors of one line."""

from __future__ import annotations

import pytest

from study.config.hardware import HardwareError
from study.planning import tpu_compile

MIB = 1 << 20


@pytest.mark.slow
def test_a_million_examples_on_512_chips_take_64_mib_beside_the_embeddings(compiled_for_tpu):
    """The paper's largest batch on v4-1024, through the public loss, gradients and all."""
    report = compiled_for_tpu("losses")["ring"]
    embeddings_bytes = 2 * 2048 * 768 * 2
    assert embeddings_bytes <= report["argument_bytes"] < embeddings_bytes + MIB
    # Buffers in on-chip memory count at the peak, but not as temporary.
    between = report["peak_bytes"] - report["argument_bytes"] - report["output_bytes"]
    assert report["temp_bytes"] <= between <= 64 * MIB


@pytest.mark.slow
def test_of_a_program_too_large_for_a_chip_the_compiler_names_its_size(compiled_for_tpu):
    refused = compiled_for_tpu("losses")["too_large"]
    assert refused["executable"] is None
    logits_bytes = (1 << 18) ** 2 * 4
    assert logits_bytes <= refused["needed_bytes"] <= 3 * logits_bytes


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tpu_compile.importlib.util, "find_spec", lambda name: None)
    for attempt in (
        lambda: next(tpu_compile.run_python(["-c", ""], stdin="")),
        lambda: tpu_compile.slice_devices("v4-8"),
    ):
        with pytest.raises(
            tpu_compile.TpuCompileError, match=r"libtpu is not installed.*pip install"
        ) as raised:
            attempt()
        assert "\n" not in str(raised.value)


def test_an_unknown_slice_is_named_with_those_that_are_known():
    with pytest.raises(HardwareError, match=r"no slice 'v4-12'; nearest: v4-8, v4-16; known: v4"):
        tpu_compile.slice_devices("v4-12")


def test_a_failing_child_is_one_line(monkeypatch):
    monkeypatch.setattr(tpu_compile, "why_unavailable", lambda: None)
    with pytest.raises(
        tpu_compile.TpuCompileError, match="compiling for TPU failed: ValueError: no"
    ) as raised:
        next(tpu_compile.run_python(["-c", "raise ValueError('no')"], stdin=""))
    assert "\n" not in str(raised.value)


def test_the_child_has_the_environment_before_it_imports_jax(monkeypatch):
    monkeypatch.setattr(tpu_compile, "why_unavailable", lambda: None)
    names = list(tpu_compile.ENVIRONMENT)
    script = f"import json, os; print(json.dumps({{k: os.environ[k] for k in {names}}}))"
    assert list(tpu_compile.run_python(["-c", script], stdin="")) == [tpu_compile.ENVIRONMENT]


def test_lines_are_read_as_they_come_and_a_failure_says_how_it_ended(monkeypatch):
    monkeypatch.setattr(tpu_compile, "why_unavailable", lambda: None)
    script = (
        "import json, sys; print(json.dumps({'got': sys.stdin.read()}), flush=True);"
        "print('no JSON'); raise SystemExit('broke off')"
    )
    lines = tpu_compile.run_python(["-c", script], stdin="x")
    assert next(lines) == {"got": "x"}
    with pytest.raises(
        tpu_compile.TpuCompileError, match="compiling for TPU failed: broke off"
    ) as raised:
        next(lines)
    assert raised.value.code == 1
