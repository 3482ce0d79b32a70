"""`study data embed`, `tokenize` and `encode`: what towers and tokenizers make of a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from sweeps.cli.data_import import Workers
from sweeps.cli.options import local
from sweeps.study import StudyError

DatasetDir = Annotated[str, typer.Argument(metavar="DATASET", help="A data set's folder.")]
Resize = Annotated[
    Literal["bicubic", "bilinear"],
    typer.Option(
        "--resize",
        help="How to resize images: bicubic with antialiasing, or bilinear without, as the paper's "
        "code does.",
    ),
]
Part = Annotated[
    str, typer.Option("--shard", metavar="K/N", help="The K-th of N parts, for N machines.")
]
MaxBadShare = Annotated[
    float,
    typer.Option("--max-bad-share", min=0, max=1, help="Largest share of unusable examples."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=1, help="Image size in pixels, if the checkpoint does not hold it."
    ),
]


def embed(
    folder: DatasetDir,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            show_default="HOG and a linear projection fitted on train",
            help="Image tower: a checkpoint of big_vision (.npz), Hugging Face or OpenCLIP "
            "(.safetensors, its .index.json, .pt), FILE:img for one tower of it, or the record of "
            "a SigLIP cell, runs/STUDY/CELL.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="hog-lda-DIM, or the name of the checkpoint or tower",
            help="Folder under DATASET/embeddings, or gs://BUCKET/FOLDER.",
        ),
    ] = None,
    dim: Annotated[int, typer.Option(min=2, help="Width, if there is no checkpoint.")] = 96,
    packaged: Annotated[
        Literal["efficientnet-lite0"] | None,
        typer.Option("--tower", help="Image tower from a package of pip (the extra emoji)."),
    ] = None,
    resize: Resize = "bicubic",
    image_size: ImageSize = None,
    shard: Part = "1/1",
    max_bad_share: MaxBadShare = 0.01,
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

    part = parse_part(shard)
    dataset = Dataset.open(folder)
    if checkpoint is not None and packaged is not None:
        raise StudyError("give --checkpoint or --tower, not both")
    with ProgressLine() as progress:
        tower: Tower
        name: str
        if packaged is not None:
            from study.training.frozen_tower import load_packaged_tower

            tower, workers, name = load_packaged_tower(packaged), 1, str(packaged)
        elif checkpoint is None:
            if resize != "bicubic":
                raise StudyError(f"--resize {resize} needs the --checkpoint of an image tower")
            tower = hog_lda.fit(dataset, dim=dim, workers=workers)
            name = f"hog-lda-{dim}"
        else:
            from study.training.frozen_tower import load_tower

            tower, workers = load_tower(checkpoint, image_size=image_size), 1
            name = Path(checkpoint.partition(":")[0]).name
            name = re.sub(r"\.(npz|safetensors(\.index\.json)?|pt|bin)$", "", name)
        path = embed_dataset(
            dataset,
            tower,
            out or name,
            resize=resize,
            workers=workers,
            part=part,
            max_bad_share=max_bad_share,
            progress=progress,
        )
    print(_finished(path, TOWER_FILE, shard))
    return 0


def tokenize(
    folder: DatasetDir,
    length: Annotated[int, typer.Option(min=2, help="Tokens per text.")] = 16,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default="the data set's own",
            help="SentencePiece model in DATASET.",
        ),
    ] = None,
    lower_case: Annotated[
        Literal["unicode", "ascii", "none"], typer.Option(help="Capitals to lower.")
    ] = "unicode",
    sticky_eos: Annotated[
        bool, typer.Option(help="End every text with EOS or padding, even one that is cut.")
    ] = True,
    pad: Annotated[Literal["eos", "pad"], typer.Option(help="Padding of texts after EOS.")] = "eos",
    shard: Part = "1/1",
    max_bad_share: MaxBadShare = 0.01,
    workers: Workers = 2,
) -> int:
    """Cache the tokens of all texts of a data set.

    SigLiT needs them where the tokens do not fit in memory. The options are those of a cell's
    `data`. Finished shards are kept, so an interrupted command
    can be repeated.
    """
    from study.config import Data
    from study.data.formats.dataset import Dataset
    from study.data.token_shards import TOKENS_FILE, tokenize_dataset
    from sweeps.runner.display import ProgressLine

    data = Data(
        text_length=length,
        tokenizer=tokenizer,
        lower_case=None if lower_case == "none" else lower_case,
        sticky_eos=sticky_eos,
        pad=pad,
    )
    with ProgressLine() as progress:
        path = tokenize_dataset(
            Dataset.open(folder),
            data,
            workers=workers,
            part=parse_part(shard),
            max_bad_share=max_bad_share,
            progress=progress,
        )
    print(_finished(path, TOKENS_FILE, shard))
    return 0


def parse_part(shard: str) -> tuple[int, int]:
    """(k, n) of K/N, from 0."""
    k, n = map(int, shard.split("/")) if re.fullmatch(r"\d+/\d+", shard) else (0, 0)
    if not 1 <= k <= n:
        raise StudyError(f"--shard {shard}: write K/N with K from 1 to N, such as 3/16")
    return k - 1, n


def _finished(path: Path, index: str, shard: str) -> str:
    return (
        str(path)
        if (path / index).exists()
        else f"{path}: part {shard} is done; others are missing"
    )


def encode(
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="A checkpoint of big_vision (.npz), Hugging Face or OpenCLIP (.safetensors, its "
            ".index.json, .pt); FILE:img for one tower of it.",
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
