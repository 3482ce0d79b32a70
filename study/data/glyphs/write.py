"""The built-in data set: Unicode characters and their official names, drawn by 16 fonts.

Real image-text pairs, compositional, without a download: every character that the fonts inside
matplotlib can draw, 24x24 pixels with random shift, turn and scale, and its name as the caption
("BOLD OBLIQUE CYRILLIC SMALL LETTER ZHE WITH DIAERESIS"; the first words are the font's style).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.features
import sentencepiece
from PIL import Image

from study.config.cell import Data
from study.data.contact_sheet import draw_contact_sheet
from study.data.formats.dataset import (
    CLASS_NAMES,
    DATASET_FILE,
    TEMPLATES,
    TOKENIZER,
    DataError,
    Dataset,
    read_manifest,
    write_manifest,
)
from study.data.formats.webdataset import write_shard
from study.data.glyphs import hog_lda, render
from study.data.glyphs.characters import (
    FONTS,
    SPLITS,
    Characters,
    Examples,
    font_file,
    style,
    templates,
    words,
)
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.sources import load_labels
from study.data.texts import load_tokens
from study.data.tokenizer import train_tokenizer
from study.records.record import read_json, write_json

NAME, VERSION = "glyphs", 1
SHARD_EXAMPLES, HELD_OUT, VIEWS = 8192, 750, 4
BEGUN = "begun.json"


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> Dataset:
    """Everything that a study on glyphs reads, in `<data_root>/glyphs`; what is there is kept."""
    return make_glyphs(Path(data_root) / NAME, progress=progress)


def make_glyphs(
    out: str | Path,
    *,
    views: int = VIEWS,
    workers: int = 2,
    force: bool = False,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Shards, the embeddings of the frozen tower, tokens and labels, and samples.png.

    Raises:
      DataError: see `write_glyphs` and `study.data.glyphs.hog_lda.embed`.
    """
    dataset = write_glyphs(out, views=views, workers=workers, force=force, progress=progress)
    hog_lda.embed(dataset, workers=workers, progress=progress)
    samples = dataset.folder / "samples.png"
    if not samples.exists():
        with contextlib.suppress(OSError):  # it is only looked at
            samples.write_bytes(draw_contact_sheet(dataset, "train", 8, 6))
    for done, split in enumerate(dataset.splits, start=1):
        load_labels(dataset, split)
        load_tokens(dataset, split, Data())
        progress("reading captions", done, len(dataset.splits))
    return dataset


def write_glyphs(
    out: str | Path,
    *,
    views: int = VIEWS,
    workers: int = 2,
    force: bool = False,
    progress: ProgressFn = no_progress,
    limit_characters: int | None = None,
    shard_examples: int = SHARD_EXAMPLES,
) -> Dataset:
    """Writes the data set to `out`; a finished one is left as it is, an interrupted one finished.

    views: augmented views of each training pair. limit_characters: only the first so many, with
    as large a share held out. The bytes depend on neither `workers` nor on interruptions.

    Raises:
      DataError: `out` holds something else, or the disk is full or read-only.
    """
    out = Path(out)
    recipe = _recipe(views, limit_characters, shard_examples)
    if force:
        _clear(out, recipe)
    elif (finished := _finished(out, recipe)) is not None:
        return finished
    _begin(out, recipe)
    characters = Characters.of_fonts(
        limit=limit_characters, held_out=recipe["parameters"]["held_out"]
    )
    shards = _shards(characters, views, shard_examples)
    known = {c: i for i, c in enumerate(characters.codepoints)}
    missing = [
        _Shard(path=out / name, number=number, examples=examples, classes=known)
        for number, (name, examples) in enumerate(shards.items())
        if not (out / name).exists()
    ]
    for done, _ in enumerate(map_unordered(_write, missing, workers=workers), start=1):
        progress("rendering", len(shards) - len(missing) + done, len(shards))
    try:
        (out / TOKENIZER).write_bytes(train_tokenizer(captions(characters.of_split("train"))))
        write_lines(out / CLASS_NAMES, characters.class_names)
        write_lines(out / TEMPLATES, templates())
        splits = {}
        for split in SPLITS:
            names = [name for name in shards if name.startswith(f"{split}-")]
            splits[split] = (names, sum(len(shards[name]) for name in names))
        dataset = write_manifest(out, name=NAME, version=VERSION, splits=splits, recipe=recipe)
        (out / BEGUN).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(out, error) from None
    return dataset


def caption(font: str, codepoint: int) -> str:
    """The style words of the font and the words of the character's name."""
    return f"{style(font)} {words(unicodedata.name(chr(codepoint)))}".strip()


def captions(examples: Examples) -> list[str]:
    """Theirs, in their order."""
    return [caption(FONTS[font], codepoint) for font, codepoint in _pairs(examples)]


# --- shards -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    path: Path
    number: int
    examples: Examples
    classes: dict[int, int]


def _shards(characters: Characters, views: int, shard_examples: int) -> dict[str, Examples]:
    """The examples of each shard, by its name. All views of a pair share a shard."""
    shards = {}
    for split in SPLITS:
        count = views if split == "train" else 1
        pairs, step = characters.of_split(split), max(1, shard_examples // count)
        for number, start in enumerate(range(0, len(pairs), step)):
            part = pairs[start : start + step].repeated(count).shuffled()
            shards[f"{split}-{number:05d}.tar"] = part
    return shards


def _write(shard: _Shard) -> int:
    return write_shard(shard.path, _rendered(shard))


def _rendered(shard: _Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    masters = render_masters(shard.examples)
    for start in range(0, len(shard.examples), 512):
        part = shard.examples[start : start + 512]
        rows = zip(_pairs(part), part.view_N.tolist(), render_examples(part, masters), strict=True)
        for i, ((font, codepoint), view, image_HxW) in enumerate(rows, start=start):
            about = {
                "codepoint": codepoint,
                "char": chr(codepoint),
                "font": FONTS[font],
                "view": view,
                "class": shard.classes[codepoint],
                "name": unicodedata.name(chr(codepoint)),
            }
            yield (
                f"{shard.number:05d}{i:04d}",
                {
                    "png": render.png(image_HxW),
                    "txt": caption(FONTS[font], codepoint).encode(),
                    "json": json.dumps(about).encode(),
                },
            )


def render_masters(examples: Examples) -> dict[tuple[int, int], Image.Image]:
    """What `drawn` draws these examples from, by font and code point."""
    return {
        (font, codepoint): render.master(font_file(FONTS[font]), codepoint)
        for font, codepoint in sorted(set(_pairs(examples)))
    }


def render_examples(examples: Examples, masters: dict[tuple[int, int], Image.Image]) -> np.ndarray:
    """Their images, uint8 N x 24 x 24; a few hundred at a time are fastest."""
    seeds_N = np.empty(len(examples), np.uint64)
    for font in np.unique(examples.font_N):
        here_N = examples.font_N == font
        seeds_N[here_N] = render.seeds_of(
            FONTS[font], examples.codepoint_N[here_N], examples.view_N[here_N]
        )
    return render.views([masters[pair] for pair in _pairs(examples)], seeds_N)


def _pairs(examples: Examples) -> list[tuple[int, int]]:
    return list(zip(examples.font_N.tolist(), examples.codepoint_N.tolist(), strict=True))


# --- the recipe, and what is already there ------------------------------------------------------


def _recipe(views: int, limit_characters: int | None, shard_examples: int) -> dict[str, Any]:
    """What fixes the bytes: our parameters, the fonts, and the libraries that draw and count."""
    if views < 1 or shard_examples < 1:
        raise DataError(f"views={views} and shard_examples={shard_examples} must be above 0")
    held_out = HELD_OUT if limit_characters is None else min(HELD_OUT, limit_characters // 10)
    parameters: dict[str, Any] = {
        "views": views,
        "limit_characters": limit_characters,
        "held_out": held_out,
        "shard_examples": shard_examples,
        "size": render.SIZE,
        "rotation_degrees": render.ROTATION_DEGREES,
        "scale_share": render.SCALE_SHARE,
        "shift_pixels_of_48": render.SHIFT_PIXELS,
        "gain_share": render.GAIN_SHARE,
        "noise_sd_of_255": render.NOISE_SD,
        "fonts": {
            font: hashlib.sha256(font_file(font).read_bytes()).hexdigest()[:16] for font in FONTS
        },
        "unicode": unicodedata.unidata_version,
    }
    libraries = {
        "pillow": PIL.__version__,
        "freetype": PIL.features.version("freetype2"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "sentencepiece": sentencepiece.__version__,
    }
    recipe = {"version": VERSION, "parameters": parameters, "libraries": libraries}
    canonical = json.dumps(recipe, sort_keys=True)
    return {**recipe, "hash": hashlib.sha256(canonical.encode()).hexdigest()[:16]}


def _finished(out: Path, recipe: dict[str, Any]) -> Dataset | None:
    """The data set if it is whole; None if something is still to be written.

    Other library versions do not make a whole data set wrong: it is what its fingerprint says.
    """
    about = read_manifest(out)
    if about is None:
        return None
    theirs = about.get("recipe", {})
    if (theirs.get("version"), theirs.get("parameters")) != (VERSION, recipe["parameters"]):
        raise _other(out, theirs, recipe)
    sizes: dict[str, int] = about.get("bytes", {})
    torn = [name for name, size in sizes.items() if not _has_size(out / name, size)]
    if sizes and not torn:
        return Dataset.open(out)
    if theirs != recipe:
        raise _other(out, theirs, recipe)
    for name in torn:
        (out / name).unlink(missing_ok=True)
    (out / DATASET_FILE).rename(out / BEGUN)
    write_json(out / BEGUN, {"recipe": recipe})
    return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _begin(out: Path, recipe: dict[str, Any]) -> None:
    """Makes the folder, or checks that what it holds is the beginning of this recipe."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        begun = read_json(out / BEGUN)
        if begun is None:
            if any(out.iterdir()):
                raise DataError(
                    f"{out} is not empty and holds no glyphs; choose another --out, or "
                    "--force to write over what has the same names"
                )
            write_json(out / BEGUN, {"recipe": recipe})
        elif begun.get("recipe") != recipe:
            raise _other(out, begun.get("recipe", {}), recipe)
    except OSError as error:
        raise _disk_error(out, error) from None


def _other(out: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> DataError:
    changes = [
        f"{name} {theirs.get(group, {}).get(name)!r} there, {value!r} now"
        for group in ("parameters", "libraries")
        for name, value in ours[group].items()
        if theirs.get(group, {}).get(name) != value and name != "fonts"
    ]
    what = "; ".join(changes) or "other fonts or another version"
    return DataError(
        f"{out} holds another recipe ({what}); choose another --out, or --force to write it anew"
    )


def _clear(out: Path, recipe: dict[str, Any]) -> None:
    """Removes what `write_glyphs` and its followers wrote, and nothing else."""
    for split in SPLITS:
        for path in [*out.glob(f"{split}-*.tar"), *out.glob(f"{split}-*.tar.index.npz")]:
            path.unlink()
    for name in (DATASET_FILE, BEGUN, TOKENIZER, CLASS_NAMES, TEMPLATES, "samples.png"):
        (out / name).unlink(missing_ok=True)
    for name in ("embeddings", "cache"):
        shutil.rmtree(out / name, ignore_errors=True)
    if out.is_dir():
        write_json(out / BEGUN, {"recipe": recipe})


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _disk_error(out: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {out}: {error.strerror or error}; make room or choose another folder and "
        "run again (complete shards are kept)"
    )
