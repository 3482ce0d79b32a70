"""`study bench`: time parts of a study next to another way to do the same work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sweeps.cli.bench_data import bucket, data
from sweeps.cli.bench_options import Rounds, median_and_range, print_json
from sweeps.cli.bench_rows import rows
from sweeps.cli.bench_runner import append_measurements, chaos, claims, sweep
from sweeps.cli.help import describe
from sweeps.cli.options import Json, RecordRatio
from sweeps.cli.table import table
from sweeps.study import StudyError

app = typer.Typer(
    help="Measure parts of a study against an alternative.",
    epilog="Example: study bench loss --batch-size 16384 --dim 64",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command(epilog="Example: study bench sweep table-8 --pool v4-32=8")(sweep)
app.command(epilog="Example: study bench data --bucket")(data)
app.command(
    help=describe("bench bucket", bucket), epilog="Example: study bench bucket --folder /tmp/glyphs"
)(bucket)
app.command(epilog="Example: study bench rows --bucket gs://lab/scratch")(rows)
app.command(epilog="Example: study bench claims --workers 300 --cells 3000")(claims)
app.command(
    help=describe("bench chaos", chaos), epilog="Example: study bench chaos --minutes 3 --seed 0"
)(chaos)


@app.command(epilog="Example: study bench loss --batch-size 16384 --dim 64 --cores 1")
def loss(
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="B", min=2, show_default="4096 and 16384", help="Examples (repeatable)."
        ),
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            metavar="D",
            min=1,
            show_default="64 and 768",
            help="Width of the embeddings (repeatable).",
        ),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default="all", help="Cores to use.")
    ] = None,
    rounds: Rounds = 3,
    record: RecordRatio = False,
    as_json: Json = False,
) -> int:
    """Time our losses against other implementations.

    Measures value and gradients. A ratio is the other's time over ours: above 1, ours is faster.
    The ratio of `matmuls`, the bare matrix products, is the share of the machine's own speed that
    ours reaches.
    """
    from study.bench import loss as bench_loss
    from study.config import host
    from sweeps.runner.display import ProgressLine

    available = host.cores()
    if cores is not None and cores > available:
        raise StudyError(f"--cores {cores}: this process may use {available}")
    cores = cores or available
    results: list[Any] = []
    for d in dim or [64, 768]:
        for b in batch_size or [4096, 16_384]:
            with ProgressLine() as progress:
                timed = bench_loss.bench(b, d, cores=cores, rounds=rounds, log=progress)
            results += timed
            if not as_json:
                print(f"B = {b:,}, D = {d}, {cores} of {available} cores\n{_loss_table(timed)}\n")
    if as_json:
        print_json(results)
    if record:
        append_measurements(
            (
                "loss",
                f"{r.kind}, B = {r.batch_size:,}, D = {r.dim}, {cores} of {available} cores",
                f"{r.name} time / ours",
                _ratio(r),
            )
            for r in results
            if r.ratios and r.name != r.kind
        )
    return 0


def _loss_table(results: list[Any]) -> str:
    def mib(n: int | None) -> str:
        return "" if n is None else f"{n / 2**20:,.1f}"

    rows = []
    for r in results:
        name = "ours" if r.name == r.kind else r.name
        row = (r.skipped, "", "", "")
        if not r.skipped:
            row = (f"{r.seconds * 1e3:,.1f}", _ratio(r), mib(r.temp_bytes), mib(r.peak_bytes))
        rows.append((r.kind, name, *row))
    head = ("loss", "implementation", "ms", "its time / ours", "temporary MiB", "resident MiB")
    return table(head, rows, right={2, 4, 5})


@app.command(epilog="Example: study bench step --cell siglip --loss softmax --rounds 11")
def step(
    cell: Annotated[
        Literal["siglit", "siglip"] | None,
        typer.Option(
            show_default="both", help="siglit trains on cached images, siglip trains both towers."
        ),
    ] = None,
    loss: Annotated[Literal["sigmoid", "softmax"], typer.Option(help="The loss.")] = "sigmoid",
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="B",
            min=2,
            show_default="1024 for siglit, 64 for siglip",
            help="Examples per step.",
        ),
    ] = None,
    variant: Annotated[
        str, typer.Option(metavar="SIZE/PATCH", help="siglip: the towers, such as B/16.")
    ] = "mu/8",
    image_size: Annotated[
        int, typer.Option(metavar="PIXELS", min=1, help="siglip: image size.")
    ] = 32,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps per round.")] = 20,
    rounds: Rounds = 7,
    record: RecordRatio = False,
    as_json: Json = False,
) -> int:
    """Time our training step against plain flax and PyTorch.

    Runs on one device. A ratio is our time over the other's: below 1, ours is faster. PyTorch
    trains Hugging Face's SiglipModel of the same sizes, if it is installed. The last column is the
    relative difference between the parameters that our step and the plain one end with.
    """
    import pydantic

    from study.bench import step as bench_step
    from study.config import Sigmoid, Softmax
    from study.config.cell import explain
    from sweeps.runner.display import ProgressLine

    loss_of = Sigmoid() if loss == "sigmoid" else Softmax()
    results = []
    with ProgressLine() as progress:
        for kind in [cell] if cell else ["siglit", "siglip"]:
            try:
                if kind == "siglit":
                    config, image = bench_step.siglit(batch_size or 1024, loss_of, steps)
                else:
                    config, image = bench_step.siglip(
                        batch_size or 64, loss_of, steps, variant=variant, image_size=image_size
                    )
            except pydantic.ValidationError as error:
                raise StudyError(explain(error)) from None
            results.append(
                bench_step.bench(kind, config, image, steps=steps, rounds=rounds, log=progress)
            )
    if record:
        append_measurements(
            ("step", f"{r.name}, {r.loss}, B = {r.batch_size:,}", ratio_of, ratio)
            for r in results
            for ratio_of, ratio in (
                ("our time / plain", _ratio(r)),
                ("our time / PyTorch", median_and_range(r.torch_ratios)),
            )
            if ratio
        )
    if as_json:
        print_json(results)
        return 0
    rows = [
        (
            r.name,
            r.loss,
            f"{r.batch_size:,}",
            f"{r.ours_seconds * 1e3:,.2f}",
            f"{r.plain_seconds * 1e3:,.2f}",
            _ratio(r),
            f"{r.torch_seconds * 1e3:,.2f}" if r.torch_seconds else r.torch_skipped or "",
            median_and_range(r.torch_ratios),
            f"{r.difference:.0e}",
        )
        for r in results
    ]
    others = ("plain ms", "ours / plain", "PyTorch ms", "ours / PyTorch")
    head = ("cell", "loss", "B", "ours ms", *others, "difference")
    print(table(head, rows, right={2, 3, 4, 6, 8}))
    return 0


@app.command(
    "record", epilog="Example: study bench record 'make demo' '2 cores' 'seconds / before' 0.61"
)
def record_ratio(
    bench: Annotated[str, typer.Argument(metavar="BENCH", help="What measured it.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="Sizes, loss, chip.")],
    ratio_of: Annotated[
        str, typer.Argument(metavar="RATIO_OF", help="What is compared: 'this / that'.")
    ],
    ratio: Annotated[float, typer.Argument(metavar="RATIO", help="The number.")],
    machine: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="this one", help="Machine, if it is another."),
    ] = None,
) -> int:
    """Append a ratio measured in another way.

    The row goes to results/bench/README.md, as those of `--record` do.
    """
    append_measurements([(bench, case, ratio_of, f"{ratio:.4g}")], machine=machine)
    return 0


@app.command(epilog="Example: study bench gpu --out results/bench")
def gpu(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the file.")] = Path(
        "results/bench"
    ),
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Wheels that the parts may import.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small sizes, also for a CPU.")] = False,
) -> int:
    """Measure this machine's GPU in under seven minutes.

    Writes gpu-CARD.json. Times both losses beside naive ones, the bare matrix products and
    siglip-kernel, compares all with float64, times a SigLIP step, and trains on glyphs on the GPU
    and the CPU.
    """
    from study.bench import gpu as bench_gpu

    print(bench_gpu.write(bench_gpu.run(wheels=wheels, tiny=tiny), out))
    return 0


def _ratio(result: Any) -> str:
    """The median ratio, and the range over the rounds."""
    return median_and_range(result.ratios)
