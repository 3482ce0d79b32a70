"""The memory that a step needs, by its compiler's account, and the memory that it took."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.config import Budget, Cell, CellError, Execution, MeanPoolText, Model, ViT
from study.config.hardware import GIB
from study.config.model import Vocabulary
from study.training import memory
from study.training.compile import TrainProgram, compile_loop, find_microbatch, train_program
from study.training.memory import (
    Peak,
    PeakMemory,
    available_bytes,
    parse_oom,
    peak_bytes,
    try_compile,
)
from tests.study.losses.reference import mesh_of

MODEL = Model(
    image=ViT(variant="mu/6", image_size=12, depth=1, pool="gap"),
    text=MeanPoolText(width=16),
    embed_dim=32,
)
CELL = Cell(model=MODEL, batch_size=24, budget=Budget(steps=100))
VOCABULARY, IMAGE = Vocabulary(50, eos=1, pad=1), (12, 12, 1)


def analysis(gib: float) -> SimpleNamespace:
    """The account of a compiled program whose results alias its arguments."""
    return SimpleNamespace(
        argument_size_in_bytes=GIB,
        output_size_in_bytes=GIB,
        alias_size_in_bytes=GIB,
        temp_size_in_bytes=int((gib - 1) * GIB),
    )


class Loop:
    """A loop of steps, to be compiled: 1 GiB, and 1 GiB per 16 examples of a microbatch of 512.

    refusal: what the compiler raises where that is more than `hbm_gib`.
    """

    def __init__(self, microbatch: int | None, hbm_gib: float = math.inf, refusal: str = ""):
        self.gib = 1 + (microbatch or 512) / 16
        self.hbm_gib, self.refusal = hbm_gib, refusal

    def lower(self, *arguments):
        return self

    def compile(self):
        if self.gib > self.hbm_gib:
            raise jax.errors.JaxRuntimeError(self.refusal.format(gib=self.gib))
        return SimpleNamespace(memory_analysis=lambda: analysis(self.gib), input_shardings=())


def attempts(**more):
    return lambda microbatch: try_compile(Loop(microbatch, **more), ())


@pytest.mark.parametrize(
    ("gib", "microbatch"), [(33, None), (32, 256), (17, 256), (16, 128), (2.5, 16), (1.07, 1)]
)
def test_a_microbatch_is_found_that_fits(gib, microbatch):
    """The largest power of two with which it does, or the whole batch."""
    size, step = find_microbatch(attempts(), 512, gib * GIB)
    assert size == microbatch
    assert peak_bytes(step) <= gib * GIB


def test_too_little_memory_is_one_line():
    with pytest.raises(
        CellError, match=r"^memory_gib: the step needs 1\.06 GiB per device with one"
    ):
        find_microbatch(attempts(), 512, GIB)


# As libtpu 0.0.42.1 raised it of a step of this repository for v4-8, and as earlier releases did.
REFUSALS = {
    "temporaries": (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries ({gib}G) exceeds available HBM (30.75G)."
    ),
    "program": (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used {gib}G of 30.75G hbm. Exceeded hbm capacity."
    ),
    "no number": "RESOURCE_EXHAUSTED: Ran out of memory on HBM.",
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("allowed_gib", [27.7, 100.0])
def test_a_microbatch_is_found_where_the_compiler_refuses_what_is_too_large(refusal, allowed_gib):
    """Even where more is allowed than the chip has."""
    size, step = find_microbatch(attempts(hbm_gib=30.75, refusal=refusal), 512, allowed_gib * GIB)
    assert size == 256
    assert peak_bytes(step) == 17 * GIB


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_step_that_the_compiler_refuses_at_one_example_is_one_line(refusal):
    with pytest.raises(CellError, match=r"^batch_size: the step needs (1\.06 GiB|too much) per"):
        find_microbatch(attempts(hbm_gib=1.0, refusal=refusal), 512, 100 * GIB)


# As libtpu 0.0.42.1 raised it of a Pallas kernel.
VMEM = (
    "RESOURCE_EXHAUSTED: Allocation (size=268435456) would exceed memory (size=16777216) :: "
    "#allocation2 [shape = 'u8[268435456]{{0}}', space=vmem, size = 0x10000000, scoped]"
)


def test_a_kernel_that_needs_too_much_of_another_memory_is_an_error_and_no_large_batch():
    with pytest.raises(jax.errors.JaxRuntimeError, match="space=vmem"):
        find_microbatch(attempts(hbm_gib=0, refusal=VMEM), 512, 100 * GIB)


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("Ran out of memory in memory space hbm. Used 41.25G of 30.75G hbm. Exceeded", 41.25),
        ("for HLO temporaries (512.25G) exceeds available HBM (30.75G).", 512.25),
        ("memory required (1.5T) exceeds available HBM (30.75G).", 1536),
    ],
)
def test_what_a_compiler_asks_for_is_read_from_its_message(message, gib):
    assert parse_oom(message) == gib * GIB
    assert parse_oom("RESOURCE_EXHAUSTED") is None


def test_the_batches_of_the_next_loop_count_beside_the_program():
    mesh = mesh_of(8)
    program = train_program(CELL, Execution(), VOCABULARY, IMAGE, mesh)
    attempt = program.compiled
    image, text = 24 // 8 * 12 * 12 * 4, 24 // 8 * 16 * 4
    steps = program.chunk_steps
    assert attempt.needed_bytes == peak_bytes(attempt.executable) + steps * (image + text)
    enough = Execution(microbatch="auto", memory_gib=attempt.needed_bytes / GIB)
    loop, size = compile_loop(program, enough)
    assert size == 3 and loop is attempt.executable
    with pytest.raises(CellError, match=r"^memory_gib: the step needs .* with one example"):
        little = steps * (image + text) / GIB
        compile_loop(program, Execution(microbatch="auto", memory_gib=little))


def test_a_step_that_does_not_fit_as_it_is_asked_for_says_how_it_may(monkeypatch):
    refusing = attempts(hbm_gib=30.75, refusal=REFUSALS["temporaries"])
    monkeypatch.setattr(TrainProgram, "compiled", refusing(None))
    with pytest.raises(CellError, match=r"needs 33\.00 GiB, more than a device has; use --set"):
        program = train_program(CELL, Execution(), VOCABULARY, IMAGE, mesh_of(1))
        compile_loop(program, Execution())


def test_room_is_a_share_of_the_memory_that_is_free_on_the_host(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 32 * GIB)
    assert available_bytes() == 16 * GIB / 8


def test_room_is_nine_tenths_of_an_accelerators_memory(monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 30 * GIB})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert available_bytes() == pytest.approx(27 * GIB)


@pytest.mark.slow
def test_a_step_too_large_for_a_chip_is_compiled_in_microbatches(compiled_for_tpu):
    """Through the code that compiles for training, and by the same account as planning."""
    result = compiled_for_tpu("microbatches")
    (whole, *parts) = result["attempts"]
    assert whole["microbatch"] is None and not whole["compiled"]
    assert whole["needed_bytes"] == result["planned_bytes"] > result["usable_bytes"]
    assert parts[-1] == {
        "microbatch": result["microbatch"],
        "compiled": True,
        "needed_bytes": parts[-1]["needed_bytes"],
    }
    assert parts[-1]["needed_bytes"] <= result["allowed_bytes"] < result["usable_bytes"]


@pytest.mark.slow
def test_the_peak_is_what_libtpu_holds_against_a_chips_memory(compiled_for_tpu):
    """The sum of arguments, results and temporaries may be more than the chip has."""
    fine, refused = compiled_for_tpu("microbatches")["around_the_limit"]
    usable = compiled_for_tpu("microbatches")["usable_bytes"]
    assert fine["compiled"] and fine["needed_bytes"] <= usable < fine["sum_bytes"]
    assert not refused["compiled"]
    assert usable < refused["needed_bytes"] < fine["sum_bytes"]


MIB = 2**20


def state(mib: int) -> jax.Array:
    return jnp.zeros((mib, MIB // 4), jnp.float32).block_until_ready()


def test_the_state_and_what_comes_on_top_of_it_count_and_what_was_before_does_not(tmp_path):
    """Of 256 MiB, filled and gone before, no byte; of 64 MiB held for a moment, all."""
    if not (memory._PROC / "clear_refs").exists():
        pytest.skip("no Linux")
    np.ones(256 * MIB, np.uint8)
    held = state(32)
    mark = PeakMemory(held)
    np.ones(64 * MIB, np.uint8)  # all of its pages are touched
    peak = mark.read(100 * MIB)
    assert peak.source == "process"
    share = 64 / jax.local_device_count()
    assert peak.peak_bytes / MIB == pytest.approx(32 + share, abs=8)


class Device:
    """An accelerator whose allocator has been at `peak` bytes."""

    def __init__(self, peak: int):
        self.peak = peak

    def memory_stats(self) -> dict[str, int]:
        return {"peak_bytes_in_use": self.peak}


@pytest.mark.parametrize(("after", "found"), [((70, 90), 90), ((60, 80), None)])
def test_a_peak_is_the_fullest_devices_and_one_that_did_not_rise_is_an_earlier_cells(
    monkeypatch, after, found
):
    devices = [Device(60), Device(80)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    mark = PeakMemory({})
    for device, peak in zip(devices, after, strict=True):
        device.peak = peak
    assert mark.read(MIB) == Peak(found, "device")  # of steps of any size


def test_where_the_system_does_not_tell_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    assert PeakMemory({}).read(100 * MIB) == Peak(None, "process")


def test_growth_of_the_process_is_not_called_a_small_steps():
    mark = PeakMemory({})
    np.ones(64 * MIB, np.uint8)
    assert mark.read(100 * MIB - 1) == Peak(None, "process")
