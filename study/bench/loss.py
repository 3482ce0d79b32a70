"""`study bench loss`: time and memory of both losses' value and gradients, next to other ways.

Each contender runs in a process of its own, on the same inputs and the same cores, one after the
other in every round, so that other load on the machine affects all of them alike. A ratio is the
median of the rounds' ratios.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.bench.contenders import B, T, embeddings
from study.config.host import available_memory

GIB = 2**30
# Bytes per pair that a contender holds at once, in addition to its inputs.
_BYTES_PER_PAIR = {
    "naive_sigmoid": 12,
    "naive_softmax": 16,
    "chunked_sigmoid": 12,
    "open_clip_sigmoid": 24,
    "open_clip_softmax": 28,
}
_CONTENDERS = {
    "sigmoid": ("matmuls", "naive_sigmoid", "chunked_sigmoid", "open_clip_sigmoid"),
    "softmax": ("naive_softmax", "open_clip_softmax"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Time and memory of one contender.

    Attributes:
      kind: the loss that it computes, "sigmoid" or "softmax", which is also the name of ours.
      seconds: of one value and gradient, the median over rounds.
      ratio: its time over ours in the same round, the median; `ratios` are all of them.
      temp_bytes: temporary memory by the compiler's account; None for PyTorch.
      peak_bytes: growth of resident memory during the first run.
      skipped: why it did not run; None if it did.
    """

    name: str
    kind: str
    batch_size: int
    dim: int
    cores: int
    seconds: float | None = None
    ratio: float | None = None
    ratios: tuple[float, ...] = ()
    temp_bytes: int | None = None
    peak_bytes: int | None = None
    skipped: str | None = None


def bench(
    batch_size: int,
    dim: int,
    *,
    cores: int,
    rounds: int,
    said: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Times both losses and every contender that is installed and fits into memory.

    Arguments:
      said: called with a line on the progress.
    """
    results = []
    for kind, others in _CONTENDERS.items():
        skipped = {name: why for name in others if (why := _skip_reason(name, batch_size))}
        names = [kind, *(name for name in others if name not in skipped)]
        measured: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            run_once = {}
            for name in names:
                said(f"{name}: compiling")
                run_once[name] = stack.enter_context(_contender(name, batch_size, dim, cores))
                measured[name] = run_once[name]() | {"seconds": []}
            for number in range(rounds):
                for name in names:
                    said(f"{name}: round {number + 1} of {rounds}")
                    measured[name]["seconds"].append(run_once[name]()["seconds"])
        for name in (kind, *others):
            values: dict[str, Any] = {"skipped": skipped.get(name)}
            if name in measured:
                seconds, ours = measured[name]["seconds"], measured[kind]["seconds"]
                ratios = tuple(a / b for a, b in zip(seconds, ours, strict=True))
                values = measured[name] | {
                    "seconds": statistics.median(seconds),
                    "ratio": statistics.median(ratios),
                    "ratios": ratios,
                }
            results.append(
                Result(name=name, kind=kind, batch_size=batch_size, dim=dim, cores=cores, **values)
            )
    return results


def _skip_reason(name: str, batch_size: int) -> str | None:
    if name.startswith("open_clip"):
        missing = [m for m in ("torch", "open_clip") if importlib.util.find_spec(m) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (extra: bench)"
    needed, available = _BYTES_PER_PAIR.get(name, 0) * batch_size**2, available_memory()
    if needed <= 0.8 * available:
        return None
    return f"needs about {needed / GIB:.0f} GiB of memory, {available / GIB:.1f} GiB are available"


@contextmanager
def _contender(name: str, batch_size: int, dim: int, cores: int) -> Iterator[Callable[[], Any]]:
    """Starts a process with one contender; yields a function that has it run once.

    The first call waits for the process to be ready and returns what it says of its memory.
    """
    allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[-cores:]))
    process = subprocess.Popen(
        [sys.executable, "-m", "study.bench.contenders", name, str(batch_size), str(dim), allowed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(cores)},
    )
    assert process.stdin and process.stdout and process.stderr
    started = False

    def run_once() -> Any:
        nonlocal started
        assert process.stdin and process.stdout and process.stderr
        if started:
            process.stdin.write("\n")
            process.stdin.flush()
        started = True
        line = process.stdout.readline()
        if not line:
            last = process.stderr.read().strip().splitlines()[-1:]
            raise RuntimeError(f"bench: {name} ended: {''.join(last) or process.wait()}")
        return json.loads(line)

    try:
        yield run_once
    finally:
        process.kill()
        process.communicate()


# --- one whole value-and-gradient of any size -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One value-and-gradient of the sigmoid loss over a whole batch."""

    batch_size: int
    dim: int
    loss: float
    gradient_norm: float
    seconds: float
    pairs_per_s: float
    peak_bytes: int


def whole(
    batch_size: int,
    dim: int,
    *,
    block: int = 16_384,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> Whole:
    """The sigmoid loss and all its gradients, block by block as round a ring of one device.

    Arguments:
      block: images and texts that meet between two calls of `progress`.
      progress: told blocks done, blocks in all and seconds that the rest will take.
    """
    import resource

    import jax
    import jax.numpy as jnp

    zimg, ztxt = embeddings(batch_size, dim)
    block = min(block, -(-batch_size // len(jax.devices())))
    starts = range(0, batch_size, block)
    # As many blocks of images at a time as there are devices, the last ones perhaps one by one.
    groups = [starts[k : k + len(jax.devices())] for k in range(0, len(starts), len(jax.devices()))]
    if batch_size % block or len(groups[-1]) < len(groups[0]):
        groups = [*groups[:-1], *([s] for s in groups[-1])]  # type: ignore[list-item]
    compiled = {}
    for rows in {(len(g), min(block, batch_size - g[-1])) for g in groups}:
        for cols in {min(block, batch_size - s) for s in starts}:  # before the clock starts
            compiled[rows, cols] = _meeting(*rows, cols, dim)
    gimg, gtxt = np.zeros_like(zimg), np.zeros_like(ztxt)
    loss, done, count = 0.0, 0, len(starts) ** 2
    began = time.perf_counter()
    for group in groups:
        rows_x = slice(group[0], min(group[-1] + block, batch_size))
        for j in starts:
            cols_y = slice(j, min(j + block, batch_size))
            key = (len(group), min(block, batch_size - group[-1])), cols_y.stop - cols_y.start
            own = jnp.asarray([i == j for i in group])
            more, gi, gt = compiled[key](zimg[rows_x], ztxt[cols_y], own)
            loss += float(np.sum(more))
            gimg[rows_x] += np.asarray(gi)
            gtxt[cols_y] += np.asarray(gt)
            done += len(group)
            spent = time.perf_counter() - began
            progress(done, count, spent / done * (count - done))
    x_B = np.sum(zimg * ztxt, axis=1)
    l_B = T * x_B + B
    p_B = -np.asarray(jax.nn.sigmoid(-l_B))
    loss = (loss + float(np.sum(np.asarray(jax.nn.softplus(-l_B), np.float64)))) / batch_size
    squares = [np.sum((T * (g + p_B[:, None] * z)) ** 2) for g, z in ((gimg, ztxt), (gtxt, zimg))]
    seconds = time.perf_counter() - began
    return Whole(
        batch_size=batch_size,
        dim=dim,
        loss=loss,
        gradient_norm=float(np.sqrt(sum(squares))) / batch_size,
        seconds=seconds,
        pairs_per_s=batch_size**2 / seconds,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _meeting(devices: int, rows: int, cols: int, dim: int) -> Callable[..., Any]:
    """`(zimg, ztxt, own) -> (summed losses, gimg, gtxt)`: a block of images on each device."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    from study.losses.tiled import sigmoid_negatives

    def meet(x: Any, y: Any, own: Any) -> Any:
        t, b = jnp.float32(T), jnp.float32(B)
        sums, gi, gt = sigmoid_negatives(x, y, t, b, diagonal=own[0], tile=512)
        return sums.loss[None], gi, jax.lax.psum(gt, "data")

    split, whole = P("data"), P()
    mapped = jax.shard_map(
        meet,
        mesh=Mesh(np.array(jax.devices()[:devices]), ("data",)),
        in_specs=(split, whole, split),
        out_specs=(split, split, whole),
        check_vma=False,
    )
    x, y = (jax.ShapeDtypeStruct((n, dim), jnp.float32) for n in (devices * rows, cols))
    return jax.jit(mapped).lower(x, y, jax.ShapeDtypeStruct((devices,), jnp.bool_)).compile()
