"""The table of chips: memory, arithmetic and links, from the makers' specifications."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from study.config.host import cores, total_memory

GB, GIB, TERA = 10**9, 2**30, 10**12


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, with the maker's specifications.

    Attributes:
      name: The prefix of the names of its slices.
      device_kinds: The `device_kind` of its JAX devices.
      devices: JAX devices per chip. The two cores of a v4 or v5p chip are one device.
      cores: Cores per chip, as counted in the names of slices.
      hbm_bytes: Memory per chip.
      usable_bytes: Memory per device that a program may use.
      peak_flops: bfloat16 FLOP/s per chip.
      hbm_rate: Bytes/s between chip and memory.
      link_rate: Bytes/s of one link to a neighbour, one way.
      links: Number of links to neighbours: 6 in a 3D torus, 4 in a 2D one.
      network_rate: Bytes/s per chip between slices or hosts, one way.
      ray: Ray's name of a TPU's generation or of a GPU; "" for CPUs.
      libtpu: The prefix of libtpu's topologies; "" if libtpu does not compile for the chip.
      config: libtpu's chip config.
    """

    name: str
    kind: Literal["tpu", "gpu", "cpu"] = "tpu"
    device_kinds: tuple[str, ...]
    devices: int = 1
    cores: int = 1
    hbm_bytes: int
    usable_bytes: int
    peak_flops: float
    hbm_rate: float
    link_rate: float
    links: int
    network_rate: float
    ray: str = ""
    libtpu: str = ""
    config: str = "default"


# Peak FLOP/s, memory and its rate, and interconnect: the tables "Key specifications" of
# docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. They give the interconnect per chip and
# both ways: 600, 400, 1200, 800 and 1200 GB/s over 6, 4, 6, 4 and 6 links (v4: 6 links of 50 GB/s
# in arXiv 2304.01433, Table 4). Network: "DCN bandwidth per chip" in the same tables; v5e from its
# pod's 6.4 Tb/s over 256 chips; v4's is not published, so v5e's is used. `usable_bytes`: the
# available memory in the error of libtpu 0.0.42.1's compiler for a program that is too large.
V4 = Chip(
    name="v4",
    device_kinds=("TPU v4",),
    cores=2,
    hbm_bytes=32 * GIB,
    usable_bytes=int(30.75 * GIB),
    peak_flops=275 * TERA,
    hbm_rate=1200 * GB,
    link_rate=50 * GB,
    links=6,
    network_rate=25 * GB / 8,
    ray="v4",
    libtpu="v4",
    config="megacore",
)
V5E = Chip(
    name="v5e",
    device_kinds=("TPU v5 lite", "TPU v5e"),
    hbm_bytes=16 * GIB,
    usable_bytes=int(15.75 * GIB),
    peak_flops=197 * TERA,
    hbm_rate=819 * GB,
    link_rate=50 * GB,
    links=4,
    network_rate=25 * GB / 8,
    ray="v5litepod",
    libtpu="v5e",
)
V5P = Chip(
    name="v5p",
    device_kinds=("TPU v5", "TPU v5p"),
    cores=2,
    hbm_bytes=95 * GIB,
    usable_bytes=int(95.74 * GIB),  # slightly more than the documented 95
    peak_flops=459 * TERA,
    hbm_rate=2765 * GB,
    link_rate=100 * GB,
    links=6,
    network_rate=50 * GB / 8,
    ray="v5p",
    libtpu="v5",
    config="megacore",
)
V6E = Chip(
    name="v6e",
    device_kinds=("TPU v6 lite", "TPU v6e"),
    hbm_bytes=32 * GIB,
    usable_bytes=int(31.25 * GIB),
    peak_flops=918 * TERA,
    hbm_rate=1638 * GB,
    link_rate=100 * GB,
    links=4,
    network_rate=100 * GB / 8,
    ray="v6e",
    libtpu="v6e",
)
V7X = Chip(
    name="7x",
    device_kinds=("TPU7x", "TPU v7x"),
    devices=2,  # one per half, each with half of the memory
    cores=2,
    hbm_bytes=192 * GIB,
    usable_bytes=int(94.75 * GIB),
    peak_flops=2307 * TERA,
    hbm_rate=7380 * GB,
    link_rate=100 * GB,
    links=6,
    network_rate=100 * GB / 8,
    ray="v7x",
    libtpu="tpu7x",
)


def _gpu(
    name: str,
    device_kind: str,
    *,
    ray: str,
    mib: int,
    peak_flops: float,
    hbm_rate: float,
    link_rate: float,
    links: int = 1,
    network_rate: float,
) -> Chip:
    """A GPU with `mib` of memory as its driver reports it, of which JAX uses 75 % by default."""
    return Chip(
        name=f"gpu:{name}",
        kind="gpu",
        device_kinds=(device_kind,),
        hbm_bytes=mib * 2**20,
        usable_bytes=int(0.75 * mib * 2**20),
        peak_flops=peak_flops,
        hbm_rate=hbm_rate,
        link_rate=link_rate,
        links=links,
        network_rate=network_rate,
        ray=ray,
    )


# NVIDIA's data sheets of SXM boards, without sparsity: NVLink 600, 900, 900 and 1,800 GB/s both
# ways; one NIC per GPU as in DGX, of 200 Gb/s with the A100 and 400 Gb/s with the others. The L40S
# has PCIe 4.0 x16, 64 GB/s both ways; its NIC is assumed to be the A100's. Bandwidth of the B200 is
# an eighth of the 64 TB/s in the data sheet of the DGX B200. Memory as nvidia-smi reports it.
A100 = _gpu(
    "a100",
    "NVIDIA A100-SXM4-80GB",
    ray="A100",
    mib=81920,
    peak_flops=312 * TERA,
    hbm_rate=2039 * GB,
    link_rate=300 * GB,
    network_rate=25 * GB,
)
L40S = _gpu(
    "l40s",
    "NVIDIA L40S",
    ray="L40S",
    mib=46068,
    peak_flops=362 * TERA,
    hbm_rate=864 * GB,
    link_rate=32 * GB,
    network_rate=25 * GB,
)
H100 = _gpu(
    "h100",
    "NVIDIA H100 80GB HBM3",
    ray="H100",
    mib=81559,
    peak_flops=989 * TERA,
    hbm_rate=3350 * GB,
    link_rate=450 * GB,
    network_rate=50 * GB,
)
H200 = _gpu(
    "h200",
    "NVIDIA H200",
    ray="H200",
    mib=143771,
    peak_flops=989 * TERA,
    hbm_rate=4800 * GB,
    link_rate=450 * GB,
    network_rate=50 * GB,
)
B200 = _gpu(
    "b200",
    "NVIDIA B200",
    ray="B200",
    mib=183359,
    peak_flops=2250 * TERA,
    hbm_rate=8000 * GB,
    link_rate=900 * GB,
    network_rate=50 * GB,
)
# AMD's data sheet of the MI300X, without sparsity: seven links of 128 GB/s both ways to the other
# GPUs of a host; a 400 Gb/s NIC per GPU.
MI300X = _gpu(
    "mi300x",
    "AMD Instinct MI300X",
    ray="AMD-Instinct-MI300X-OAM",
    mib=196592,
    peak_flops=1307 * TERA,
    hbm_rate=5300 * GB,
    link_rate=64 * GB,
    links=7,
    network_rate=50 * GB,
)


@functools.cache
def this_cpu() -> Chip:
    """This machine as one chip, estimated.

    Two 8-wide float32 multiply-adds per core and cycle at 2.5 GHz, 20 GB/s of memory traffic per
    core, and half of the memory for a step.
    """
    memory = total_memory()
    return Chip(
        name="cpu",
        kind="cpu",
        device_kinds=("cpu",),
        hbm_bytes=memory,
        usable_bytes=memory // 2,
        peak_flops=32 * 2.5 * GB * cores(),
        hbm_rate=20.0 * GB * cores(),
        link_rate=10 * GB,
        links=1,
        network_rate=GB,
    )


CHIPS = (V4, V5E, V5P, V6E, V7X, A100, L40S, H100, H200, B200, MI300X)
