"""`study bench`: how fast the parts are, beside other ways to do the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sweeps.cli.bench_chaos import chaos
from sweeps.cli.bench_loss import loss
from sweeps.cli.bench_step import step
from sweeps.cli.bench_sweep import sweep

app = typer.Typer(
    help="Times parts of a study beside other ways to do the same, in one run on the same inputs.",
    epilog="Example: study bench loss --batch-size 16384 --dim 64",
    no_args_is_help=True,
    rich_markup_mode=None,
)


app.command(epilog="Example: study bench loss --batch-size 16384 --dim 64 --cores 1")(loss)
app.command(epilog="Example: study bench step --cell siglip --loss softmax --rounds 11")(step)
app.command(epilog="Example: study bench sweep table-8 --pool v4-32=8")(sweep)
app.command(epilog="Example: study bench chaos --minutes 3 --seed 0")(chaos)


@app.command(epilog="Example: study bench data --images 2048 --json")
def data(
    images: Annotated[int, typer.Option("--images", min=1, help="JPEGs to decode.")] = 512,
    embeddings: Annotated[
        int, typer.Option("--embeddings", min=1, help="Cached embeddings to read.")
    ] = 32_768,
    image_size: Annotated[
        int, typer.Option("--image-size", min=1, help="Pixels of a side after resizing.")
    ] = 224,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples.")] = 256,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads that decode.  [default: one for each core]"),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times each is timed.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: JSON on standard output.")
    ] = False,
) -> int:
    """Loading: images against a plain Python loop, embeddings against Grain by the element."""
    from study.bench.data import bench
    from sweeps.cli.table import table
    from sweeps.study import StudyError

    if min(images, embeddings) < batch_size:
        raise StudyError(
            f"--batch-size {batch_size}: each input needs one whole batch; raise --images and "
            "--embeddings, or lower it"
        )
    results = bench(
        images=images,
        embeddings=embeddings,
        image_size=image_size,
        batch_size=batch_size,
        threads=threads,
        rounds=rounds,
    )
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return 0
    rows = [
        (
            r.name,
            f"{r.examples:,}",
            f"{r.ours_per_s:,.0f}",
            f"{r.theirs_per_s:,.0f}",
            f"{r.ratio:.2f} ({min(r.ratios):.2f} to {max(r.ratios):.2f})",
            r.against,
        )
        for r in results
    ]
    head = ("input", "examples", "ours ex/s", "theirs ex/s", "ratio (rounds)", "against")
    print(table(head, rows, right={1, 2, 3}))
    return 0
