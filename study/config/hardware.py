"""The slices that `Execution.slice` names: chips of `chips.py` in Cloud TPU's topologies.

    get_slice("v4-32")     16 v4 chips as 2x2x4 on 4 hosts
    get_slice("v6e-16x2")  two slices of 16 v6e chips, connected by the data-centre network
    get_slice("gpu:h100")  one GPU; "gpu:h100x8" is a host of eight
    get_slice("cpu")       this machine; "cpux2" is two hosts of a cluster

Names are Cloud TPU's, which count TensorCores where a chip has two (v4, v5p, 7x): v4-32 is 16
chips. The names that Ray and libtpu use for the same slice are properties of `Slice`.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Any

from study.config.chips import CHIPS, Chip, this_cpu
from study.config.chips import GIB as GIB
from study.errors import UserError


class HardwareError(UserError, ValueError):
    """An unknown slice or generation, or one that cannot do what is requested."""


# Topologies by the number in the name: Cloud TPU's single slices that Ray 2.60 accepts (it does not
# accept v4-4096).
_CUBES = {
    **{8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8"},
    **{512: "4x8x8", 1024: "8x8x8", 2048: "8x8x16"},
}
_SQUARES = {
    **{1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16"},
    **{256: "16x16"},
}
TOPOLOGIES: dict[str, dict[int, str]] = {
    "v4": _CUBES,
    "v5e": _SQUARES,
    "v5p": {**_CUBES, 4096: "8x16x16", 8192: "16x16x16", 12288: "16x16x24"},
    "v6e": _SQUARES,
    "7x": {**_CUBES, 4096: "8x16x16"},
}
# Other names of generations, in Cloud TPU and Ray.
_ALIASES = {"v5litepod": "v5e", "v7x": "7x", "tpu7x": "7x"}
_CLOUD = {"v5e": "v5litepod", "7x": "tpu7x"}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One or more equal slices of a TPU, the GPUs of a host, or CPU hosts.

    Attributes:
      pod: The name without the number of slices ("v4-32").
      topology: Chips along each axis of one slice ("2x2x4"); "" for GPUs and CPUs.
      slices: Number of slices, connected by the data-centre network.
      chips_per_slice: Chips of each slice.
    """

    pod: str
    chip: Chip
    topology: str = ""
    slices: int = 1
    chips_per_slice: int

    @property
    def name(self) -> str:
        """As in `Execution.slice`."""
        return self.pod if self.slices == 1 else f"{self.pod}x{self.slices}"

    @property
    def chips(self) -> int:
        return self.chips_per_slice * self.slices

    @property
    def devices(self) -> int:
        """JAX devices of all slices."""
        return self.chips * self.chip.devices

    @property
    def shape(self) -> tuple[int, ...]:
        """Chips along each axis of one slice."""
        return tuple(int(side) for side in self.topology.split("x")) if self.topology else ()

    @property
    def chips_per_host(self) -> int:
        """4, or up to 8 if all chips of a v5e or v6e slice, or GPUs, are on one host."""
        few = len(self.shape) != 3 and self.chips_per_slice <= 8
        return self.chips_per_slice if few else (8 if self.chip.kind == "gpu" else 4)

    @property
    def hosts_per_slice(self) -> int:
        return -(-self.chips_per_slice // self.chips_per_host)

    @property
    def hosts(self) -> int:
        return self.hosts_per_slice * self.slices

    @property
    def wrap(self) -> tuple[bool, ...]:
        """Whether each axis is a ring: in 3D all from 4 x 4 x 4 chips, in 2D those of 16 chips."""
        if len(self.shape) == 3:
            return (min(self.shape) >= 4,) * 3
        return tuple(side == 16 for side in self.shape)

    @property
    def cloud_type(self) -> str:
        """Cloud TPU's name of one slice ("v5litepod-16")."""
        return self._named(_CLOUD.get(self.chip.name, self.chip.name))

    @property
    def pod_type(self) -> str:
        """Ray's node label for one slice ("v5litepod-16", "v7x-8")."""
        return self._named(self.chip.ray)

    @property
    def accelerator_type(self) -> str:
        """`accelerator_type` of Ray's `ScalingConfig` ("TPU-V4", "H100"); "" for a CPU."""
        if self.chip.kind == "tpu":
            return f"TPU-{self.chip.ray.upper()}"
        return self.chip.ray

    @property
    def libtpu_topology(self) -> str:
        """libtpu's name of one slice ("v4:2x2x4").

        Raises:
          HardwareError: The chip is not a TPU.
        """
        if not self.chip.libtpu:
            raise HardwareError(f"{self.name} is not a TPU, so libtpu cannot compile for it")
        return f"{self.chip.libtpu}:{self.topology}"

    @property
    def libtpu_options(self) -> dict[str, Any]:
        """Keyword arguments of `get_topology_desc`, besides the topology."""
        high = {1: 1, 8: 4}.get(self.chips_per_host, 2)
        options: dict[str, Any] = {
            "chips_per_host_bounds": (1 if self.chips_per_host == 1 else 2, high, 1)
        }
        if self.chip.config != "default":
            options["chip_config_name"] = self.chip.config
        if any(self.wrap):
            options["wrap"] = (*self.wrap, False)[:3]
        return options if self.slices == 1 else options | {"num_slices": self.slices}

    def _named(self, generation: str) -> str:
        return f"{generation}-{self.pod.rpartition('-')[2]}" if self.topology else self.pod


def get_slice(name: str) -> Slice:
    """The slice with this name, in the spelling of Cloud TPU or Ray.

    Raises:
      HardwareError: No slice has this name; the message lists the nearest and all known ones.
    """
    if match := re.fullmatch(r"cpu(?:x([1-9]\d*))?", name):
        return Slice(pod="cpu", chip=this_cpu(), slices=int(match[1] or 1), chips_per_slice=1)
    if match := re.fullmatch(r"(gpu:\w+?)(?:x([1-9]\d*))?", name):
        chip = next((c for c in CHIPS if c.name == match[1]), None)
        if chip is not None:
            return Slice(pod=name, chip=chip, chips_per_slice=int(match[2] or 1))
    if match := re.fullmatch(r"(\w+)-(\d+)(?:x([1-9]\d*))?", name):
        generation, count = _ALIASES.get(match[1], match[1]), int(match[2])
        if topology := TOPOLOGIES.get(generation, {}).get(count):
            return _tpu(generation, count, topology, int(match[3] or 1))
    near = ", ".join(_nearest(name))
    tpus = [f"{g}-{'/'.join(map(str, sizes))}" for g, sizes in TOPOLOGIES.items()]
    gpus = [chip.name for chip in CHIPS if chip.kind == "gpu"]
    raise HardwareError(
        f"no slice {name!r}; {near and f'nearest: {near}; '}known: {', '.join([*tpus, *gpus])}, "
        "cpu; several slices as in v4-32x2, GPUs as in gpu:h100x8, hosts of CPUs as in cpux2"
    )


def check_slice_name(name: str) -> str:
    """Returns `name` if it names a slice.

    Raises:
      HardwareError: It does not.
    """
    get_slice(name)
    return name


def slice_names() -> list[str]:
    """All single slices, smallest first within each generation, then GPUs and the CPU."""
    tpus = [f"{generation}-{n}" for generation, sizes in TOPOLOGIES.items() for n in sizes]
    return [*tpus, *(c.name for c in CHIPS if c.kind == "gpu"), "cpu"]


def list_slices(generation: str) -> list[Slice]:
    """The single slices of a generation, smallest first.

    Raises:
      HardwareError: No generation has this name.
    """
    generation = _ALIASES.get(generation, generation)
    if generation not in TOPOLOGIES:
        raise HardwareError(f"no generation {generation!r}; known: {', '.join(TOPOLOGIES)}")
    return [_tpu(generation, n, t, 1) for n, t in TOPOLOGIES[generation].items()]


def get_chip(device_kind: str) -> Chip | None:
    """The chip of a JAX device, by its `device_kind`; None if it is not in the table."""
    if device_kind == "cpu":
        return this_cpu()
    return next((chip for chip in CHIPS if device_kind in chip.device_kinds), None)


def _tpu(generation: str, count: int, topology: str, slices: int) -> Slice:
    chip = next(c for c in CHIPS if c.name == generation)
    chips = math.prod(int(side) for side in topology.split("x"))
    return Slice(
        pod=f"{generation}-{count}",
        chip=chip,
        topology=topology,
        slices=slices,
        chips_per_slice=chips,
    )


def _nearest(name: str) -> list[str]:
    """Slices of the same generation and about the same size, or else of similar spelling."""
    if match := re.match(r"(\w+)-(\d+)", name):
        generation, count = _ALIASES.get(match[1], match[1]), int(match[2])
        if sizes := TOPOLOGIES.get(generation):
            return [f"{generation}-{n}" for n in sorted(sizes, key=lambda n: abs(n - count))[:2]]
    return difflib.get_close_matches(name, slice_names(), n=3, cutoff=0.5)
