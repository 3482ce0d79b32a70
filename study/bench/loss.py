"""`study bench loss`: time and memory of our losses' value and gradients, next to other ways.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from study.config.host import available_memory

GIB = 2**30
# Bytes per pair that a contender holds at once, in addition to its inputs.
_BYTES_PER_PAIR = {
    "naive_sigmoid": 12,
    "naive_softmax": 16,
    "naive_hard": 28,
    "chunked_sigmoid": 12,
    "open_clip_sigmoid": 24,
    "open_clip_softmax": 28,
}
_CONTENDERS = {
    "sigmoid": ("matmuls", "naive_sigmoid", "chunked_sigmoid", "open_clip_sigmoid"),
    "softmax": ("naive_softmax", "open_clip_softmax"),
    "hard": ("naive_hard",),
}
_SORTS_UP_TO = 4096  # the batch size up to which all B * B logits are sorted, for seconds each time


@dataclass(frozen=True, kw_only=True)
class Result:
    """Time and memory of one contender.

    Attributes:
      kind: the loss that it computes, which is also the name of ours: "sigmoid", "softmax", or
        "hard", the sigmoid loss of the hardest negatives.
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
    log: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Times our losses and every contender that is installed and fits into memory.

    Arguments:
      log: called with a line on the progress.
    """
    results = []
    for kind, others in _CONTENDERS.items():
        skipped = {name: why for name in others if (why := _skip_reason(name, batch_size))}
        names = [kind, *(name for name in others if name not in skipped)]
        measured: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            run_once = {}
            for name in names:
                log(f"{name}: compiling")
                run_once[name] = stack.enter_context(_contender(name, batch_size, dim, cores))
                measured[name] = run_once[name]() | {"seconds": []}
            for number in range(rounds):
                for name in names:
                    log(f"{name}: round {number + 1} of {rounds}")
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
    if name == "naive_hard" and batch_size > _SORTS_UP_TO:
        return f"sorts all logits; give a --batch-size up to {_SORTS_UP_TO}"
    needed, available = _BYTES_PER_PAIR.get(name, 0) * batch_size**2, available_memory()
    if needed <= 0.8 * available:
        return None
    return f"needs about {needed / GIB:.0f} GiB of memory, {available / GIB:.1f} GiB are available"


@contextmanager
def _contender(name: str, batch_size: int, dim: int, cores: int) -> Iterator[Callable[[], Any]]:
    """Starts a process with one contender; yields a function that has it run once.

    The first call waits for the process to be ready and returns the memory that it reports.
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
