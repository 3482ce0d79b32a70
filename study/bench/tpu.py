"""What libtpu makes of both losses, in a table: bundles, VMEM, collectives, memory by policy.

    python -m study.bench.tpu > results/bench/tpu.md

Nothing is run: libtpu compiles for chips that are not attached. Bundles are of one block of
8,192 x 8,192 pairs with the kernels of `study.losses.pallas_tpu` and with XLA's sweep.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest import mock

from study.bench.tpu_schedule import (
    DUMP,
    executed_bundles,
    executed_collectives,
    on_chip_bytes,
    vmem_bytes,
)
from study.config import AllPairs, Budget, CachedImage, Cell, Data, Model, TextTransformer
from study.config.execution import Remat
from study.planning import tpu_compile
from study.planning.fits import ProgramSpec, RunSetting, compile_report, end_with_parent
from study.training.compile_key import memory_key

if TYPE_CHECKING:
    import jax

INTRODUCTION = """# What libtpu makes of the losses

Printed by `python -m study.bench.tpu` with libtpu {libtpu} and jax {jax}. Nothing ran on a TPU.

**Kernels.** One block of 8,192 x 8,192 pairs with all gradients, D = 768, bfloat16, tiles of at
most 512: by the kernels of `study.losses.pallas_tpu`, and by XLA from `study.losses.tiled`.
*Bundles* are the instructions that one core executes; each takes a cycle unless the core waits for
memory, so they are a lower bound on cycles. Of a conditional the cheaper branch is counted, which
favours XLA's sweep. *VMEM* is what a kernel takes for its windows, scratch and spills; for XLA's
sweeps on v5e and v6e it includes the buffers. *On-chip buffers* are arrays that XLA keeps in VMEM,
or in v4's CMEM, the kernels' operands among them.

**Rings.** The sigmoid loss with all gradients, D = 768, bfloat16: as one ring of all devices, and
with the devices that `study.losses.ring.devices_to_gather` lets gather first. *Collectives* are
those that a device executes in a step. A *send* goes to another slice; in a ring only the chips at
the end of a slice send. libtpu compiles the reduce-scatter over all devices as an all-reduce, which
receives twice the bytes; like the all-gather it can use all links of a chip, where a ring uses one.

**Policies.** Memory of a step besides state and batches, by `Execution.remat`: a Ti text tower of
64 tokens with cached images, 1,024 examples, bfloat16, on one v5e chip.
"""
SLICES = ("v4-8", "v5e-16", "v5p-8", "v6e-16")
ROWS, DIM, TILE, MIB = 8192, 768, 512, 2**20
# Slices and batches whose devices have few rows, or a slow network between slices.
RINGS = (("v4-1024", 32_768), ("v4-1024", 65_536), ("v5e-256x2", 262_144))
POLICY_BATCH = 1024


def kernels(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Both losses by kernel and by sweep, on one chip of the slice."""
    for loss in ("sigmoid", "softmax"):
        for implementation in ("kernel", "XLA"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            trips = _compile_block(name, loss, implementation)
            yield {
                "table": "kernels",
                "slice": name,
                "loss": loss,
                "implementation": implementation,
                "bundles": executed_bundles(folder, trips),
                "vmem_bytes": vmem_bytes(folder),
                "on_chip_bytes": on_chip_bytes(folder),
            }


def _compile_block(name: str, loss: str, implementation: str) -> int:
    """Compiles one block; returns how often each loop of the program runs its body."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from study.losses import pallas_tpu, softmax_sweeps, tiled

    mesh = Mesh(np.array(tpu_compile.slice_devices(name)[:1]), ("data",))
    by_kernel, panels = implementation == "kernel", []
    per_image = pallas_tpu.PER_IMAGE if loss == "softmax" else 0

    def block(zimg_nxD: jax.Array, ztxt_nxD: jax.Array, t: jax.Array, b: jax.Array) -> Any:
        options: Any = {"shift": 0, "tile": TILE}
        if by_kernel:
            tiling = pallas_tpu.choose_tiling(zimg_nxD, ztxt_nxD, TILE, per_image=per_image)
            panels.append(tiling.panel)
        if loss == "sigmoid":
            sweep = pallas_tpu.sigmoid_negatives if by_kernel else tiled.sigmoid_negatives
            return sweep(zimg_nxD, ztxt_nxD, t, b, **options)
        first: Any = softmax_sweeps.block_normalisers
        second: Any = softmax_sweeps.block_gradients
        if by_kernel:
            first, second = pallas_tpu.softmax_normalisers, pallas_tpu.softmax_gradients
        row, col, low = first(zimg_nxD, ztxt_nxD, t, **options)
        lse = (top + jnp.log(total) for top, total in (row, col))
        return low, *second(zimg_nxD, ztxt_nxD, t, *lse, **options)

    on_chip = jax.shard_map(
        block,
        mesh=mesh,
        in_specs=(P("data"), P("data"), P(), P()),
        out_specs=(P(), P("data"), P("data")),
        check_vma=False,
    )
    sharding = NamedSharding(mesh, P("data"))
    z = jax.ShapeDtypeStruct((ROWS, DIM), jnp.bfloat16, sharding=sharding)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, P()))
    jax.jit(on_chip).lower(z, z, scalar, scalar).compile()
    return ROWS // (panels[0] if by_kernel else TILE)


def rings() -> Iterator[dict[str, Any]]:
    """The sigmoid loss and all gradients on a whole slice: one ring of all devices, and by rule."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from study.config.hardware import get_slice
    from study.losses import ring, sigmoid_loss
    from study.models.sharding import batch_sharding, make_mesh

    for name, batch in RINGS:
        mesh = make_mesh(tpu_compile.slice_devices(name))
        z = jax.ShapeDtypeStruct((batch, DIM), jnp.bfloat16, sharding=batch_sharding(mesh))
        scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, P()))
        rows, slices = batch // mesh.size, get_slice(name).slices
        for gathered in (1, ring.devices_to_gather(rows, DIM, 2, mesh.size, slices)):

            def loss(*arrays: jax.Array, mesh: Any = mesh) -> Any:
                return sigmoid_loss(*arrays, pairs=AllPairs(), key=jnp.uint32(0), mesh=mesh)

            with mock.patch.object(ring, "devices_to_gather", lambda *_, g=gathered: g):
                both = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
                compiled = both.lower(z, z, scalar, scalar).compile()
            hops = mesh.size // gathered
            memory: Any = compiled.memory_analysis()
            yield {
                "table": "rings",
                "slice": name,
                "batch_size": batch,
                "gathered": gathered,
                "hops": hops,
                "collectives": executed_collectives(compiled.as_text() or "", hops - 1, gathered),
                "temp_bytes": memory.temp_size_in_bytes,
            }


def policies() -> Iterator[dict[str, Any]]:
    """Memory of one step of a text tower on one v5e chip without state and batches, by policy."""
    model = Model(
        image=CachedImage(embeddings="any", dim=192),
        text=TextTransformer(variant="Ti"),
        embed_dim=192,
        dtype="bfloat16",
    )
    cell = Cell(
        model=model,
        data=Data(text_length=64),
        batch_size=POLICY_BATCH,
        budget=Budget(steps=1000),
    )
    spec = ProgramSpec(
        cell=memory_key(cell, POLICY_BATCH),
        vocabulary=4096,
        image_shape=(192,),
        slice="v5e-1",
        chunk_examples=POLICY_BATCH,
    )
    for policy in (None, *reversed(get_args(Remat))):
        report = compile_report(spec, RunSetting(remat=policy))
        yield {
            "table": "policies",
            "policy": policy or "none",
            "bytes": report.step_bytes - report.state_bytes - report.batch_bytes,
        }


def print_tables(rows: Iterable[dict[str, Any]]) -> None:
    """Markdown, row by row."""
    head = {
        "kernels": ("chip", "loss", "implementation", "bundles", "VMEM MiB", "on-chip buffers MiB"),
        "rings": (
            "slice",
            "batch",
            "devices that gather",
            "hops",
            "collectives (MiB received)",
            "temporary MiB",
        ),
        "policies": ("policy", "MiB"),
    }
    table = None
    for row in rows:
        if row["table"] != table:
            table = row["table"]
            print(f"\n| {' | '.join(head[table])} |\n|{'---|' * len(head[table])}")
        match table:
            case "kernels":
                chip = row["slice"].partition("-")[0]
                cells = [chip, row["loss"], row["implementation"], f"{row['bundles']:,}"]
                cells += [f"{row[f'{kind}_bytes'] / MIB:.1f}" for kind in ("vmem", "on_chip")]
            case "rings":
                kinds = [
                    f"{count:,} {kind} ({received / MIB:,.1f})"
                    for kind, (count, received) in row["collectives"].items()
                ]
                cells = [row["slice"], f"{row['batch_size']:,}", row["gathered"], row["hops"]]
                cells += [", ".join(kinds), f"{row['temp_bytes'] / MIB:.1f}"]
            case "policies":
                cells = [row["policy"], f"{row['bytes'] / MIB:,.0f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    if sys.argv[1:]:
        end_with_parent()
        tables = [rings(), policies()]
        if sys.argv[1:] != ["whole"]:
            tables = [kernels(name, Path(sys.argv[1])) for name in SLICES]
        for row in itertools.chain(*tables):
            print(json.dumps(row), flush=True)
        return
    version = importlib.metadata.version
    print(INTRODUCTION.format(libtpu=version("libtpu"), jax=version("jax")))
    child = ["-m", "study.bench.tpu"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = DUMP.format(folder)
        print_tables(tpu_compile.run_python([*child, folder], stdin=""))
    del os.environ["LIBTPU_INIT_ARGS"]
    print_tables(tpu_compile.run_python([*child, "whole"], stdin=""))


if __name__ == "__main__":
    main()
