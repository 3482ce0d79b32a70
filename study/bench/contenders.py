"""Losses to time against each other: ours, and other ways to the same value and gradients.

A contender is a function `(zimg_BxD, ztxt_BxD) -> Timed` that compiles what it needs; `Timed.run`
then computes value and gradients once. As a program (`python -m study.bench.contenders`) this file
runs one contender, so that no other shares its memory and threads.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Initial values of the paper; speed does not depend on them.
T, B = 10.0, -10.0
HARD_PER_POSITIVE = 2
CHUNK = 2048


class Timed(NamedTuple):
    """One value and gradient, and the compiler's temporary memory for it (None for PyTorch)."""

    run: Callable[[], Any]
    temp_bytes: int | None


def embeddings(batch_size: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in float32, the same in every process."""
    rng = np.random.default_rng(0)
    z = [rng.standard_normal((batch_size, dim), np.float32) for _ in range(2)]
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in z]
    return unit[0], unit[1]


def _compile(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Timed:
    import jax

    compiled = jax.jit(function).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    return Timed(
        lambda: jax.block_until_ready(compiled(*arguments)), int(memory.temp_size_in_bytes)
    )


def _value_and_grad(
    loss: Callable[..., Any], arguments: tuple[Any, ...], *, has_aux: bool = False
) -> Timed:
    import jax

    numbers = tuple(range(len(arguments)))
    return _compile(jax.value_and_grad(loss, numbers, has_aux=has_aux), arguments)


def _arguments(zimg: np.ndarray, ztxt: np.ndarray, *scalars: float) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return (jnp.asarray(zimg), jnp.asarray(ztxt), *map(jnp.float32, scalars))


def _ours(loss: Callable[..., Any], *arguments: Any, **more: Any) -> Timed:
    """Our loss, its rows spread over all devices."""
    import jax
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()), ("data",))
    zimg, ztxt, *scalars = arguments
    z = [jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (zimg, ztxt)]
    return _value_and_grad(lambda *a: loss(*a, mesh=mesh, **more), (*z, *scalars), has_aux=True)


def sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Ours."""
    import jax.numpy as jnp

    from study.config.loss import AllPairs
    from study.losses import sigmoid_loss

    arguments = _arguments(zimg, ztxt, T, B)
    return _ours(sigmoid_loss, *arguments, pairs=AllPairs(), key=jnp.uint32(0))


def softmax(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Ours."""
    from study.losses import softmax_loss

    return _ours(softmax_loss, *_arguments(zimg, ztxt, T))


def hard(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Ours, with the hardest negatives only."""
    import jax.numpy as jnp

    from study.config.loss import Negatives
    from study.losses import sigmoid_loss

    pairs = Negatives(keep="hard", per_positive=HARD_PER_POSITIVE)
    arguments = _arguments(zimg, ztxt, T, B)
    return _ours(sigmoid_loss, *arguments, pairs=pairs, key=jnp.uint32(0))


def naive_hard(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Automatic differentiation of the formula, with the threshold by `jax.lax.top_k`."""
    from study.losses import naive

    def loss(*arguments: Any) -> Any:
        return naive.hard_sigmoid(*arguments, per_positive=HARD_PER_POSITIVE)

    return _value_and_grad(loss, _arguments(zimg, ztxt, T, B))


def naive_sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Automatic differentiation of the paper's Algorithm 1."""
    from study.losses import naive

    return _value_and_grad(naive.sigmoid, _arguments(zimg, ztxt, T, B))


def naive_softmax(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Automatic differentiation of the formula."""
    from study.losses import naive

    return _value_and_grad(naive.softmax, _arguments(zimg, ztxt, T))


def chunked_sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """The loss chunk by chunk as in public code, whose backward pass keeps every chunk's logits."""
    import jax
    import jax.numpy as jnp

    def loss(zimg: Any, ztxt: Any, t: Any, b: Any) -> Any:
        rows = len(zimg)
        chunk = math.gcd(CHUNK, rows)
        chunks = ztxt.reshape(rows // chunk, chunk, -1)

        def add_chunk(total: Any, xs: Any) -> Any:
            c, ztxt_cxD = xs
            logits_Bxc = t * zimg @ ztxt_cxD.T + b
            own = jnp.arange(rows)[:, None] == c * chunk + jnp.arange(chunk)[None, :]
            label = jnp.where(own, 1.0, -1.0)
            return total - jnp.sum(jax.nn.log_sigmoid(label * logits_Bxc)), None

        total, _ = jax.lax.scan(add_chunk, jnp.zeros(()), (jnp.arange(len(chunks)), chunks))
        return total / rows

    return _value_and_grad(loss, _arguments(zimg, ztxt, T, B))


def matmuls(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Only the three matrix products of the loss, tile by tile in the same order."""
    import jax
    import jax.numpy as jnp

    def products(zimg: Any, ztxt: Any, tile: int = 512) -> Any:
        dim = zimg.shape[1]
        tile = math.gcd(tile, len(zimg))
        rows, cols = zimg.reshape(-1, tile, dim), ztxt.reshape(-1, tile, dim)

        def row(gtxt: Any, zimg_TxD: Any) -> Any:
            def col(gimg: Any, at: Any) -> Any:
                ztxt_TxD, gtxt_DxT = at
                l_TxT = zimg_TxD @ ztxt_TxD.T
                return gimg + l_TxT @ ztxt_TxD, gtxt_DxT + zimg_TxD.T @ l_TxT

            gimg, gtxt = jax.lax.scan(col, jnp.zeros_like(zimg_TxD), (cols, gtxt))
            return gtxt, gimg

        return jax.lax.scan(row, jnp.zeros((len(cols), dim, tile)), rows)

    return _compile(products, _arguments(zimg, ztxt))


def _open_clip(name: str, zimg: np.ndarray, ztxt: np.ndarray, scalars: dict[str, float]) -> Timed:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # Load the file alone: importing the package would need torchvision.
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "loss.py"
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = getattr(module, name)()
    z = [torch.tensor(a, requires_grad=True) for a in (zimg, ztxt)]
    learned = {k: torch.tensor(v, requires_grad=True) for k, v in scalars.items()}

    def run() -> None:
        for leaf in (*z, *learned.values()):
            leaf.grad = None
        loss(*z, **learned).backward()

    return Timed(run, None)


def open_clip_sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """open_clip's `SigLipLoss`."""
    return _open_clip("SigLipLoss", zimg, ztxt, {"logit_scale": T, "logit_bias": B})


def open_clip_softmax(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """open_clip's `ClipLoss`."""
    return _open_clip("ClipLoss", zimg, ztxt, {"logit_scale": T})


def main() -> None:
    """`contenders NAME B D CORES`: reports its memory, then runs once per line of its input."""
    name, batch_size, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cores = sys.argv[4].split(",")
    os.sched_setaffinity(0, set(map(int, cores)))  # before threads start
    if name in ("sigmoid", "softmax", "hard") and batch_size % len(cores) == 0:
        # Our loss gets one device per core, each with one thread: a tile is too small to split
        # between threads, while the ring scales with devices.
        flags = (
            f"--xla_force_host_platform_device_count={len(cores)} "
            "--xla_cpu_multi_thread_eigen=false"
        )
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        os.environ["NPROC"] = str(len(cores))
    timed = globals()[name](*embeddings(batch_size, dim))
    # Only the first run allocates its memory.
    memory = {"temp_bytes": timed.temp_bytes, "peak_bytes": _peak_growth(timed.run)}
    print(json.dumps(memory), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        timed.run()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def _peak_growth(run: Callable[[], Any]) -> int | None:
    """Growth of resident memory during a run, at its peak; None if Linux does not report it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        run()
        return _status("VmHWM") - before
    except OSError:
        return None


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(field)


if __name__ == "__main__":
    main()
