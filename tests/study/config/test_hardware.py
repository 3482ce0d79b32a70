"""The table of hardware agrees with itself, with Ray and with libtpu."""

from __future__ import annotations

import math
import subprocess
import sys

import pydantic
import pytest
from ray.util.accelerators import accelerators

from study.config import Execution, hardware
from study.config.hardware import HardwareError, get_chip, get_slice, list_slices
from study.planning import tpu_compile

TPUS = [s for generation in hardware.TOPOLOGIES for s in list_slices(generation)]


@pytest.mark.parametrize("slice_", TPUS, ids=lambda s: s.name)
def test_chips_hosts_and_names_agree(slice_):
    assert math.prod(slice_.shape) == slice_.chips
    assert slice_.hosts * slice_.chips_per_host == slice_.chips
    assert int(slice_.pod.rpartition("-")[2]) == slice_.chips * slice_.chip.cores
    assert get_slice(slice_.name) == slice_
    assert math.prod(slice_.libtpu_options["chips_per_host_bounds"]) == slice_.chips_per_host


def test_ray_knows_every_slice_by_the_same_numbers():
    from ray._private.accelerators import tpu

    valid = tpu.TPUAcceleratorManager.is_valid_tpu_accelerator_topology
    for s in TPUS:
        assert valid(s.chip.ray, s.topology), s.name
        assert tpu.infer_tpu_pod_type_from_topology(s.topology, s.accelerator_type) == s.pod_type
        assert tpu.get_chips_per_host(s.topology, s.chip.ray) == s.chips_per_host, s.name


def test_names_of_the_cloud_and_of_ray_mean_the_same_slice():
    assert get_slice("v5litepod-16") == get_slice("v5e-16")
    assert get_slice("tpu7x-8") == get_slice("v7x-8") == get_slice("7x-8")
    for s in TPUS:
        assert get_slice(s.cloud_type) == get_slice(s.pod_type) == s


def test_several_slices_multiply_chips_and_hosts():
    one, two = get_slice("v4-32"), get_slice("v4-32x2")
    assert (two.chips, two.hosts, two.slices) == (2 * one.chips, 2 * one.hosts, 2)
    assert (two.name, two.topology, two.pod_type) == ("v4-32x2", one.topology, "v4-32")
    assert two.libtpu_options == one.libtpu_options | {"num_slices": 2}


def test_gpus_and_this_cpu_are_machines_too():
    assert get_slice("gpu:h100").chips == get_slice("gpu:h200").hosts == 1
    pair = get_slice("gpu:h100x16")
    assert (pair.chips, pair.hosts, pair.accelerator_type) == (16, 2, "H100")
    names = {name for name in vars(accelerators).values() if isinstance(name, str)}
    assert {c.ray for c in hardware.CHIPS if c.kind == "gpu"} <= names
    assert get_slice("cpu").chip.usable_bytes > 0


def test_every_chip_is_found_by_what_jax_calls_it():
    for chip in hardware.CHIPS:
        for kind in chip.device_kinds:
            assert get_chip(kind) is chip
    assert get_chip("TPU v99") is None


@pytest.mark.parametrize("name", ["v4-12", "v4", "gpu:v100", "v4-32x0", "v3-8", ""])
def test_a_name_that_is_none_is_told_in_one_line_with_all_that_are(name):
    with pytest.raises(HardwareError, match=f"no slice '{name}'") as raised:
        get_slice(name)
    said = str(raised.value)
    assert "\n" not in said
    assert all(generation in said for generation in hardware.TOPOLOGIES)
    assert "gpu:h100" in said


def test_the_nearest_names_come_first():
    with pytest.raises(HardwareError, match=r"no slice 'v4-36'; nearest: v4-32, v4-16"):
        get_slice("v4-36")


def test_an_execution_wants_a_machine_that_there_is():
    assert Execution(slice="v6e-16x2").slice == "v6e-16x2"
    with pytest.raises(pydantic.ValidationError, match=r"no slice 'v4-12'; nearest"):
        Execution(slice="v4-12")


def test_importing_the_table_imports_no_jax():
    code = "import sys, study.config.hardware; print('jax' in sys.modules or 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_libtpu_has_every_slice_with_as_many_devices(compiled_for_tpu):
    del compiled_for_tpu  # only to be skipped where libtpu cannot be
    script = (
        "import json\n"
        "from study.config import hardware as h\nfrom study.planning import tpu_compile\n"
        "sizes = {n: len(tpu_compile.slice_devices(n)) "
        "for n in [*h.slice_names(), 'v4-16x2', 'v6e-8x2']\n"
        "         if h.get_slice(n).topology and h.get_slice(n).chips <= 512}\n"
        "kinds = {n: tpu_compile.slice_devices(n)[0].device_kind\n"
        "         for n in ('v4-8', 'v5e-4', 'v5p-8', 'v6e-4', '7x-8')}\n"
        "print(json.dumps({'sizes': sizes, 'kinds': kinds}))"
    )
    (found,) = tpu_compile.run_python(["-c", script], stdin="")
    sizes, kinds = found["sizes"], found["kinds"]
    assert len(sizes) > 30
    assert sizes == {name: get_slice(name).devices for name in sizes}
    assert all(get_chip(kind) is get_slice(name).chip for name, kind in kinds.items())
