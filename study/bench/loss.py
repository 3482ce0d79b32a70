"""`study bench loss`: time and memory of the losses' value-and-gradient, beside other ways.

Contenders run in processes of their own on the same inputs and the same cores, one after the
other in every round, so that whatever else the machine does falls on all of them alike. A ratio
is the median of the rounds' ratios.
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
# Bytes per pair that a contender holds at once, beside inputs; from models.md, section 0.
_HELD = {
    "naive_sigmoid": 12, "naive_softmax": 16, "chunked_sigmoid": 12, "open_clip_sigmoid": 24,
    "open_clip_softmax": 28,
}  # fmt: skip
_AGAINST = {
    "sigmoid": ("matmuls", "naive_sigmoid", "chunked_sigmoid", "open_clip_sigmoid"),
    "softmax": ("naive_softmax", "open_clip_softmax"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One contender beside ours of the same kind.

    ratio: its time over ours, the median over rounds; `ratios` are all of them.
    temp_bytes: the compiler's account (None for torch). peak_bytes: growth of resident memory.
    skipped: why it did not run.
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
    """Both losses beside all contenders that are installed and fit into memory.

    said: told what is going on.
    """
    results = []
    for kind, others in _AGAINST.items():
        skipped = {name: why for name in others if (why := _why_not(name, batch_size))}
        names = [kind, *(name for name in others if name not in skipped)]
        found = _rounds(names, batch_size, dim, cores, rounds, said)
        ours = found[kind]["seconds"]
        for name in (kind, *others):
            common: dict[str, Any] = {
                "name": name,
                "kind": kind,
                "batch_size": batch_size,
                "dim": dim,
            }
            if name in skipped:
                results.append(Result(**common, cores=cores, skipped=skipped[name]))
                continue
            its = found[name]
            ratios = tuple(a / b for a, b in zip(its["seconds"], ours, strict=True))
            results.append(
                Result(
                    **common,
                    cores=cores,
                    seconds=statistics.median(its["seconds"]),
                    ratio=statistics.median(ratios),
                    ratios=ratios,
                    temp_bytes=its["temp_bytes"],
                    peak_bytes=its["peak_bytes"],
                )
            )
    return results


def _why_not(name: str, batch_size: int) -> str | None:
    if name.startswith("open_clip"):
        missing = [m for m in ("torch", "open_clip") if importlib.util.find_spec(m) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (extra: bench)"
    need, have = _HELD.get(name, 0) * batch_size**2, available_memory()
    if need <= 0.8 * have:
        return None
    return f"needs about {need / GIB:.0f} GiB of memory, {have / GIB:.1f} GiB are available"


def _rounds(
    names: list[str], batch_size: int, dim: int, cores: int, rounds: int, said: Any
) -> dict[str, dict[str, Any]]:
    with ExitStack() as stack:
        found = {}
        asks = {}
        for name in names:
            said(f"{name}: compiling")
            asks[name] = stack.enter_context(_contender(name, batch_size, dim, cores))
            found[name] = asks[name]() | {"seconds": []}
        for number in range(rounds):
            for name, ask in asks.items():
                said(f"{name}: round {number + 1} of {rounds}")
                found[name]["seconds"].append(ask()["seconds"])
        return found


@contextmanager
def _contender(name: str, batch_size: int, dim: int, cores: int) -> Iterator[Callable[[], Any]]:
    """A process with one contender; what is yielded asks it to run once and returns its answer."""
    allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[-cores:]))
    module = "study.bench.contenders"
    command = [sys.executable, "-m", module, name, str(batch_size), str(dim), allowed]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(cores)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin and process.stdout and process.stderr
    first = True

    def ask() -> Any:
        nonlocal first
        assert process.stdin and process.stdout and process.stderr
        if not first:
            process.stdin.write("\n")
            process.stdin.flush()
        first = False
        line = process.stdout.readline()
        if not line:
            last = process.stderr.read().strip().splitlines()[-1:]
            raise RuntimeError(f"bench: {name} ended: {''.join(last) or process.wait()}")
        return json.loads(line)

    try:
        yield ask
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

    from study.losses.tiles import sigmoid_negatives

    def meet(x: Any, y: Any, own: Any) -> Any:
        t, b = jnp.float32(T), jnp.float32(B)
        sums, gi, gt = sigmoid_negatives(x, y, t, b, diagonal=own[0], tile=512)
        return sums.add[0][None], gi, jax.lax.psum(gt, "data")

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
