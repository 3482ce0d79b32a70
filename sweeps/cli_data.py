"""`study data`: data sets, made and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Data sets: make the built-in one, look at any.",
    epilog="Example: study data glyphs --out data/glyphs",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: study data glyphs --out data/glyphs")
def glyphs(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to.")] = "data/glyphs",
    views: Annotated[
        int | None, typer.Option("--views", min=1, help="Renders of each training pair.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Write it anew.")] = False,
) -> int:
    """Writes the glyphs data set and its embeddings; what is finished is left as it is."""
    from study.data.glyphs import VIEWS, make
    from sweeps.report import Steps

    with Steps() as steps:
        dataset = make(out, views=views or VIEWS, workers=workers, force=force, progress=steps)
    examples = ", ".join(f"{split.examples:,} {name}" for name, split in dataset.splits.items())
    print(f"{out}: {examples}; fingerprint {dataset.fingerprint[:12]}")
    return 0


@app.command(
    epilog="Examples: study data embed data/glyphs; study data embed --checkpoint webli_en_b16.npz "
    "--images photos/ --texts captions.txt --tokenizer sentencepiece.model --out ours.npz"
)
def embed(
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="A data set, whose images to cache.")
    ] = None,
    dim: Annotated[int, typer.Option("--dim", min=2, help="Width, without a checkpoint.")] = 96,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Embed with these towers: big_vision's .npz or Hugging Face's .safetensors "
            "(FILE:img for one tower of it).",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images", metavar="DIR", help="Images, webdataset shards (or one) or a .npy."
        ),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option("--texts", metavar="FILE", help="One text a line, or a .npy of tokens."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="FILE", help="SentencePiece model, for --texts."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=1, help="Pixels, if the checkpoint leaves it open."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="OUT.npz", help="For zimg and ztxt.")
    ] = None,
) -> int:
    """Embeds with a frozen tower.

    With FOLDER: caches image embeddings of every split, by HOG and a projection fitted on the
    train split, or by the image tower of a checkpoint. With --images or --texts instead: writes
    both towers' embeddings, unit rows before any scaling, as zimg and ztxt of an .npz.
    """
    from study.data import descriptor
    from study.data.dataset import Dataset
    from sweeps.report import Steps

    if folder is None or checkpoint or images or texts or out:
        from sweeps import cli_embed  # imports jax

        if folder and checkpoint and not (images or texts or out):
            print(cli_embed.cache(folder, checkpoint, image_size))
        else:
            cli_embed.write(folder, checkpoint, images, texts, tokenizer, image_size, out)
        return 0
    with Steps() as steps:
        name = descriptor.embed(Dataset.open(folder), dim=dim, workers=workers, progress=steps)
    print(Path(folder) / "embeddings" / name)
    return 0


@app.command("import", epilog="Example: study data import wds_imagenet1k --out data/imagenet1k")
def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or a Karpathy JSON.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to.")],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split; may be repeated.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Where the images lie.")
    ] = None,
) -> int:
    """Copies a benchmark into a data set to evaluate on.

    Layouts: CLIP benchmark tars (SPLIT/0.tar, classnames.txt,
    zeroshot_classification_templates.txt), ImageFolder (SPLIT/CLASS/*.jpg), Karpathy's JSON of
    COCO or Flickr with --images, Crossmodal-3600 (captions.jsonl, images/).
    """
    from study.data.benchmarks import bring_in
    from sweeps.report import Steps

    with Steps() as steps:
        dataset = bring_in(source, out, splits=tuple(split or ()), images=images, progress=steps)
    examples = ", ".join(f"{s.examples:,} {name}" for name, s in dataset.splits.items())
    print(f"{out}: {examples}; {len(dataset.class_names)} classes")
    return 0


@app.command(epilog="Example: study data verify data/glyphs")
def verify(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A data set.")],
) -> int:
    """Compares every file of a data set with what was noted when it was written."""
    from study.data.dataset import Dataset

    dataset = Dataset.open(folder)
    dataset.verify()
    print(f"{folder}: as written; fingerprint {dataset.fingerprint[:12]}")
    return 0


@app.command(epilog="Example: study data samples data/glyphs --split train --out samples.png")
def samples(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A data set.")],
    split: Annotated[str, typer.Option("--split", help="Which part of it.")] = "train",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="A PNG.")] = "samples.png",
    rows: Annotated[int, typer.Option("--rows", min=1, max=100)] = 8,
    cols: Annotated[int, typer.Option("--cols", min=1, max=100)] = 6,
) -> int:
    """Draws a page of examples with their captions."""
    from study.data.dataset import Dataset
    from study.data.picture import samples_picture
    from sweeps.grid import StudyError

    picture = samples_picture(Dataset.open(folder), split, rows, cols)
    try:
        Path(out).write_bytes(picture)
    except OSError as error:
        raise StudyError(
            f"cannot write {out}: {error.strerror or error}; choose another --out"
        ) from None
    print(out)
    return 0
