"""`study data import`: copy a benchmark, or tables of images and captions, into shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import local

if TYPE_CHECKING:
    from study.data.formats.dataset import Dataset
    from study.data.formats.index_shards import IndexResult

Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", metavar="FILE", help="A SentencePiece model.")
]
TrainTokenizer = Annotated[
    int | None,
    typer.Option(
        "--train-tokenizer",
        metavar="PIECES",
        min=8,
        help="Train a tokenizer of this size on the captions instead.",
    ),
]


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or a Karpathy JSON.")],
    out: Annotated[str, typer.Option(metavar="DIR", callback=local, help="Output directory.")],
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Import only this split (repeatable).")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="Image folder of a Karpathy JSON.")
    ] = None,
    tokenizer: Tokenizer = None,
    train_tokenizer: TrainTokenizer = None,
    image_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Tables: the column with the image.")
    ] = None,
    text_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Tables: the column with the caption.")
    ] = None,
    workers: Workers = 2,
) -> int:
    """Import a benchmark or image-text tables as a data set.

    Benchmarks to evaluate on: CLIP benchmark tars (SPLIT/0.tar, classnames.txt,
    zeroshot_classification_templates.txt), ImageFolder (SPLIT/CLASS/*.jpg), Karpathy's JSON of
    COCO or Flickr with --images, Crossmodal-3600 (captions.jsonl, images/).

    Tables, to train on, local or in a bucket: a folder of Hugging Face's save_to_disk (.arrow), and
    .parquet with the images in it, as the hub keeps it or img2dataset writes it. They need
    --tokenizer or --train-tokenizer. Nothing is downloaded.
    """
    from study.data.benchmarks.importer import import_benchmark
    from study.data.files import to_path
    from study.data.formats.tables import has_tables, import_tables
    from sweeps.runner.display import ProgressLine

    folder = to_path(source)
    with ProgressLine() as progress:
        if has_tables(folder):
            report = import_tables(
                folder,
                out,
                splits=tuple(split or ()),
                tokenizer=tokenizer,
                train_pieces=train_tokenizer,
                image_key=image_key,
                text_key=text_key,
                workers=workers,
                progress=progress,
            )
        else:
            dataset = import_benchmark(
                source, out, splits=tuple(split or ()), images=images, progress=progress
            )
            examples = ", ".join(f"{s.examples:,} {name}" for name, s in dataset.splits.items())
            print(f"{out}: {examples}; {len(dataset.class_names)} classes")
            return 0
    print_indexed(report)
    return 0


def print_indexed(report: IndexResult) -> None:
    if report.incomplete:
        print(f"{report.incomplete:,} examples lack an image or text and will be replaced")
    if report.dataset is None:
        print("this part is indexed; others are missing")
    else:
        print(summary(report.dataset))


def summary(dataset: Dataset) -> str:
    splits = ", ".join(
        f"{split.examples:,} {name} in {len(split.shards)} shards"
        for name, split in dataset.splits.items()
    )
    return f"{dataset.folder}: {splits}; fingerprint {dataset.fingerprint[:12]}"
