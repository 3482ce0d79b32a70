"""`study bench loss`: our losses beside other ways to the same value and gradients."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sweeps.cli.table import table
from sweeps.runner.display import duration
from sweeps.study import StudyError

# From here on only one whole value-and-gradient is done: nothing else would fit or end.
WHOLE_FROM = 65_536


def loss(
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", min=2, help="Examples; may be given several times."),
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option("--dim", min=1, help="Width of the embeddings; may be given several times."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores to use.  [default: all]")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times each is timed.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """Value and gradients of both losses: time and memory beside other ways to the same.

    Ratios are a contender's time over ours: above 1, ours is faster; beside `matmuls`, the bare
    matrix products, a ratio is the share of the machine's own rate that ours reaches. From a batch
    size of 65,536 one whole value-and-gradient of the sigmoid loss is done instead.
    """
    from study.bench import loss as benches
    from study.config import host

    have = host.cores()
    if cores is not None and cores > have:
        raise StudyError(f"--cores {cores}: this process may use {have}")
    results = []
    for width in dim or [64, 768]:
        for size in batch_size or [4096, 16_384]:
            if size >= WHOLE_FROM:
                results.append(asdict(_whole(benches, size, width, cores or have, as_json)))
                continue
            found = benches.bench(size, width, cores=cores or have, rounds=rounds, said=_said)
            results += [asdict(r) for r in found]
            if not as_json:
                _said("")
                print(f"B = {size:,}, D = {width}, {cores or have} of {have} cores")
                print(_shown(found) + "\n")
    if as_json:
        print(json.dumps(results, indent=1))
    return 0


def _said(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _shown(found: list[Any]) -> str:
    def mib(x: int | None) -> str:
        return "" if x is None else f"{x / 2**20:,.1f}"

    rows = [
        (r.kind, r.name, r.skipped, "", "", "")
        if r.skipped
        else (
            r.kind,
            "ours" if r.name == r.kind else r.name,
            f"{r.seconds * 1e3:,.1f}",
            f"{r.ratio:.2f} ({min(r.ratios):.2f} to {max(r.ratios):.2f})",
            mib(r.temp_bytes),
            mib(r.peak_bytes),
        )
        for r in found
    ]
    head = ("loss", "contender", "ms", "its time / ours (rounds)", "temporary MiB", "resident MiB")
    return table(head, rows, right={2, 4, 5})


def _whole(benches: Any, batch_size: int, dim: int, cores: int, quiet: bool) -> Any:
    """One whole value-and-gradient, with what it will take said before and a bar meanwhile."""
    from study.bench import contenders

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-cores:]))
    os.environ |= contenders.device_per_core(cores)  # before JAX is imported
    trial = benches.whole(min(batch_size, 16_384), dim)
    estimate = trial.seconds * (batch_size / trial.batch_size) ** 2
    print(
        f"B = {batch_size:,}, D = {dim}: {batch_size**2:.3g} pairs, about {duration(estimate)} on "
        f"{cores} cores at {trial.pairs_per_s:.3g} pairs/s",
        file=sys.stderr,
        flush=True,
    )
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("blocks"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )

    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, count: int, left: float) -> None:
            bar.update(task, total=count, completed=done, description=f"{duration(left)} left")
            if bar.disable and done * 10 // count > (done - 1) * 10 // count:
                print(
                    f"{done} of {count} blocks, {duration(left)} left", file=sys.stderr, flush=True
                )

        found = benches.whole(batch_size, dim, progress=progress)
    if not quiet:
        print(
            f"loss {found.loss:.6f}, gradient norm {found.gradient_norm:.6g}, "
            f"{duration(found.seconds)}, {found.pairs_per_s:.3g} pairs/s, "
            f"at most {found.peak_bytes / 2**30:.2f} GiB resident"
        )
    return found
