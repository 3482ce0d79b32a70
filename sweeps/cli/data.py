"""`study data`: write, import, index, embed, verify and look at data sets."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sweeps.cli.data_import import (
    Tokenizer,
    TrainTokenizer,
    Workers,
    import_,
    print_indexed,
    summary,
)
from sweeps.cli.options import local
from sweeps.study import StudyError

app = typer.Typer(
    help="Write, import, index and inspect data sets.",
    epilog="Example: study data glyphs --out data/glyphs",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

DatasetDir = Annotated[str, typer.Argument(metavar="DATASET", help="A data set's folder.")]
Resize = Annotated[
    Literal["bicubic", "bilinear"],
    typer.Option(
        "--resize",
        help="How to resize images: bicubic with antialiasing, or bilinear without, as the paper's "
        "code does.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=1, help="Image size in pixels, if the checkpoint does not hold it."
    ),
]


@app.command(epilog="Example: study data glyphs --out data/glyphs")
def glyphs(
    out: Annotated[
        str, typer.Option(metavar="DIR", callback=local, help="Output directory.")
    ] = "data/glyphs",
    views: Annotated[int | None, typer.Option(min=1, help="Renders of each training pair.")] = None,
    workers: Workers = 2,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> int:
    """Write the built-in data set and its embeddings.

    Finished shards are kept, so an interrupted command can be repeated.
    """
    from study.data.glyphs.write import VIEWS, make_glyphs
    from sweeps.runner.display import ProgressLine

    with ProgressLine() as progress:
        dataset = make_glyphs(
            out, views=views or VIEWS, workers=workers, force=force, progress=progress
        )
    print(summary(dataset))
    return 0


app.command("import", epilog="Example: study data import wds_imagenet1k --out data/imagenet1k")(
    import_
)


@app.command("index", epilog="Example: study data index data/cc12m --tokenizer c4_en.model")
def index_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder of shards, or a quoted glob.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            callback=local,
            show_default="SOURCE",
            help="Where to write dataset.json.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN",
            show_default="from file names, else all is train",
            help="Shards of a split, such as train='0*.tar' (repeatable).",
        ),
    ] = None,
    tokenizer: Tokenizer = None,
    train_tokenizer: TrainTokenizer = None,
    image_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="ArrayRecord: the feature with the image.")
    ] = None,
    text_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Feature or JSON key with the caption.")
    ] = None,
    hash_files: Annotated[
        bool, typer.Option("--hash", help="Record a SHA-256 of every shard, for `data verify`.")
    ] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Skip shards that cannot be read.")
    ] = False,
    workers: Workers = 2,
) -> int:
    """Index existing shards (webdataset tars, ArrayRecord).

    Scans the shards once, indexes each tar, and writes dataset.json with splits, counts, tokenizer
    and a fingerprint. An existing dataset.json is completed.
    """
    from study.data.formats.index_shards import index_shards
    from sweeps.runner.display import ProgressLine

    patterns = {}
    for text in split or []:
        name, equals, pattern = text.partition("=")
        if not (name and equals and pattern):
            raise StudyError(f"--split {text}: write NAME=PATTERN, such as train='0*.tar'")
        patterns[name] = pattern
    with ProgressLine() as progress:
        report = index_shards(
            source,
            out=out,
            splits=patterns,
            tokenizer=tokenizer,
            train_pieces=train_tokenizer,
            image_key=image_key,
            text_key=text_key,
            hash_files=hash_files,
            skip_damaged=skip_damaged,
            workers=workers,
            progress=progress,
        )
    for line in report.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print_indexed(report)
    return 0


@app.command(epilog="Example: study data embed data/cc12m --checkpoint siglip.npz --out siglip")
def embed(
    folder: DatasetDir,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            show_default="HOG and a linear projection fitted on train",
            help="Image tower: a big_vision .npz, a Hugging Face .safetensors (FILE:img for one "
            "tower of it), or the record of a SigLIP cell, runs/STUDY/CELL.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="hog-lda-DIM, or the checkpoint's name",
            help="Folder under DATASET/embeddings.",
        ),
    ] = None,
    dim: Annotated[int, typer.Option(min=2, help="Width, if there is no checkpoint.")] = 96,
    resize: Resize = "bicubic",
    image_size: ImageSize = None,
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="Embed the K-th of N parts, for N machines.")
    ] = "1/1",
    max_bad_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of unusable images.")
    ] = 0.01,
    workers: Workers = 2,
) -> int:
    """Cache image embeddings of a data set, for SigLiT.

    Embeds every split with a frozen image tower, shard by shard. Finished shards are kept, so an
    interrupted command can be repeated.
    """
    from study.data.embed_shards import Tower, embed_dataset
    from study.data.embeddings import TOWER_FILE
    from study.data.formats.dataset import Dataset
    from study.data.glyphs import hog_lda
    from sweeps.runner.display import ProgressLine

    k, n = map(int, shard.split("/")) if re.fullmatch(r"\d+/\d+", shard) else (0, 0)
    if not 1 <= k <= n:
        raise StudyError(f"--shard {shard}: write K/N with K from 1 to N, such as 3/16")
    dataset = Dataset.open(folder)
    with ProgressLine() as progress:
        tower: Tower
        if checkpoint is None:
            if resize != "bicubic":
                raise StudyError(f"--resize {resize} needs the --checkpoint of an image tower")
            tower = hog_lda.fit(dataset, dim=dim, workers=workers)
            name = f"hog-lda-{dim}"
        else:
            from study.training.frozen_tower import load_tower

            tower, workers = load_tower(checkpoint, image_size=image_size), 1
            name = Path(checkpoint.partition(":")[0]).name
            name = re.sub(r"\.(npz|safetensors)$", "", name)
        path = embed_dataset(
            dataset,
            tower,
            out or name,
            resize=resize,
            workers=workers,
            part=(k - 1, n),
            max_bad_share=max_bad_share,
            progress=progress,
        )
    finished = (path / TOWER_FILE).exists()
    print(path if finished else f"{path}: part {shard} is done; others are missing")
    return 0


@app.command(
    epilog="Example: study data encode --checkpoint webli_en_b16.npz --images photos --out z.npz"
)
def encode(
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="A big_vision .npz or a Hugging Face .safetensors (FILE:img for one tower of it).",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="FILE.npz", callback=local, help="Output file.")],
    images: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Images, webdataset tars (or one tar), or a .npy."),
    ] = None,
    texts: Annotated[
        str | None, typer.Option(metavar="FILE", help="One text per line, or a .npy of tokens.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FILE", help="SentencePiece model, for --texts.")
    ] = None,
    pad: Annotated[
        Literal["eos", "pad"] | None,
        typer.Option(
            show_default="pad for SigLIP 2 (256,000 pieces), else eos",
            help="Padding of texts after EOS.",
        ),
    ] = None,
    resize: Resize = "bicubic",
    image_size: ImageSize = None,
) -> int:
    """Encode images and texts with a checkpoint's towers.

    Writes unit-length rows, before any scaling by t, as `zimg` and `ztxt` of an .npz file.
    """
    import numpy as np

    from study.interop.embed import FrozenTowers
    from study.records.record import atomic_write
    from sweeps.runner.display import ProgressLine

    if not images and not texts:
        raise StudyError("give --images, --texts or both")
    if not out.endswith(".npz"):
        raise StudyError(f"--out {out}: the name must end in .npz")
    towers = FrozenTowers(checkpoint, image_size=image_size)
    arrays = {}
    with ProgressLine() as progress:
        if images:
            arrays["zimg"] = towers.images(images, resize=resize, progress=progress)
    if texts:
        arrays["ztxt"] = towers.texts(texts, tokenizer=tokenizer, pad=pad)
    try:
        with atomic_write(Path(out)) as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise StudyError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    shapes = ", ".join(f"{name} {len(z)}x{z.shape[1]}" for name, z in arrays.items())
    print(f"{out}: {shapes}")
    return 0


@app.command(epilog="Example: study data verify data/glyphs")
def verify(folder: DatasetDir) -> int:
    """Check a data set and its embeddings against their hashes."""
    from study.data.embeddings import TOWER_FILE, CachedEmbeddings
    from study.data.formats.dataset import Dataset

    dataset = Dataset.open(folder)
    dataset.verify()
    for path in sorted((dataset.folder / "embeddings").glob(f"*/{TOWER_FILE}")):
        CachedEmbeddings.verify(path.parent)
    print(f"{folder}: unchanged; fingerprint {dataset.fingerprint[:12]}")
    return 0


@app.command(epilog="Example: study data inspect data/glyphs --split train --out samples.png")
def inspect(
    folder: DatasetDir,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="the first", help="The split.")
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="PNG", callback=local, help="Output file.")
    ] = "samples.png",
    rows: Annotated[int, typer.Option(min=1, max=100, help="Rows of images.")] = 8,
    cols: Annotated[int, typer.Option(min=1, max=100, help="Images per row.")] = 6,
) -> int:
    """Summarize a data set and draw a page of examples."""
    from study.data.contact_sheet import draw_contact_sheet
    from study.data.formats.dataset import Dataset

    dataset = Dataset.open(folder)
    picture = draw_contact_sheet(dataset, split or next(iter(dataset.splits)), rows, cols)
    try:
        Path(out).write_bytes(picture)
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(f"cannot write {out}: {reason}; choose another --out") from None
    print(summary(dataset))
    print(out)
    return 0
