"""Compiles our programs for TPUs that are not attached; the `compiled_for_tpu` fixture runs it."""

from __future__ import annotations

import json
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.config import AllPairs, Budget, CachedImage, Cell, Data, Execution, MeanPoolText, Model
from study.config.chips import GIB, V4
from study.config.model import Vocabulary
from study.losses import pallas_tpu as pallas
from study.losses import sigmoid_loss, softmax_loss
from study.models.sharding import batch_sharding, make_mesh
from study.planning import fits as fit
from study.planning import tpu_compile
from study.training import compile as programs
from study.training.compile_key import memory_key
from study.training.memory import try_compile

SLICES = ("v4-8", "v5e-16", "v5p-8", "v6e-16")


def chip(name):
    """One chip of a slice."""
    return Mesh(np.array(tpu_compile.slice_devices(name)[:1]), ("data",))


def report(jitted, *args):
    """Bytes of HBM per chip that a program takes."""
    memory = jitted.lower(*args).compile().memory_analysis()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
    }


def scalars(mesh, count):
    whole = NamedSharding(mesh, P())
    return [jax.ShapeDtypeStruct((), jnp.float32, sharding=whole) for _ in range(count)]


def block(name, dim, dtype, *, rows=2048, ragged=0, in_mesh=True, softmax=False):
    """A loss's kernels on one block of a chip; `in_mesh` is where it can tell which chip it is."""
    mesh = chip(name)
    sharding = NamedSharding(mesh, P("data"))
    z = [jax.ShapeDtypeStruct((n, dim), dtype, sharding=sharding) for n in (rows - ragged, rows)]
    shift = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, P()))

    def sweep(zimg, ztxt, t, b, shift):
        if not softmax:
            return pallas.sigmoid_negatives(zimg, ztxt, t, b, shift=shift, tile=512)
        row, col, low = pallas.softmax_normalisers(zimg, ztxt, t, shift=shift, tile=512)
        lse = (top + jnp.log(total) for top, total in (row, col))
        gradients = pallas.softmax_gradients(zimg, ztxt, t, *lse, shift=shift, tile=512)
        return low + b, *gradients

    if in_mesh:
        specs = (P("data"), P("data"), P(), P(), P())
        sweep = jax.shard_map(
            sweep, mesh=mesh, in_specs=specs, out_specs=(P(), P("data"), P("data")), check_vma=False
        )
    return report(jax.jit(sweep), *z, *scalars(mesh, 2), shift)


def kernels():
    """Reports by name: the tightest chip with every kind of block, the others with two each.

    `python -m study.bench.tpu` compiles both losses for every chip.
    """
    found = {
        "v4-8 768 bfloat16": block("v4-8", 768, jnp.bfloat16),
        "v4-8 768 float32": block("v4-8", 768, jnp.float32),
        "v4-8 1152 bfloat16": block("v4-8", 1152, jnp.bfloat16),
        "v4-8 ragged": block("v4-8", 100, jnp.bfloat16, ragged=37),
        "v4-8 softmax large": block("v4-8", 64, jnp.bfloat16, rows=8192, softmax=True),
        "v4-8 unknown": block("v4-8", 768, jnp.bfloat16, in_mesh=False),
    }
    for name in SLICES:
        found[f"{name} large"] = block(name, 64, jnp.bfloat16, rows=8192)
    for name in ("v4-8", "v5p-8"):
        found[f"{name} wide"] = block(name, 1152, jnp.float32)
    for name in ("v4-8", "v5e-16", "v6e-16"):
        found[f"{name} softmax wide"] = block(name, 1152, jnp.float32, softmax=True)
    return found


def by_platform():
    """Whether each loss has its kernel when lowered for a TPU, in a mesh and without one."""
    on_chip = chip("v4-8")
    sharding = NamedSharding(on_chip, P())
    z = jax.ShapeDtypeStruct((256, 64), jnp.float32, sharding=sharding)

    def has_kernel(loss):
        return "tpu_custom_call" in jax.jit(loss).lower(z, z, *scalars(on_chip, 2)).as_text()

    options = {"pairs": AllPairs(), "key": jnp.uint32(0)}
    return [
        has_kernel(loss)
        for mesh in (on_chip, None)
        for loss in (
            lambda *a, mesh=mesh: sigmoid_loss(*a, **options, mesh=mesh)[0],
            lambda zimg, ztxt, t, _, mesh=mesh: softmax_loss(zimg, ztxt, t, mesh=mesh)[0],
        )
    ]


def ring(name, batch, dim):
    """Value and all gradients of the public loss over a whole slice."""
    mesh = make_mesh(tpu_compile.slice_devices(name))
    z = jax.ShapeDtypeStruct((batch, dim), jnp.bfloat16, sharding=batch_sharding(mesh))

    def loss(zimg, ztxt, t, b):
        key = jnp.uint32(0)
        return sigmoid_loss(zimg, ztxt, t, b, pairs=AllPairs(), key=key, mesh=mesh)

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
    return report(both, z, z, *scalars(mesh, 2))


def too_large():
    """What is learned of a program that no v4 chip can hold."""
    z = jax.ShapeDtypeStruct((1 << 18, 64), jnp.float32, sharding=NamedSharding(chip("v4-8"), P()))
    jitted = jax.jit(lambda z: jnp.sort(z @ z.T, axis=0) @ z)
    return try_compile(jitted, (z,))._asdict()


def around_the_limit():
    """Two programs for a v4 chip: one has just enough memory, the other just too little."""
    found = []
    for rows in (147_500, 148_500):
        sharding = NamedSharding(chip("v4-8"), P())
        z = jax.ShapeDtypeStruct((rows, 64), jnp.float32, sharding=sharding)

        def layer(x, w):
            h = jnp.tanh(jnp.tile(x @ w, (1, 32)))
            return x + h.reshape(len(x), 32, 64).sum(1) * jnp.tanh(h[:, :64]), None

        def loss(z):
            return jax.lax.scan(layer, z, jnp.ones((12, 64, 64)))[0].sum()

        attempt = try_compile(jax.jit(jax.grad(loss)), (z,))
        total = None
        if attempt.executable is not None:
            m = attempt.executable.memory_analysis()
            total = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
        found.append(
            {
                "compiled": attempt.executable is not None,
                "needed_bytes": attempt.needed_bytes,
                "sum_bytes": total,
            }
        )
    return found


def microbatches():
    """What training and planning find for a step that does not fit a v4-8 at once.

    Nearly all of its memory is the text tower's, which compiles fast. The longer the texts, and so
    the fewer of them, the faster."""
    model = Model(
        image=CachedImage(embeddings="e", dim=64), text=MeanPoolText(width=64), embed_dim=64
    )
    step_cell = Cell(
        model=model,
        batch_size=1 << 16,
        budget=Budget(steps=2),
        data=Data(text_length=8192),
    )
    allowed = 0.9 * V4.usable_bytes
    execution = Execution(slice="v4-8", microbatch="auto", memory_gib=allowed / GIB)
    attempts = []

    def find_microbatch(compile_with, rows, limit):
        def compile_and_note(size):
            attempts.append((size, compile_with(size)))
            return attempts[-1][1]

        return search(compile_and_note, rows, limit)

    search = programs.find_microbatch
    program = programs.train_program(
        step_cell,
        execution,
        Vocabulary(2000, eos=1, pad=1),
        (64,),
        make_mesh(tpu_compile.slice_devices("v4-8")),
        image_dtype=np.float16,  # as the plan assumes of embeddings
    )
    with mock.patch.object(programs, "find_microbatch", find_microbatch):
        _, size = programs.compile_loop(program, execution)
    spec = fit.ProgramSpec(
        cell=memory_key(step_cell, 8192), vocabulary=2000, image_shape=(64,), slice="v4-8"
    )
    return {
        "attempts": [
            {
                "microbatch": tried,
                "compiled": attempt.executable is not None,
                "needed_bytes": attempt.needed_bytes,
            }
            for tried, attempt in attempts
        ],
        "microbatch": size,
        "around_the_limit": around_the_limit(),
        "planned_bytes": fit.compile_report(spec, fit.RunSetting()).step_bytes,
        "allowed_bytes": allowed,
        "usable_bytes": V4.usable_bytes,
    }


if __name__ == "__main__":
    match sys.argv[1]:
        case "kernels":
            result = {"kernels": kernels(), "by_platform": by_platform()}
        case "losses":
            result = {"ring": ring("v4-1024", 1 << 20, 768), "too_large": too_large()}
        case "microbatches":
            result = microbatches()
    print(json.dumps(result))
