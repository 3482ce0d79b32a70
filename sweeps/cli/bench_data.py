"""`study bench data` and `bucket`: loaders next to each other, from a disk and from a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.cli.bench_options import Rounds, median_and_range, print_json
from sweeps.cli.options import Json, RecordRatio
from sweeps.cli.table import table
from sweeps.study import StudyError


def data(
    images: Annotated[
        int, typer.Option(metavar="N", min=0, help="JPEGs to decode; 0 for none.")
    ] = 4096,
    embeddings: Annotated[
        int, typer.Option(metavar="N", min=0, help="Embeddings to read; 0 for none.")
    ] = 32_768,
    image_size: Annotated[
        int, typer.Option(metavar="PIXELS", min=1, help="Size after resizing.")
    ] = 224,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Images per batch.")] = 128,
    row_batch_size: Annotated[
        int, typer.Option(metavar="B", min=1, help="Embeddings per batch.")
    ] = 1024,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="one per core", help="Threads or processes of each."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", min=0.1, help="Length of a round.")] = 1.5,
    rounds: Rounds = 3,
    bucket: Annotated[
        bool,
        typer.Option(
            "--bucket", help="Also read from a Google Cloud Storage server on this machine."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write data.json and data.md to this folder."),
    ] = None,
    record: RecordRatio = False,
    as_json: Json = False,
) -> int:
    """Time data loading against webdataset, Grain and PyTorch.

    Loads JPEGs and embeddings, 768 and 1,408 wide, in a process for each loader, which take turns.
    A ratio is our examples per second over the other's, or its CPU time over ours: above 1, ours is
    better. Ours is read in global order from disk and in blocks order from the bucket. webdataset
    and PyTorch are in the extra `bench`, the server is in the extra `test`.
    """
    from study.bench.data import bench
    from study.config.host import cores
    from sweeps.bench.data_page import HEAD, RIGHT, rows, write
    from sweeps.runner.display import ProgressLine

    for name, count, size in (
        ("images", images, batch_size),
        ("embeddings", embeddings, row_batch_size),
    ):
        if 0 < count < size:
            raise StudyError(f"--{name} {count}: less than a batch of {size}; raise it")
    options: dict[str, Any] = {
        "images": images,
        "embeddings": embeddings,
        "image_size": image_size,
        "batch_size": batch_size,
        "row_batch_size": row_batch_size,
        "workers": workers or cores(),
        "seconds": seconds,
        "rounds": rounds,
        "bucket": bucket,
    }
    with ProgressLine() as progress:
        results = bench(**options, log=progress)
    if record:
        from sweeps.cli.bench_runner import append_measurements

        append_measurements(
            ("data", f"{r.case}, {r.place}", ratio_of, median_and_range(ratios))
            for r in results
            for ratio_of, ratios in (
                (f"our rate / {r.name}", r.ratios),
                (f"CPU time of {r.name} / ours", r.cpu_ratios),
            )
            if ratios and not r.name.startswith("ours")
        )
    if out is not None:
        print(*write(results, out, options), sep="\n")
    if as_json:
        print_json(results)
    elif out is None:
        print(table(HEAD, rows(results), right=RIGHT))
    return 0


def bucket(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            show_default="temporary",
            help="Folder for glyphs, which are kept and used again, and the records.",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(metavar="N", min=1, help="Examples per run.")] = 60_000,
    batch_size: Annotated[int, typer.Option(metavar="B", min=2, help="Examples per step.")] = 256,
    rounds: Rounds = 2,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write bucket.json and bucket.md to this folder."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Train on glyphs from disk and from a bucket.

    Trains the same small SigLIP cell from a folder and from a Google Cloud Storage server on this
    machine (extra: test), in global and in blocks order, and once more, killed and started again.
    All metrics must be equal, bit for bit. "copied" are shards that fit into the cache of this
    machine ($STUDY_DATA_CACHE_GB); the others are read by ranges.
    """
    import tempfile

    from study.bench.bucket_training import bench
    from sweeps.bench import data_page as pages
    from sweeps.runner.display import ProgressLine

    options = {"examples": examples, "batch_size": batch_size, "rounds": rounds}
    with (
        tempfile.TemporaryDirectory(prefix="study-bench-") as temporary,
        ProgressLine() as progress,
    ):
        results = bench(folder or Path(temporary), **options, log=progress)
    if out is not None:
        print(*pages.write_bucket(results, out, options), sep="\n")
    if as_json:
        print_json(results)
    elif out is None:
        head = pages.BUCKET_HEAD
        print(table(head, pages.bucket_rows(results), right=range(1, len(head) - 2)))
    return 0 if all(r.equal and r.resumed_equal is not False for r in results) else 1
