"""Compiles our programs for TPUs that are not there; the `compiled_for_tpu` fixture runs it."""

from __future__ import annotations

import functools
import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from study import aot
from study.losses import pallas, sigmoid_loss, tiles
from study.pairs import AllPairs

SLICES = ("v4-8", "v5e-16", "v5p-8", "v6e-16")


def scalars(mesh, count):
    whole = NamedSharding(mesh, P())
    return [jax.ShapeDtypeStruct((), jnp.float32, sharding=whole) for _ in range(count)]


def block(name, dim, dtype, *, rows=2048, ragged=0, in_mesh=True):
    """The kernel on one block of a chip; `in_mesh` is where it can tell which chip that is."""
    mesh = aot.mesh(name, chips=1)
    sharding = NamedSharding(mesh, P("data"))
    z = [jax.ShapeDtypeStruct((n, dim), dtype, sharding=sharding) for n in (rows - ragged, rows)]
    is_own = jax.ShapeDtypeStruct((), jnp.bool_, sharding=NamedSharding(mesh, P()))

    def sweep(zimg, ztxt, t, b, diagonal):
        return pallas.sigmoid_negatives(zimg, ztxt, t, b, diagonal=diagonal, tile=512)

    if in_mesh:
        specs = (P("data"), P("data"), P(), P(), P())
        sweep = jax.shard_map(
            sweep, mesh=mesh, in_specs=specs, out_specs=(P(), P("data"), P("data")), check_vma=False
        )
    return aot.report(jax.jit(sweep), *z, *scalars(mesh, 2), is_own)


def kernels():
    """Reports by name: the tightest chip with every kind of block, the others with the extremes."""
    found = {
        "v4-8 768 bfloat16": block("v4-8", 768, jnp.bfloat16),
        "v4-8 768 float32": block("v4-8", 768, jnp.float32),
        "v4-8 1152 bfloat16": block("v4-8", 1152, jnp.bfloat16),
        "v4-8 ragged": block("v4-8", 100, jnp.bfloat16, ragged=37),
        "v4-8 unknown": block("v4-8", 768, jnp.bfloat16, in_mesh=False),
    }
    for name in SLICES:
        found[f"{name} wide"] = block(name, 1152, jnp.float32)
        found[f"{name} large"] = block(name, 64, jnp.bfloat16, rows=8192)
    return {key: report.as_dict() for key, report in found.items()}


def by_platform():
    """Whether a program that offers both sweeps takes the kernel when compiled for a TPU."""

    def both(*args):
        kernel = functools.partial(pallas.sigmoid_negatives, diagonal=True, tile=512)
        sweep = functools.partial(tiles.sigmoid_negatives, diagonal=True, tile=512)
        return jax.lax.platform_dependent(
            *args,
            tpu=lambda *a: kernel(*a)[1:],
            default=lambda *a: sweep(*a)[1:],
        )

    mesh = aot.mesh("v4-8", chips=1)
    z = jax.ShapeDtypeStruct((256, 64), jnp.float32, sharding=NamedSharding(mesh, P()))
    here = [jnp.zeros((256, 64)), jnp.zeros((256, 64)), jnp.float32(1), jnp.float32(0)]
    lowered = {
        "tpu": jax.jit(both).lower(z, z, *scalars(mesh, 2)),
        "cpu": jax.jit(both).lower(*here),
    }
    return {name: "tpu_custom_call" in text.as_text() for name, text in lowered.items()}


def ring(name, batch, dim):
    """Value and all gradients of the public loss over a whole slice."""
    mesh = aot.mesh(name)
    rows = NamedSharding(mesh, P("data"))
    z = jax.ShapeDtypeStruct((batch, dim), jnp.bfloat16, sharding=rows)

    def loss(zimg, ztxt, t, b):
        key = jnp.uint32(0)
        return sigmoid_loss(zimg, ztxt, t, b, pairs=AllPairs(), key=key, mesh=mesh)

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
    return aot.report(both, z, z, *scalars(mesh, 2)).as_dict()


def too_large():
    """What is said of a program that no v4 chip can hold."""
    mesh = aot.mesh("v4-8", chips=1)
    z = jax.ShapeDtypeStruct((1 << 18, 64), jnp.float32, sharding=NamedSharding(mesh, P()))
    try:
        aot.report(jax.jit(lambda z: jnp.sort(z @ z.T, axis=0) @ z), z)
    except aot.DoesNotFit as error:
        return str(error)
    return None


if __name__ == "__main__":
    match sys.argv[1]:
        case "kernels":
            result = {"kernels": kernels(), "by_platform": by_platform()}
        case "losses":
            result = {"ring": ring("v4-1024", 1 << 20, 768), "too_large": too_large()}
    print(json.dumps(result))
