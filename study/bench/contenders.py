"""Losses to be timed against each other: ours, and other ways to the same value and gradients.

Each is a function `(zimg, ztxt) -> Timed` that makes ready whatever it needs; `Timed.run` then
does one value-and-gradient. Run as a program, this file is one contender in a process of its own,
so that no other's memory or threads are in its figures.
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
CHUNK = 2048


class Timed(NamedTuple):
    """One value-and-gradient, and what the compiler says it needs beside inputs and outputs."""

    run: Callable[[], Any]
    temp_bytes: int | None


def embeddings(batch_size: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in float32, the same in every process."""
    rng = np.random.default_rng(0)
    z = [rng.standard_normal((batch_size, dim), np.float32) for _ in range(2)]
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in z]
    return unit[0], unit[1]


def _jax(loss: Callable[..., Any], arguments: tuple[Any, ...], has_aux: bool) -> Timed:
    import jax

    numbers = tuple(range(len(arguments)))
    function = jax.jit(jax.value_and_grad(loss, numbers, has_aux=has_aux))
    compiled = function.lower(*arguments).compile()
    return Timed(lambda: jax.block_until_ready(compiled(*arguments)), _temporary(compiled))


def _temporary(compiled: Any) -> int:
    return int(compiled.memory_analysis().temp_size_in_bytes)


def _arguments(zimg: np.ndarray, ztxt: np.ndarray, *scalars: float) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return (jnp.asarray(zimg), jnp.asarray(ztxt), *map(jnp.float32, scalars))


def device_per_core(cores: int) -> dict[str, str]:
    """The environment in which JAX sees a device for each core, each with one thread.

    A tile is too small to be worth sharing between threads, while the ring scales.
    """
    flags = f"--xla_force_host_platform_device_count={cores} --xla_cpu_multi_thread_eigen=false"
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(), "NPROC": str(cores)}


def _ours(loss: Callable[..., Any], *arguments: Any, **more: Any) -> Timed:
    """Our loss on all devices there are, the rows spread over them."""
    import jax
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()), ("data",))
    zimg, ztxt, *scalars = arguments
    z = [jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (zimg, ztxt)]
    return _jax(lambda *a: loss(*a, mesh=mesh, **more), (*z, *scalars), True)


def sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Ours."""
    import jax.numpy as jnp

    from study.config.pairs import AllPairs
    from study.losses import sigmoid_loss

    arguments = _arguments(zimg, ztxt, T, B)
    return _ours(sigmoid_loss, *arguments, pairs=AllPairs(), key=jnp.uint32(0))


def softmax(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Ours."""
    from study.losses import softmax_loss

    return _ours(softmax_loss, *_arguments(zimg, ztxt, T))


def naive_sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Automatic differentiation of the paper's Algorithm 1."""
    from study.losses import naive

    return _jax(naive.sigmoid, _arguments(zimg, ztxt, T, B), False)


def naive_softmax(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """Automatic differentiation of the formula."""
    from study.losses import naive

    return _jax(naive.softmax, _arguments(zimg, ztxt, T), False)


def chunked_sigmoid(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """The ring as public code has it: texts chunk by chunk, but all chunks' logits are kept."""
    import jax
    import jax.numpy as jnp

    def loss(zimg: Any, ztxt: Any, t: Any, b: Any) -> Any:
        rows = len(zimg)
        chunk = math.gcd(CHUNK, rows)
        chunks = ztxt.reshape(rows // chunk, chunk, -1)

        def meet(total: Any, at: Any) -> Any:
            c, ztxt_cxD = at
            logits_Bxc = t * zimg @ ztxt_cxD.T + b
            own = jnp.arange(rows)[:, None] == c * chunk + jnp.arange(chunk)[None, :]
            label = jnp.where(own, 1.0, -1.0)
            return total - jnp.sum(jax.nn.log_sigmoid(label * logits_Bxc)), None

        total, _ = jax.lax.scan(meet, jnp.zeros(()), (jnp.arange(len(chunks)), chunks))
        return total / rows

    return _jax(loss, _arguments(zimg, ztxt, T, B), False)


def matmuls(zimg: np.ndarray, ztxt: np.ndarray) -> Timed:
    """The three matrix products of the loss and nothing else, tile by tile in the best order."""
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

    arguments = _arguments(zimg, ztxt)
    compiled = jax.jit(products).lower(*arguments).compile()
    return Timed(lambda: jax.block_until_ready(compiled(*arguments)), _temporary(compiled))


def _open_clip(name: str, zimg: np.ndarray, ztxt: np.ndarray, scalars: dict[str, float]) -> Timed:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # The file alone: the package as a whole asks for torchvision, and a loss does not.
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
    """`contenders NAME B D CORES`: says when ready, then runs once for each line it is sent."""
    name, batch_size, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cores = sys.argv[4].split(",")
    os.sched_setaffinity(0, set(map(int, cores)))  # before threads are made
    if name in ("sigmoid", "softmax") and batch_size % len(cores) == 0:
        os.environ |= device_per_core(len(cores))
    timed = globals()[name](*embeddings(batch_size, dim))
    # The first run is the one whose memory is not there yet.
    _say(temp_bytes=timed.temp_bytes, peak_bytes=_peak_growth(timed.run))
    for _ in sys.stdin:
        began = time.perf_counter()
        timed.run()
        _say(seconds=time.perf_counter() - began)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _peak_growth(run: Callable[[], Any]) -> int | None:
    """By how much resident memory grows at most during a run; None where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
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
