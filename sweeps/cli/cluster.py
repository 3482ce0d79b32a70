"""`study cluster`: a local Ray cluster with fake TPU slices."""

from __future__ import annotations

import time
from typing import Annotated

import typer

app = typer.Typer(
    help="Start Ray clusters for trying out studies.",
    epilog="Example: study cluster fake --slice v4-16 --slice v4-8",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """Makes Typer treat `fake` as a subcommand although it is the only one."""


@app.command(epilog="Example: study cluster fake --slice v4-16 --slice v4-8")
def fake(
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="TYPE",
            show_default="v4-8",
            help="A slice, such as v4-16, or cpu for a host without TPUs (repeatable).",
        ),
    ] = None,
) -> int:
    """Start fake TPU slices on this machine, until Ctrl-C.

    Every host is a Ray node whose JAX has CPU devices, so a study of several hosts and slice types
    runs on a laptop as it would on TPUs, only slower. A slice that loses a host (kill one of its
    raylets) is replaced.
    """
    from sweeps.ray_cluster.fake_tpu import fake_slices
    from sweeps.ray_cluster.temporary import quiet, temporary
    from sweeps.runner.signals import INTERRUPTED, Stop

    types = slices or ["v4-8"]
    with Stop() as stop, temporary() as temp, quiet(temp / "driver.log") as terminal:
        stop.raises = True
        print(f"starting {', '.join(types)}", file=terminal, flush=True)
        try:
            with fake_slices(types, temp) as cluster:
                stop.listen()  # Ray has installed its own handler
                print(
                    f"ready at {cluster.address} (Ctrl-C stops it)\n"
                    f"in another terminal: study run STUDY --address {cluster.address}",
                    file=terminal,
                    flush=True,
                )
                while not stop.asked:
                    time.sleep(0.5)
                    for lost, new in cluster.replace():
                        print(f"{lost} has lost a host; {new} is up", file=terminal, flush=True)
        except KeyboardInterrupt:
            pass
    return INTERRUPTED
