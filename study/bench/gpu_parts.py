"""The parts of `study bench gpu`; each runs in a process of its own and prints a row a line.

    python -m study.bench.gpu_parts PART SECONDS [tiny]

A part looks at its time before each row and names what it skips. All but `siglip-kernel` run on
CPU too, where `tiny` makes them quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

Row = dict[str, Any]
START, TRAINED = (10.0, -10.0), (117.0, -13.0)  # t and b of the paper's start and of its models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the parts run.

    Attributes:
      batches, dim: of the timed losses.
      error_batch: of the losses compared with float64, which takes its square of memory.
      step_batch, variant, image_size: of the SigLIP step.
      characters, examples, glyphs_batch: of the training on glyphs.
    """

    batches: tuple[int, ...] = (16_384, 32_768, 65_536, 131_072)
    dim: int = 768
    error_batch: int = 4096
    step_batch: int = 256
    variant: str = "B/16"
    image_size: int = 224
    characters: int = 400
    examples: int = 16_384
    glyphs_batch: int = 256


TINY = Sizes(
    batches=(256,),
    dim=64,
    error_batch=256,
    step_batch=4,
    variant="mu/16",
    image_size=32,
    characters=60,
    examples=128,
    glyphs_batch=32,
)


class Clock:
    """The time that a part has left."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def left(self, share: float = 1.0) -> float:
        return share * (self._end - time.monotonic())


def median_seconds(run: Callable[[], Any], clock: Clock) -> float:
    """Of up to 20 runs within half a second or a twentieth of the time left, after one more."""
    run()
    seconds: list[float] = []
    limit = min(0.5, clock.left(0.05))
    while len(seconds) < 3 or (len(seconds) < 20 and sum(seconds) < limit):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def embeddings(batch: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in float32 of which row i of both agree more than others do."""
    rng = np.random.default_rng(0)
    zimg = rng.standard_normal((batch, dim), np.float32)
    ztxt = rng.standard_normal((batch, dim), np.float32) + zimg
    zimg, ztxt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg, ztxt))
    return zimg, ztxt


# --- the losses -----------------------------------------------------------------------------------


def _jax_losses() -> dict[str, Callable[..., Any]]:
    """Functions of bfloat16 embeddings, t and b to the loss and its gradients, or to anything."""
    import jax
    import jax.numpy as jnp

    from study.config.loss import AllPairs
    from study.losses import (
        naive,
        negatives,
        pallas_gpu,
        sigmoid_loss,
        softmax_loss,
        tiled,
        tiles,
    )

    def sigmoid_of(*z: Any) -> Any:
        loss, _ = sigmoid_loss(*z, pairs=AllPairs(), key=jnp.uint32(0))
        return loss

    def by_kernel(*z: Any) -> Any:
        def block(_kernel: str, _sweep: Any, *arrays: Any, shift: Any, tile: int) -> Any:
            del tile
            interpret = jax.default_backend() != "gpu"
            return pallas_gpu.sigmoid_negatives(*arrays, shift=shift, interpret=interpret)

        with mock.patch.object(negatives, "by_kernel_on_tpu", block):
            return sigmoid_of(*z)

    def matmuls(zimg: Any, ztxt: Any, *_: Any) -> Any:
        def product(zimg_TxD: Any, ztxt_TxD: Any, *_: Any) -> Any:
            return None, tiles.dot(zimg_TxD, ztxt_TxD.T).astype(zimg_TxD.dtype)

        tile = tiles.large_tile(len(zimg), len(ztxt))
        scan = tiles.peeled_scan
        return tiled.gradient_sweep(product, None, scan, tile, zimg, ztxt, (), (), (0, 0))

    def with_grads(loss: Any, arguments: int) -> Any:
        grad = jax.value_and_grad(loss, tuple(range(arguments)))
        return lambda *z: grad(*z[:arguments])

    return {
        "sigmoid": with_grads(sigmoid_of, 4),
        "three matmuls": matmuls,
        "softmax": with_grads(lambda *z: softmax_loss(*z)[0], 3),
        "sigmoid, kernel": with_grads(by_kernel, 4),
        "naive sigmoid": with_grads(naive.sigmoid, 4),
        "naive softmax": with_grads(naive.softmax, 3),
    }


def losses(sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """Time and memory of value and gradients, ours beside naive and the bare matrix products."""
    import jax
    import jax.numpy as jnp

    z = {
        batch: [jnp.asarray(a, jnp.bfloat16) for a in embeddings(batch, sizes.dim)]
        for batch in sizes.batches
    }
    # What matters most comes first: a part may run out of time.
    for name, way in _jax_losses().items():
        too_large = False
        for batch in sizes.batches:
            row = {"name": name, "batch_size": batch, "dim": sizes.dim}
            if too_large or clock.left() < 10:
                yield row | {"skipped": "memory" if too_large else "time"}
                continue
            arguments = (*z[batch], *map(jnp.float32, START))
            try:
                compiled = jax.jit(way).lower(*arguments).compile()
                memory: Any = compiled.memory_analysis()
                seconds = median_seconds(functools.partial(_run_jax, compiled, *arguments), clock)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                too_large = True
                yield row | {"skipped": "memory"}
                continue
            peak = memory.temp_size_in_bytes + memory.output_size_in_bytes
            yield row | {"seconds": seconds, "peak_bytes": peak + memory.argument_size_in_bytes}


def _run_jax(compiled: Any, *arguments: Any) -> Any:
    import jax

    return jax.block_until_ready(compiled(*arguments))


def errors(sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """Relative errors of loss and gradients against float64."""
    import jax
    import jax.numpy as jnp

    batch = sizes.error_batch
    z = [jnp.asarray(a, jnp.bfloat16) for a in embeddings(batch, sizes.dim)]
    zimg, ztxt = (np.asarray(a, np.float64) for a in z)
    want = {}
    for t, b in (START, TRAINED):
        loss, *grads = want["sigmoid", t] = exact_sigmoid(zimg, ztxt, t, b)
        want["softmax", t] = exact_softmax(zimg, ztxt, t)
        rounded = [np.asarray(jnp.asarray(g, jnp.bfloat16), np.float64) for g in grads[:2]]
        name = "gradients rounded to bfloat16"
        yield _errors(name, batch, (t, b), (loss, *grads), (loss, *rounded, *grads[2:]))
    ways = _jax_losses()
    del ways["three matmuls"]
    for name, way in ways.items():
        if clock.left() < 10:
            yield {"name": name, "batch_size": batch, "skipped": "time"}
            continue
        kind, jitted = "softmax" if "softmax" in name else "sigmoid", jax.jit(way)
        for t, b in (START, TRAINED):
            value, grads = jitted(*z, jnp.float32(t), jnp.float32(b))
            yield _errors(name, batch, (t, b), want[kind, t], (value, *grads))


def _errors(name: str, batch: int, scalars: Any, want: Any, got: Any) -> Row:
    row: Row = {"name": name, "batch_size": batch, "t": scalars[0], "b": scalars[1]}
    for field, one, expected in zip(("loss", "dimg", "dtxt", "dt", "db"), got, want, strict=False):
        one = np.asarray(one, np.float64)
        row[field] = float(np.linalg.norm(one - expected) / np.linalg.norm(expected))
    return row


def exact_sigmoid(zimg: np.ndarray, ztxt: np.ndarray, t: float, b: float) -> tuple[Any, ...]:
    """Loss and the gradients of its four arguments in float64."""
    x = zimg @ ztxt.T
    own = np.arange(len(x))
    logits = t * x + b
    logits[own, own] *= -1
    loss = np.logaddexp(0, logits).sum() / len(x)
    p = np.exp(-np.logaddexp(0, -logits)) / len(x)
    p[own, own] *= -1
    return loss, t * p @ ztxt, t * p.T @ zimg, np.vdot(p, x), p.sum()


def exact_softmax(zimg: np.ndarray, ztxt: np.ndarray, t: float) -> tuple[Any, ...]:
    """Loss and the gradients of its three arguments in float64."""
    x = zimg @ ztxt.T
    p, loss = -np.eye(len(x)), -t * np.trace(x) / len(x)
    for axis in (0, 1):
        top = t * x.max(axis, keepdims=True)
        e = np.exp(t * x - top)
        total = e.sum(axis, keepdims=True)
        loss += 0.5 * np.mean(top + np.log(total))
        p += 0.5 * e / total
    p /= len(x)
    return loss, t * p @ ztxt, t * p.T @ zimg, np.vdot(p, x)


def siglip_kernel(sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """The package siglip-kernel (PyTorch, Triton): time, memory and error of its sigmoid loss."""
    missing = [
        m for m in ("torch", "triton", "siglip_kernel") if importlib.util.find_spec(m) is None
    ]
    if missing:
        yield {"name": "siglip-kernel", "skipped": f"{', '.join(missing)} not installed"}
        return
    import torch
    from siglip_kernel import fused_siglip_loss

    if not torch.cuda.is_available():
        yield {"name": "siglip-kernel", "skipped": "PyTorch finds no GPU"}
        return

    def leaves(batch: int, t: float, b: float) -> list[Any]:
        z = [torch.tensor(a).cuda().bfloat16() for a in embeddings(batch, sizes.dim)]
        scalars = [torch.tensor(x, device="cuda") for x in (math.log(t), b)]
        return [leaf.requires_grad_() for leaf in (*z, *scalars)]

    def run(arguments: list[Any]) -> Any:
        for leaf in arguments:
            leaf.grad = None
        loss = fused_siglip_loss(*arguments)
        loss.backward()
        torch.cuda.synchronize()
        return loss

    for batch in sizes.batches:
        row = {"name": "siglip-kernel", "batch_size": batch, "dim": sizes.dim}
        if clock.left() < 10:
            yield row | {"skipped": "time"}
            continue
        arguments = leaves(batch, *START)
        torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(functools.partial(run, arguments), clock)
        yield row | {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated()}
    for scalars in (START, TRAINED):
        arguments = leaves(sizes.error_batch, *scalars)
        value = run(arguments).item()
        dimg, dtxt, dlog_t, db = (leaf.grad.double().cpu().numpy() for leaf in arguments)
        exact = [leaf.detach().double().cpu().numpy() for leaf in arguments[:2]]
        got = (value, dimg, dtxt, dlog_t / scalars[0], db)
        want = exact_sigmoid(exact[0], exact[1], *scalars)
        yield _errors("siglip-kernel", sizes.error_batch, scalars, want, got)


# --- training -------------------------------------------------------------------------------------


def step(sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """One SigLIP step in bfloat16: time, and model FLOP/s over the chip's peak (MFU)."""
    import jax

    from study.bench.step import siglip, time_step
    from study.config import Sigmoid
    from study.config.hardware import get_chip
    from study.models.flops import step_flops

    config, shape = siglip(
        sizes.step_batch, Sigmoid(), 4, variant=sizes.variant, image_size=sizes.image_size
    )
    cell = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
    seconds = time_step(cell, shape, steps=4, rounds=3 if clock.left() > 20 else 1)
    flops = step_flops(cell).model
    chip = get_chip(jax.devices()[0].device_kind)
    peak = chip.peak_flops if chip is not None and chip.kind != "cpu" else None
    yield {
        "name": f"SigLIP {sizes.variant} at {sizes.image_size} px",
        "batch_size": sizes.step_batch,
        "seconds": seconds,
        "model_flops_per_s": flops / seconds,
        "mfu": None if peak is None else flops / seconds / peak,
    }


def glyphs(sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """A short training on glyphs here: rows of `train/loss`, for the other device to compare."""
    del clock  # the parent ends it
    import jax

    from study import train
    from study.config import Adam, Budget, Cell, Execution, MeanPoolText, Model, ViT
    from study.data.glyphs.write import write_glyphs

    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as root:
        write_glyphs(Path(root) / "glyphs", views=1, limit_characters=sizes.characters)
        image = ViT(variant="mu/8", image_size=24, pool="gap")
        cell = Cell(
            model=Model(image=image, text=MeanPoolText(width=64), embed_dim=64),
            optimizer=Adam(learning_rate=4e-3),
            batch_size=sizes.glyphs_batch,
            budget=Budget(examples=sizes.examples),
        )
        execution = Execution(data_root=root, wandb=False, log_every_percent=10.0)
        start = time.perf_counter()
        folder = Path(root) / cell.id
        train(cell, execution, folder=folder, group="gpu-check")
        seconds = time.perf_counter() - start
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    yield {
        "name": f"glyphs on {jax.devices()[0].platform}",
        "batch_size": sizes.glyphs_batch,
        "seconds": seconds,
        "losses": [row["train/loss"] for row in rows if "train/loss" in row],
    }


PARTS: dict[str, Callable[[Sizes, Clock], Iterator[Row]]] = {
    "losses": losses,
    "errors": errors,
    "siglip-kernel": siglip_kernel,
    "step": step,
    "glyphs": glyphs,
}


def main() -> None:
    name, seconds, *more = sys.argv[1:]
    for row in PARTS[name](TINY if more == ["tiny"] else Sizes(), Clock(float(seconds))):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
