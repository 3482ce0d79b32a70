"""`study cluster`: a Ray cluster to try a study on that wants slices."""

from __future__ import annotations

import time
from typing import Annotated

import typer

app = typer.Typer(
    help="Ray clusters for studies that want TPU slices.",
    epilog="Example: study cluster fake --slice v4-16 --slice v4-8",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Keeps `fake` a verb of its own while it is the only one."""


@app.command(epilog="Example: study cluster fake --slice v4-16 --slice v4-8")
def fake(
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="TYPE",
            help="A whole slice, such as v4-16, or cpu, a host without. May be repeated.",
        ),
    ] = None,
) -> int:
    """Starts TPU slices that are not there, on this machine, until Ctrl-C.

    Every host is a Ray node whose JAX finds CPU devices, so a study of several hosts and several
    kinds of slices runs on a laptop as it would on TPUs, only slower. A slice that loses a host
    (kill one of its raylets) is replaced.
    """
    from sweeps.ray_cluster.fake_tpu import fake_slices
    from sweeps.ray_cluster.local import quiet, temporary
    from sweeps.runner.signals import INTERRUPTED, Stop

    kinds = slices or ["v4-8"]
    with Stop() as stop, temporary() as temp, quiet(temp / "driver.log") as terminal:
        stop.raises = True
        print(f"starting {', '.join(kinds)}", file=terminal, flush=True)
        try:
            with fake_slices(kinds, temp) as up:
                stop.listen()  # Ray has put a handler of its own in
                print(
                    f"ready at {up.address} (Ctrl-C ends it)\n"
                    f"in another terminal: study run STUDY --address {up.address}",
                    file=terminal,
                    flush=True,
                )
                while not stop.asked:
                    time.sleep(0.5)
                    for lost, new in up.replace():
                        print(f"{lost} has lost a host; {new} is up", file=terminal, flush=True)
        except KeyboardInterrupt:
            pass
    return INTERRUPTED
