"""`study bench chaos`: whether a study survives what a cluster does to it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import local


def chaos(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="How long processes are killed.")
    ] = 3.0,
    seed: Annotated[int, typer.Option("--seed", help="Of what is killed, and when.")] = 0,
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", min=1, help="Cells at a time.  [default: cores]"),
    ] = None,
    slice_name: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="TYPE",
            help="Run on a fake slice, such as v4-16, whose hosts are killed.",
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            "--root",
            metavar="DIR",
            callback=local,
            help="A new folder for the records.  [default: a temporary one, kept if they differ]",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """Runs a small study while its workers, hosts, Ray and the driver are killed, then in peace.

    Whenever it was killed, the same command is started again. At the end both have to have the
    same parameters bit for bit and the same rows, none lost and none double. Exit codes: 0 they
    have, 1 they differ (a line for each difference), 2 bad input.
    """
    from study.config.host import cores
    from sweeps.bench import chaos as of
    from sweeps.runner.display import duration
    from sweeps.runner.signals import Stop

    out = sys.stderr if as_json else sys.stdout
    folder = Path(root or tempfile.mkdtemp(prefix="study-chaos-")).absolute()
    done = None
    try:
        with Stop() as stop:
            stop.raises = True
            done = of.chaos(
                folder,
                minutes=minutes,
                seed=seed,
                parallel=parallel or cores(),
                slice_name=slice_name,
                say=lambda text: print(text, file=out, flush=True),
            )
    finally:
        if root is None and (done is None or not done.differences):
            shutil.rmtree(folder, ignore_errors=True)
    for line in done.differences:
        print(line, file=out)
    if done.differences:
        print(f"{len(done.differences)} differences; the records are in {folder}", file=out)
    if as_json:
        print(json.dumps(asdict(done), indent=1))
    else:
        kills = ", ".join(f"{n} of {what}" for what, n in done.kills.items())
        print(
            f"{sum(done.kills.values())} kills ({kills}) and {done.starts} starts in "
            f"{duration(done.seconds[0])}, {done.rounds} rounds; {done.cells} cells in "
            f"{done.attempts} attempts: "
            + (f"{len(done.differences)} differences" if done.differences else "all as in peace")
        )
    return 1 if done.differences else 0
