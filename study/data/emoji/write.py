"""Writes emoji-36: drawings of emoji by four artists, with their names in 36 languages.

The languages are those of Crossmodal-3600, the artists' styles take the place of domains:

    drawings       Noto and Fluent, three views of each emoji: the images of the training splits
    train          rows (drawing, language): each drawing once in each language; the caption is the
                   name or some keywords, as a hash of the row decides
    train_en       as many rows, all English
    train_web      as many rows, languages by their share of the web
    tune           the rows of Noto's drawings in `train`: to choose settings on val_artist
    val_artist     Fluent, plain: only for runs on `tune`
    test_artist    Twemoji, plain: no training split has its drawings
    shift_artist   OpenMoji, plain: line drawings, a harder shift
    test_emoji     Twemoji's drawings of the emoji that no training split has
    val_pairs, test_pairs   rows (drawing, name in a language) of val_artist and test_artist

The three test splits have all languages' names in their metadata, for retrieval by language.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import sentencepiece

from study.data.emoji import captions as caption_module
from study.data.emoji import drawings as drawing_module
from study.data.emoji.captions import LANGUAGES, Captions, draws, hold_out, web_shares
from study.data.emoji.drawings import Svgs, View, read_drawings, render, shuffle
from study.data.emoji.packages import (
    ATTRIBUTION,
    RENDERER,
    check_renderer,
    npm_files,
    openmoji_folder,
    versions,
)
from study.data.formats.dataset import (
    CLASS_NAMES,
    TEMPLATES,
    TOKENIZER,
    DataError,
    Dataset,
    read_manifest,
    write_lines,
    write_manifest,
)
from study.data.formats.pairs import write_pairs
from study.data.formats.webdataset import write_shard
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.tokenizer import train_tokenizer

NAME, VERSION = "emoji", 1
SHARD_EXAMPLES, HELD_OUT, VIEWS, PIECES = 1024, 77, 3, 16_000
TRAINING_ARTISTS = ("noto", "fluent")
ARTIST_OF = {"val_artist": "fluent", "test_artist": "twemoji", "shift_artist": "openmoji"}
IMAGES_OF = {
    **dict.fromkeys(("train", "train_en", "train_web", "tune"), "drawings"),
    "val_pairs": "val_artist",
    "test_pairs": "test_artist",
}
ATTRIBUTION_FILE = "ATTRIBUTION.md"


def write_emoji(
    out: str | Path,
    *,
    packages: Path | None = None,
    views: int = VIEWS,
    workers: int = 2,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Writes the data set to `out`, or opens a finished one. The bytes do not depend on `workers`.

    Arguments:
      packages: a folder with the files of the npm packages; None fetches them with npm.
      views: renders of each training drawing; the first is plain.

    Raises:
      DataError: a missing or changed package, another data set at `out`, or a disk that is full or
        read-only.
    """
    out = Path(out)
    check_renderer()
    recipe = _recipe(views)
    manifest = read_manifest(out)
    if manifest is not None and manifest.get("recipe") == recipe:
        return Dataset.open(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} holds something else, or emoji of another recipe; remove it or choose another "
            "--out"
        )
    openmoji_folder()  # before anything is fetched
    with npm_files(packages) as folder:
        try:
            return _write(out, folder, recipe, workers, progress)
        except OSError as error:
            raise DataError(
                f"cannot write {out}: {error.strerror or error}; make room and run again"
            ) from None


def _write(
    out: Path, packages: Path, recipe: dict[str, Any], workers: int, progress: ProgressFn
) -> Dataset:
    """Writes to a temporary folder, which is renamed when it is complete."""
    drawings, captions = read_drawings(packages), Captions.read(packages)
    emoji = choose_emoji(drawings, captions)
    held_out = hold_out(emoji, captions, recipe["parameters"]["held_out"])
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shards: list[_Shard] = []
    splits: dict[str, tuple[list[str], int]] = {}
    images = choose_views(emoji, held_out, recipe["parameters"]["views"])
    for split, chosen in images.items():
        names: list[str] = []
        for start in range(0, len(chosen), SHARD_EXAMPLES):
            rows = chosen[start : start + SHARD_EXAMPLES]
            names.append(f"{split}-{len(names):05d}.tar")
            shards.append(
                _Shard(
                    path=part / names[-1],
                    number=len(shards),
                    views=rows,
                    svgs=[drawings[view.artist][view.emoji] for view in rows],
                    texts=[captions.words["en"][view.emoji].name for view in rows],
                    metadata=[
                        {
                            "emoji": view.emoji,
                            "artist": view.artist,
                            "view": view.number,
                            "class": emoji.index(view.emoji),
                        }
                        # Not for training images, whose captions are in the tables of rows.
                        | ({} if split == "drawings" else {"captions": captions.names(view.emoji)})
                        for view in rows
                    ],
                )
            )
        splits[split] = (names, len(chosen))
    for done, _ in enumerate(map_unordered(_write_shard, shards, workers=workers), start=1):
        progress("rendering", done, len(shards))
    for split, images_of in IMAGES_OF.items():
        count = _write_rows(part / f"{split}.parquet", split, images[images_of], captions)
        splits[split] = ([f"{split}.parquet"], count)
    progress("training the tokenizer", 0, 1)
    seen = [key for key in emoji if key not in held_out]
    (part / TOKENIZER).write_bytes(train_tokenizer(captions.texts(seen), vocabulary=PIECES))
    write_lines(part / CLASS_NAMES, [captions.words["en"][key].name for key in emoji])
    write_lines(part / TEMPLATES, ["{}"])
    (part / ATTRIBUTION_FILE).write_text(ATTRIBUTION, encoding="utf-8")
    write_manifest(part, name=NAME, version=VERSION, splits=splits, recipe=recipe, images=IMAGES_OF)
    if out.exists():
        out.rmdir()  # empty
    part.rename(out)
    return Dataset.open(out)


def choose_emoji(drawings: dict[str, Svgs], captions: Captions) -> list[str]:
    """Emoji that every artist drew and that every language but Maori names, sorted.

    Maori has names for four of five.
    """
    complete = [set(svgs) for svgs in drawings.values()]
    complete += [set(words) for language, words in captions.words.items() if language != "mi"]
    return sorted(set.intersection(*complete))


def choose_views(emoji: list[str], held_out: frozenset[str], views: int) -> dict[str, list[View]]:
    """The drawings of each split of images, in their order."""
    seen = [key for key in emoji if key not in held_out]
    splits = {
        "drawings": [
            View(key, artist, view)
            for key in seen
            for artist in TRAINING_ARTISTS
            for view in range(views)
        ]
    }
    splits |= {split: [View(key, a, 0) for key in emoji] for split, a in ARTIST_OF.items()}
    splits["test_emoji"] = [View(key, ARTIST_OF["test_artist"], 0) for key in sorted(held_out)]
    return {split: shuffle(chosen) for split, chosen in splits.items()}


# --- shards and rows ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    path: Path
    number: int
    views: list[View]
    svgs: list[str]
    texts: list[str]
    metadata: list[dict[str, Any]]


def _write_shard(shard: _Shard) -> int:
    return write_shard(shard.path, _render(shard))


def _render(shard: _Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    rows = zip(shard.views, shard.svgs, shard.texts, shard.metadata, strict=True)
    for i, (view, svg, text, metadata) in enumerate(rows):
        yield (
            f"{shard.number:05d}{i:04d}",
            {
                "png": render(svg, view),
                "txt": text.encode(),
                "json": json.dumps(metadata, ensure_ascii=False).encode(),
            },
        )


def _write_rows(path: Path, split: str, images: list[View], captions: Captions) -> int:
    """Writes the rows of a split of pairs, in the order of their hashes; returns their number."""
    rows = []
    for image, view in enumerate(images):
        if split == "tune" and view.artist != TRAINING_ARTISTS[0]:
            continue
        # `tune` has rows of `train`, not others like them.
        draws_LxP = draws("train" if split == "tune" else split, image, len(LANGUAGES))
        for k, (order, pick, *draw) in enumerate(draws_LxP.tolist()):
            language = LANGUAGES[k]
            if split == "train_en":
                language = "en"
            elif split == "train_web":
                language = LANGUAGES[int(np.searchsorted(web_shares(), pick / 2**64, "right"))]
            if split in ("val_pairs", "test_pairs"):
                draw = [0] * len(draw)  # the name
            if (caption := captions.draw(view.emoji, language, draw)) is not None:
                rows.append((order, image, *caption, language))
    rows.sort()
    _, image_N, text_N, kind_N, language_N = zip(*rows, strict=True)
    columns = {"text": text_N, "language": language_N, "kind": kind_N}
    write_pairs(path, np.array(image_N), columns)
    return len(rows)


def _recipe(views: int) -> dict[str, Any]:
    """Everything that determines the bytes: parameters, packages and library versions."""
    if views < 1:
        raise DataError(f"views={views} must be above 0")
    parameters: dict[str, Any] = {
        "views": views,
        "held_out": HELD_OUT,
        "shard_examples": SHARD_EXAMPLES,
        "pieces": PIECES,
        "size": drawing_module.SIZE,
        "plain_scale": drawing_module.PLAIN_SCALE,
        "rotation_degrees": drawing_module.ROTATION_DEGREES,
        "scales": list(drawing_module.SCALES),
        "shift_share": drawing_module.SHIFT_SHARE,
        "name_share": caption_module.NAME_SHARE,
        "most_keywords": caption_module.MOST_KEYWORDS,
        "by_web_share": list(caption_module.BY_WEB_SHARE),
    }
    libraries = {
        RENDERER: importlib.metadata.version(RENDERER),
        "pyarrow": pyarrow.__version__,
        "sentencepiece": sentencepiece.__version__,
    }
    recipe = {
        "version": VERSION,
        "parameters": parameters,
        "packages": versions(),
        "libraries": libraries,
    }
    canonical = json.dumps(recipe, sort_keys=True)
    return {**recipe, "hash": hashlib.sha256(canonical.encode()).hexdigest()[:16]}
