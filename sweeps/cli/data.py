"""`study data`: write, import, index, embed, verify and look at data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.data_embed import DatasetDir, Part, embed, encode, parse_part, tokenize
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
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of shards, or a quoted pattern ('*.tar', 'cc12m-{00000..01242}.tar'); "
            "local or gs://.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
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
    shard: Part = "1/1",
    workers: Workers = 2,
) -> int:
    """Index existing shards (webdataset tars, ArrayRecord).

    Scans the shards once, indexes each tar, and writes dataset.json with splits, counts, tokenizer
    and a fingerprint. An existing dataset.json is completed. Finished indexes are kept, so an
    interrupted command can be repeated; of several machines the last one writes dataset.json.
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
            part=parse_part(shard),
            progress=progress,
        )
    for line in report.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print_indexed(report)
    return 0


app.command(epilog="Example: study data embed data/cc12m --checkpoint siglip.npz --out siglip")(
    embed
)
app.command(
    epilog="Example: study data tokenize gs://lab/lit --tokenizer c4_en.model --shard 3/16"
)(tokenize)
app.command(
    epilog="Example: study data encode --checkpoint webli_en_b16.npz --images photos --out z.npz"
)(encode)


@app.command(epilog="Example: study data verify data/glyphs")
def verify(folder: DatasetDir) -> int:
    """Check a data set and its cached arrays against hashes."""
    from study.data.embeddings import TOWER_FILE
    from study.data.formats.dataset import Dataset
    from study.data.row_files import verify_rows
    from study.data.token_shards import TOKENS_FILE

    dataset = Dataset.open(folder)
    dataset.verify()
    for kind, index in (("embeddings", TOWER_FILE), ("tokens", TOKENS_FILE)):
        for path in sorted((dataset.folder / kind).glob(f"*/{index}")):
            verify_rows(path.parent, index)
    print(f"{folder}: unchanged; fingerprint {dataset.fingerprint[:12]}")
    return 0


@app.command(epilog="Example: study data inspect data/glyphs --split train --out samples.png")
def inspect(
    folder: DatasetDir,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="the first", help="The split.")
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE", callback=local, help="Output file, .png, or .html for every script."
        ),
    ] = "samples.png",
    rows: Annotated[int, typer.Option(min=1, max=100, help="Rows of images.")] = 8,
    cols: Annotated[int, typer.Option(min=1, max=100, help="Images per row.")] = 6,
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Show captions in this language, .html (repeatable)."),
    ] = None,
) -> int:
    """Summarize a data set and draw a page of examples.

    The picture has the characters of one font. A browser draws the .html in every script, with
    vowels in their places and from right to left.
    """
    from study.data.contact_page import draw_contact_page
    from study.data.contact_sheet import draw_contact_sheet
    from study.data.formats.dataset import Dataset

    dataset = Dataset.open(folder)
    split = split or next(iter(dataset.splits))
    if out.endswith(".html"):
        page = draw_contact_page(dataset, split, rows, cols, languages=tuple(language or ()))
        picture = page.encode()
    else:
        picture = draw_contact_sheet(dataset, split, rows, cols)
    try:
        Path(out).write_bytes(picture)
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(f"cannot write {out}: {reason}; choose another --out") from None
    print(summary(dataset))
    print(out)
    return 0
