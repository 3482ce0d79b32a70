"""`study bench data`: our loaders next to webdataset's, Grain's and PyTorch's, on the same bytes.

Contenders (`study.bench.loaders`) run in processes of their own and in turn: each goes on for some
seconds, then stops and keeps its buffers, so a rate is that of a loader in the middle of a run.
Shards are in the page cache. The bucket is a server on loopback that is not counted as a loader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from study.bench.data_inputs import upload, write_embeddings, write_images
from study.bench.gcs_server import Server, environment, server
from study.bench.loaders import SHUFFLE_BUFFER, Inputs
from study.bench.shuffle import Quality, webdataset_order
from study.bench.shuffle import quality as measure_quality
from study.config import Blocks, Global
from study.config.host import cores
from study.data.order import Order

DIMS = (768, 1408)
_IMAGES = (
    "ours_global",
    "ours_blocks",
    "loop",
    "webdataset",
    "grain_threads",
    "grain_processes",
    "grain_tars",
)
_ROWS = ("ours_global", "ours_blocks", "memmap", "grain_rows", "torch_rows", "webdataset")
_NO_SOURCE = {"grain_tars": "Grain has sources of ArrayRecord, TFRecord and Parquet, none of tars"}
_LOCAL_ONLY = {
    "loop": "tarfile reads local files",
    "grain_threads": "Grain's ArrayRecord source opens local files only",
    "grain_processes": "Grain's ArrayRecord source opens local files only",
    "memmap": "np.memmap maps local files",
    "grain_rows": "np.memmap maps local files",
    "torch_rows": "np.memmap maps local files",
}
_NEEDS = {"webdataset": ("torch", "webdataset"), "torch_rows": ("torch",)}
# A split in a bucket is read by ranges, as one that is too large to be copied to this machine.
NO_COPIES = {"STUDY_DATA_CACHE_GB": "0"}
_PATIENCE = 120.0  # seconds without an answer

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One contender on one input, over all rounds; `rates` and the like are of single rounds.

    Attributes:
      case: "images" or "embeddings 768".
      place: "disk" or "bucket".
      per_s, rates: examples per second.
      cpu_s, cpus: CPU seconds of all its processes per 1,000 examples.
      ratio, ratios: our examples per second over its. Ours is read in global order from a disk and
        in blocks order from a bucket.
      cpu_ratio, cpu_ratios: its CPU seconds over ours.
      processes: how many it runs, and `pss`, their bytes of memory, mapped files included, each
        page shared by n processes counted as 1/n.
      sent: bytes that the bucket sends per example, and `requests`, how many it takes.
      with_neighbour, shards: how well it shuffles, by simulation (`study.bench.shuffle.Quality`).
      not_available: why it did not run; None if it did.
    """

    case: str
    place: str
    name: str
    per_s: float | None = None
    rates: tuple[float, ...] = ()
    cpu_s: float | None = None
    cpus: tuple[float, ...] = ()
    ratio: float | None = None
    ratios: tuple[float, ...] = ()
    cpu_ratio: float | None = None
    cpu_ratios: tuple[float, ...] = ()
    processes: int | None = None
    pss: int | None = None
    sent: float | None = None
    requests: float | None = None
    with_neighbour: float | None = None
    shards: float | None = None
    not_available: str | None = None


def bench(
    *,
    images: int = 4096,
    embeddings: int = 32_768,
    image_size: int = 224,
    batch_size: int = 128,
    row_batch_size: int = 1024,
    workers: int | None = None,
    seconds: float = 1.5,
    rounds: int = 3,
    bucket: bool = False,
    log: Log = lambda _: None,
) -> list[Result]:
    """Writes the inputs to a temporary folder, and times all contenders on each.

    Arguments:
      images, embeddings: examples of each input; 0 leaves it out.
      image_size: in pixels, after resizing.
      batch_size, row_batch_size: of images and of embeddings.
      workers: threads or processes of a contender; None for one per core.
      seconds: length of a round.
      bucket: also read from a Google Cloud Storage server, which is started here.
    """
    workers = workers or cores()
    results = []
    with tempfile.TemporaryDirectory(prefix="study-bench-") as name:
        for dim in (0, *DIMS):
            if not (embeddings if dim else images):
                continue
            case = f"embeddings {dim}" if dim else "images"
            log(f"writing {case}")
            folder = Path(name) / case.replace(" ", "-")
            folder.mkdir()
            if dim:
                inputs = write_embeddings(
                    folder,
                    examples=embeddings,
                    dim=dim,
                    batch_size=row_batch_size,
                    workers=workers,
                )
            else:
                inputs = write_images(
                    folder,
                    examples=images,
                    image_size=image_size,
                    batch_size=batch_size,
                    workers=workers,
                )
            time_on = functools.partial(
                _time_all, case=case, seconds=seconds, rounds=rounds, log=log
            )
            results += time_on(inputs, place="disk", traffic=lambda: (0, 0))
            if bucket:
                with server(folder) as running, environment(running.environment):
                    log(f"{case}: uploading")
                    where = running.bucket()
                    remote = upload(inputs, running, where)
                    traffic = functools.partial(count_traffic, running, where)
                    results += time_on(remote, place="bucket", traffic=traffic)
    return results


# --- rounds -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Round:
    """What one contender did and used in one round."""

    examples: int
    seconds: float
    cpu_s: float
    pss: int
    processes: int
    sent: int
    requests: int

    @property
    def per_s(self) -> float:
        return self.examples / self.seconds

    @property
    def cpu_s_per_1000(self) -> float:
        # The kernel counts hundredths of a second.
        return 1000 * max(self.cpu_s, 0.01) / self.examples


def _time_all(
    inputs: Inputs,
    *,
    case: str,
    place: str,
    traffic: Callable[[], tuple[int, int]],
    seconds: float,
    rounds: int,
    log: Log,
) -> list[Result]:
    """Times the contenders in turn, `rounds` times."""
    names = _ROWS if inputs.dim else _IMAGES
    reasons = {name: reason for name in names if (reason := _reason(name, place))}
    measured: dict[str, list[_Round]] = {}
    with ExitStack() as stack:
        running = {}
        for name in (name for name in names if name not in reasons):
            log(f"{case}, {place}: starting {name}")
            contender = _Contender(name, inputs, seconds)
            stack.callback(contender.kill)
            try:
                contender.wait()
            except RuntimeError as error:
                reasons[name] = str(error)
            else:
                running[name], measured[name] = contender, []
        for number in range(rounds):
            for name, contender in running.items():
                log(f"{case}, {place}: {name}, round {number + 1} of {rounds}")
                measured[name].append(contender.run(traffic))
    ours = measured.get("ours_global" if place == "disk" else "ours_blocks", [])
    return [
        _summarize(case, place, name, measured.get(name, []), ours, reasons.get(name))
        for name in names
    ]


def _reason(name: str, place: str) -> str | None:
    """Why a contender cannot run; None if it can."""
    if name in _NO_SOURCE or (place == "bucket" and name in _LOCAL_ONLY):
        return _NO_SOURCE.get(name) or _LOCAL_ONLY[name]
    missing = [m for m in _NEEDS.get(name, ()) if importlib.util.find_spec(m) is None]
    return f"{' and '.join(missing)} not installed (extra: bench)" if missing else None


def _summarize(
    case: str, place: str, name: str, own: list[_Round], ours: list[_Round], reason: str | None
) -> Result:
    if not own:
        return Result(case=case, place=place, name=name, not_available=reason)
    total, our_total = _add(own), _add(ours) if ours else None
    quality = _simulate(name)
    pairs = list(zip(ours, own, strict=True)) if ours else []
    return Result(
        case=case,
        place=place,
        name=name,
        per_s=total.per_s,
        rates=tuple(r.per_s for r in own),
        cpu_s=total.cpu_s_per_1000,
        cpus=tuple(r.cpu_s_per_1000 for r in own),
        ratio=our_total.per_s / total.per_s if our_total else None,
        ratios=tuple(a.per_s / b.per_s for a, b in pairs),
        cpu_ratio=total.cpu_s_per_1000 / our_total.cpu_s_per_1000 if our_total else None,
        cpu_ratios=tuple(b.cpu_s_per_1000 / a.cpu_s_per_1000 for a, b in pairs),
        processes=total.processes,
        pss=total.pss,
        sent=total.sent / total.examples if place == "bucket" else None,
        requests=total.requests / total.examples if place == "bucket" else None,
        with_neighbour=quality.with_neighbour,
        shards=quality.shards,
    )


def _add(rounds: list[_Round]) -> _Round:
    """All rounds as one. A loader goes on where it stopped, so its buffers count once only."""
    return _Round(
        examples=sum(r.examples for r in rounds),
        seconds=sum(r.seconds for r in rounds),
        cpu_s=sum(r.cpu_s for r in rounds),
        pss=max(r.pss for r in rounds),
        processes=max(r.processes for r in rounds),
        sent=sum(r.sent for r in rounds),
        requests=sum(r.requests for r in rounds),
    )


@functools.cache
def _simulate(name: str) -> Quality:
    """How well a loader shuffles a set of 32 shards."""
    shard = 8192
    size = 32 * shard
    if name == "loop":
        index_N = np.arange(size)
    elif name == "webdataset":
        index_N = webdataset_order(size, shard=shard, buffer=SHUFFLE_BUFFER)
    else:  # the others permute all examples
        kind = Blocks() if name == "ours_blocks" else Global()
        index_N = Order.of([size], seed=0, kind=kind).indices(np.arange(size))
    return measure_quality(index_N, batch_size=1024, shard=shard)


class _Contender:
    """A process that runs one contender, stopped between rounds.

    Raises:
      RuntimeError: from `wait` and `run`, if it ends or does not answer.
    """

    def __init__(self, name: str, inputs: Inputs, seconds: float):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        code = "from study.bench.loaders import main; main()"
        arguments = [name, json.dumps(dataclasses.asdict(inputs)), str(seconds)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | NO_COPIES,
        )
        self._root = psutil.Process(self._process.pid)

    def wait(self) -> dict[str, Any]:
        """Its next answer, once it has stopped."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().splitlines()
            errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
            reason = errors[-1] if errors else f"it ended with {self._process.returncode}"
            raise RuntimeError(reason if ready else f"no answer in {_PATIENCE:.0f} s")
        while self._root.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        return json.loads(line)

    def run(self, traffic: Callable[[], tuple[int, int]]) -> _Round:
        """One round."""
        cpu_s, (sent, requests) = self._cpu(), traffic()
        for process in (*self._root.children(recursive=True), self._root):
            process.resume()
        answer = self.wait()
        sent_after, requests_after = traffic()
        tree = [self._root, *self._root.children(recursive=True)]
        return _Round(
            **answer,
            cpu_s=self._cpu() - cpu_s,
            pss=sum(process.memory_full_info().pss for process in tree),
            processes=len(tree),
            sent=sent_after - sent,
            requests=requests_after - requests,
        )

    def _cpu(self) -> float:
        """CPU seconds so far of the process and its children, ended ones included."""
        times = [p.cpu_times() for p in (self._root, *self._root.children(recursive=True))]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*self._root.children(recursive=True), self._root):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()
        for file in (self._process.stdout, self._errors):
            assert file is not None
            file.close()


def count_traffic(running: Server, bucket: str) -> tuple[int, int]:
    """Bytes that a bucket's server has sent so far, and the requests for them."""
    return running.written_bytes(), len(running.requests(bucket))
