"""`study data`: data sets, made and looked at."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweeps.cli.options import local

if TYPE_CHECKING:
    from study.data.formats.dataset import Dataset

app = typer.Typer(
    help="Data sets: make the built-in one, look at any.",
    epilog="Example: study data glyphs --out data/glyphs",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: study data glyphs --out data/glyphs")
def glyphs(
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", callback=local, help="Where to.")
    ] = "data/glyphs",
    views: Annotated[
        int | None, typer.Option("--views", min=1, help="Renders of each training pair.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Write it anew.")] = False,
) -> int:
    """Writes the glyphs data set and its embeddings; what is finished is left as it is."""
    from study.data.glyphs.write import VIEWS, make
    from sweeps.runner.display import Steps

    with Steps() as steps:
        dataset = make(out, views=views or VIEWS, workers=workers, force=force, progress=steps)
    print(_said(dataset))
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
    pad: Annotated[
        Literal["eos", "pad"] | None,
        typer.Option(
            "--pad",
            help="What fills a text after its EOS.  [default: as the checkpoint was trained: pad "
            "for SigLIP 2, which has 256,000 pieces, else eos]",
        ),
    ] = None,
    resize: Annotated[
        Literal["bicubic", "bilinear"],
        typer.Option(
            "--resize",
            help="Of images: bicubic with antialiasing, or bilinear without, as the paper's code "
            "base has it.",
        ),
    ] = "bicubic",
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", min=1, help="Pixels, if the checkpoint leaves it open."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="OUT.npz", callback=local, help="For zimg and ztxt."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace embeddings of another tower or of other data."),
    ] = False,
) -> int:
    """Embeds with a frozen tower.

    With FOLDER: caches image embeddings of every split, by HOG and a projection fitted on the
    train split, or by the image tower of a checkpoint. With --images or --texts instead: writes
    both towers' embeddings, unit rows before any scaling, as zimg and ztxt of an .npz.
    """
    from study.data.formats.dataset import Dataset
    from study.data.glyphs import hog_lda as descriptor
    from sweeps.runner.display import Steps

    if folder is None or checkpoint or images or texts or out:
        from sweeps.cli import embed as cli_embed  # imports jax

        if folder and checkpoint and not (images or texts or out):
            print(cli_embed.cache(folder, checkpoint, image_size, resize, force))
        else:
            cli_embed.write(
                *(folder, checkpoint, images, texts, tokenizer),
                *(pad, resize, image_size, out),
            )
        return 0
    with Steps() as steps:
        name = descriptor.embed(
            Dataset.open(folder), dim=dim, workers=workers, force=force, progress=steps
        )
    print(Path(folder) / "embeddings" / name)
    return 0


@app.command("import", epilog="Example: study data import wds_imagenet1k --out data/imagenet1k")
def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or a Karpathy JSON.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", callback=local, help="Where to.")],
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
    from study.data.benchmarks.importer import bring_in
    from sweeps.runner.display import Steps

    with Steps() as steps:
        dataset = bring_in(source, out, splits=tuple(split or ()), images=images, progress=steps)
    examples = ", ".join(f"{s.examples:,} {name}" for name, s in dataset.splits.items())
    print(f"{out}: {examples}; {len(dataset.class_names)} classes")
    return 0


@app.command("index", epilog="Example: study data index data/cc12m --tokenizer c4_en.model")
def index_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder of shards, or a pattern in quotes.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=local,
            help="Where dataset.json goes.  [default: SOURCE]",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME=PATTERN",
            help="Shards of a split, such as train='0*.tar'. May be repeated.  [default: as files "
            "are named, else all is train]",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="FILE", help="Any SentencePiece model.")
    ] = None,
    train_tokenizer: Annotated[
        int | None,
        typer.Option(
            "--train-tokenizer", metavar="PIECES", min=8, help="Train one on the captions instead."
        ),
    ] = None,
    image_key: Annotated[
        str | None, typer.Option("--image-key", help="ArrayRecord: the feature with the image.")
    ] = None,
    text_key: Annotated[
        str | None,
        typer.Option("--text-key", help="The feature, or key of the json, with the caption."),
    ] = None,
    hash_files: Annotated[
        bool, typer.Option("--hash", help="Note a SHA-256 of every shard, for `verify`.")
    ] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out shards that cannot be read.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
) -> int:
    """Describes shards that others wrote (img2dataset's tars, TFDS' ArrayRecord) once.

    Scans them, keeps an index of each tar and writes dataset.json with splits, counts, tokenizer
    and a fingerprint. A dataset.json that is there already is completed.
    """
    from study.data.formats.index import index
    from sweeps.runner.display import Steps

    with Steps() as steps:
        found = index(
            source,
            out=out,
            splits=_pairs(split or []),
            tokenizer=tokenizer,
            train_pieces=train_tokenizer,
            image_key=image_key,
            text_key=text_key,
            hash_files=hash_files,
            skip_damaged=skip_damaged,
            workers=workers,
            progress=steps,
        )
    for line in found.left_out:
        print(f"left out: {line}", file=sys.stderr)
    if found.lacking:
        print(f"{found.lacking:,} examples lack image or text; others will stand in for them")
    print(_said(found.dataset))
    return 0


@app.command("embed-shards", epilog="Example: study data embed-shards data/glyphs --out hog-lda-96")
def embed_shards(
    folder: Annotated[str, typer.Argument(metavar="DATASET", help="A data set's folder.")],
    out: Annotated[str, typer.Option("--out", metavar="NAME", help="Under embeddings/.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="PATH",
            help="Embed with this image tower: big_vision's .npz, Hugging Face's .safetensors, or "
            "the record of a SigLIP cell, runs/STUDY/CELL.  [default: HOG and a projection fitted "
            "on train]",
        ),
    ] = None,
    dim: Annotated[int, typer.Option("--dim", min=2, help="Width, without a checkpoint.")] = 96,
    resize: Annotated[
        Literal["bicubic", "bilinear"],
        typer.Option(
            "--resize",
            help="Of images: bicubic with antialiasing, or bilinear without, as the paper's code "
            "base has it.",
        ),
    ] = "bicubic",
    part: Annotated[
        str, typer.Option("--part", metavar="K/N", help="Only this part, for machine K of N.")
    ] = "1/1",
    max_bad_share: Annotated[
        float, typer.Option("--max-bad-share", min=0, max=1, help="Of images that cannot be used.")
    ] = 0.01,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes, without a checkpoint.")
    ] = 2,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace embeddings of another tower or of other data."),
    ] = False,
) -> int:
    """Caches image embeddings of every split with a frozen tower, shard by shard.

    Interrupt it as you like: the same command goes on, and no finished shard is made again.
    """
    from study.data import embeddings
    from study.data.embeddings import Tower
    from study.data.formats.dataset import Dataset
    from study.data.glyphs import hog_lda as descriptor
    from sweeps.runner.display import Steps
    from sweeps.study import StudyError

    dataset, mine = Dataset.open(folder), _part(part)
    with Steps() as steps:
        tower: Tower
        if checkpoint is None:
            if resize != "bicubic":
                raise StudyError(f"--resize {resize}: give the --checkpoint of an image tower too")
            tower = descriptor.fit(dataset, dim=dim)
        else:
            from study.training.frozen_tower import load_tower

            tower, workers = load_tower(checkpoint), 1
        path = embeddings.embed(
            dataset,
            tower,
            out,
            resize=resize,
            workers=workers,
            part=mine,
            max_bad_share=max_bad_share,
            force=force,
            progress=steps,
        )
    finished = (path / embeddings.FILE).exists()
    print(path if finished else f"{path}: part {part} is done, others are not yet")
    return 0


@app.command(epilog="Example: study data verify data/glyphs")
def verify(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A data set.")],
) -> int:
    """Compares every file of a data set, and its embeddings, with what was noted of them."""
    from study.data.embeddings import FILE, CachedEmbeddings
    from study.data.formats.dataset import Dataset

    dataset = Dataset.open(folder)
    dataset.verify()
    for path in sorted((dataset.folder / "embeddings").glob(f"*/{FILE}")):
        CachedEmbeddings.verify(path.parent)
    print(f"{folder}: as written; fingerprint {dataset.fingerprint[:12]}")
    return 0


@app.command(epilog="Example: study data inspect data/glyphs --split train --out samples.png")
def inspect(
    folder: Annotated[str, typer.Argument(metavar="DATASET", help="A data set's folder.")],
    split: Annotated[
        str | None, typer.Option("--split", help="Which part of it.  [default: the first]")
    ] = None,
    out: Annotated[
        str, typer.Option("--out", metavar="PNG", callback=local, help="Where to.")
    ] = "samples.png",
    rows: Annotated[int, typer.Option("--rows", min=1, max=100)] = 8,
    cols: Annotated[int, typer.Option("--cols", min=1, max=100)] = 6,
) -> int:
    """Says what a data set holds, and draws a page of examples with their captions."""
    from study.data.contact_sheet import samples_picture
    from study.data.formats.dataset import Dataset
    from sweeps.study import StudyError

    dataset = Dataset.open(folder)
    picture = samples_picture(dataset, split or next(iter(dataset.splits)), rows, cols)
    try:
        Path(out).write_bytes(picture)
    except OSError as error:
        said = error.strerror or error
        raise StudyError(f"cannot write {out}: {said}; choose another --out") from None
    print(_said(dataset))
    print(out)
    return 0


def _said(dataset: Dataset) -> str:
    """A data set in one line."""
    splits = ", ".join(
        f"{split.examples:,} {name} in {len(split.shards)} shards"
        for name, split in dataset.splits.items()
    )
    return f"{dataset.folder}: {splits}; fingerprint {dataset.fingerprint[:12]}"


def _pairs(settings: list[str]) -> dict[str, str]:
    from sweeps.study import StudyError

    for text in settings:
        if not all(text.partition("=")):
            raise StudyError(f"--split {text}: write NAME=PATTERN, such as train='0*.tar'")
    return {name: pattern for name, _, pattern in (text.partition("=") for text in settings)}


def _part(text: str) -> tuple[int, int]:
    """(k, n) counted from 0, of "K/N" counted from 1."""
    from sweeps.study import StudyError

    match = re.fullmatch(r"(\d+)/(\d+)", text)
    k, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= k <= n:
        raise StudyError(f"--part {text}: write K/N with K from 1 to N, such as 3/16")
    return k - 1, n
