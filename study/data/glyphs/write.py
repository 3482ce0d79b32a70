"""Writes the built-in data set: Unicode characters in 16 fonts, with their names as captions.

Real image-text pairs, compositional, without a download: every character that the fonts inside
matplotlib can draw, 24x24 pixels with random shift, rotation and scale. A caption is the font's
style and the character's name: "BOLD OBLIQUE CYRILLIC SMALL LETTER ZHE WITH DIAERESIS".
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

from study.config import Data
from study.data.contact_sheet import draw_contact_sheet
from study.data.formats.dataset import (
    CLASS_NAMES,
    DATASET_FILE,
    TEMPLATES,
    TOKENIZER,
    DataError,
    Dataset,
    read_manifest,
    write_lines,
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
    name_words,
    style,
    templates,
)
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.sources import load_labels
from study.data.texts import load_tokens
from study.data.tokenizer import train_tokenizer
from study.records.record import read_json, write_json

NAME, VERSION = "glyphs", 1
SHARD_EXAMPLES, HELD_OUT, VIEWS = 8192, 750, 4
BEGUN_FILE = "begun.json"
_CHUNK = 512  # examples rendered at a time


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> Dataset:
    """Makes all data that a study on glyphs reads, in `<data_root>/glyphs`; keeps what exists."""
    return make_glyphs(Path(data_root) / NAME, progress=progress)


def make_glyphs(
    out: str | Path,
    *,
    views: int = VIEWS,
    workers: int = 2,
    force: bool = False,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Writes the data set, its embeddings by `hog_lda`, tokens, labels and samples.png.

    Raises:
      DataError: see `write_glyphs` and `study.data.glyphs.hog_lda.embed`.
    """
    dataset = write_glyphs(out, views=views, workers=workers, force=force, progress=progress)
    hog_lda.embed(dataset, workers=workers, progress=progress)
    samples = dataset.folder / "samples.png"
    if not samples.exists():
        with contextlib.suppress(OSError):  # optional
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
    """Writes the data set to `out`, or the rest of one that was interrupted.

    The bytes depend on neither `workers` nor interruptions.

    Arguments:
      views: augmented views of each training pair.
      force: overwrite a data set with another recipe.
      limit_characters: only the first characters, with as large a share of them held out.

    Raises:
      DataError: `out` holds something else, or the disk is full or read-only.
    """
    out = Path(out)
    recipe = _recipe(views, limit_characters, shard_examples)
    try:
        if force:
            _clear(out, recipe)
        elif (finished := _open_finished(out, recipe)) is not None:
            return finished
        _begin(out, recipe)
        characters = Characters.of_fonts(
            limit=limit_characters, held_out=recipe["parameters"]["held_out"]
        )
        class_of = {c: i for i, c in enumerate(characters.codepoints)}
        shards: list[_Shard] = []
        splits = {}
        for split in SPLITS:
            # All views of a pair are in one shard.
            repeats = views if split == "train" else 1
            pairs, step = characters.of_split(split), max(1, shard_examples // repeats)
            names = []
            for number, start in enumerate(range(0, len(pairs), step)):
                examples = pairs[start : start + step].repeat(repeats).shuffle()
                names.append(f"{split}-{number:05d}.tar")
                path = out / names[-1]
                shards.append(_Shard(path, len(shards), examples, class_of))
            splits[split] = (names, repeats * len(pairs))
        missing = [shard for shard in shards if not shard.path.exists()]
        for done, _ in enumerate(map_unordered(_write_shard, missing, workers=workers), start=1):
            progress("rendering", len(shards) - len(missing) + done, len(shards))
        (out / TOKENIZER).write_bytes(train_tokenizer(captions(characters.of_split("train"))))
        write_lines(out / CLASS_NAMES, characters.class_names)
        write_lines(out / TEMPLATES, templates())
        dataset = write_manifest(out, name=NAME, version=VERSION, splits=splits, recipe=recipe)
        (out / BEGUN_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or error}; make room or choose another folder "
            "and run again (complete shards are kept)"
        ) from None
    return dataset


def caption(font: str, codepoint: int) -> str:
    """The style of the font and the words of the character's name."""
    return f"{style(font)} {name_words(unicodedata.name(chr(codepoint)))}".strip()


def captions(examples: Examples) -> list[str]:
    return [caption(FONTS[font], codepoint) for font, codepoint in examples.pairs()]


def render_masters(examples: Examples) -> dict[tuple[int, int], Image.Image]:
    """The masters of these examples, by (font, code point), for `render_examples`."""
    return {
        (font, codepoint): render.master(font_file(FONTS[font]), codepoint)
        for font, codepoint in sorted(set(examples.pairs()))
    }


def render_examples(examples: Examples, masters: dict[tuple[int, int], Image.Image]) -> np.ndarray:
    """The images, uint8 N x 24 x 24; fastest for a few hundred examples at a time."""
    return render.views([masters[pair] for pair in examples.pairs()], examples.seeds())


# --- shards -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Shard:
    path: Path
    number: int
    examples: Examples
    class_of: dict[int, int]


def _write_shard(shard: _Shard) -> int:
    return write_shard(shard.path, _render(shard))


def _render(shard: _Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    masters = render_masters(shard.examples)
    for start in range(0, len(shard.examples), _CHUNK):
        part = shard.examples[start : start + _CHUNK]
        images = render_examples(part, masters)
        rows = zip(part.pairs(), part.view_N.tolist(), images, strict=True)
        for i, ((font, codepoint), view, image_HxW) in enumerate(rows, start=start):
            metadata = {
                "codepoint": codepoint,
                "char": chr(codepoint),
                "font": FONTS[font],
                "view": view,
                "class": shard.class_of[codepoint],
                "name": unicodedata.name(chr(codepoint)),
            }
            yield (
                f"{shard.number:05d}{i:04d}",
                {
                    "png": render.encode_png(image_HxW),
                    "txt": caption(FONTS[font], codepoint).encode(),
                    "json": json.dumps(metadata).encode(),
                },
            )


# --- the recipe, and what the folder holds already ----------------------------------------------


def _recipe(views: int, limit_characters: int | None, shard_examples: int) -> dict[str, Any]:
    """Everything that determines the bytes: parameters, fonts and library versions."""
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


def _open_finished(out: Path, recipe: dict[str, Any]) -> Dataset | None:
    """The finished data set of this recipe in `out`; None if some files are missing or truncated.

    Other library versions are accepted: its fingerprint identifies it.
    """
    manifest = read_manifest(out)
    if manifest is None:
        return None
    old = manifest.get("recipe", {})
    if (old.get("version"), old.get("parameters")) != (VERSION, recipe["parameters"]):
        raise _other_recipe(out, old, recipe)
    sizes: dict[str, int] = manifest.get("bytes", {})
    paths = {out / name: size for name, size in sizes.items()}
    torn = [path for path, size in paths.items() if not _has_size(path, size)]
    if sizes and not torn:
        return Dataset.open(out)
    if old != recipe:  # the missing files would come from other library versions
        raise _other_recipe(out, old, recipe)
    for path in torn:
        path.unlink(missing_ok=True)
    (out / DATASET_FILE).rename(out / BEGUN_FILE)
    write_json(out / BEGUN_FILE, {"recipe": recipe})
    return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _begin(out: Path, recipe: dict[str, Any]) -> None:
    """Makes the folder, or checks that it holds an interrupted data set of this recipe."""
    out.mkdir(parents=True, exist_ok=True)
    begun = read_json(out / BEGUN_FILE)
    if begun is None:
        if any(out.iterdir()):
            raise DataError(
                f"{out} is not empty and holds no glyphs; choose another --out, or --force to "
                "overwrite files of the same names"
            )
        write_json(out / BEGUN_FILE, {"recipe": recipe})
    elif begun.get("recipe") != recipe:
        raise _other_recipe(out, begun.get("recipe", {}), recipe)


def _other_recipe(out: Path, old: dict[str, Any], new: dict[str, Any]) -> DataError:
    changes = [
        f"{name} was {old.get(group, {}).get(name)!r}, is {value!r}"
        for group in ("parameters", "libraries")
        for name, value in new[group].items()
        if old.get(group, {}).get(name) != value and name != "fonts"
    ]
    return DataError(
        f"{out} holds another recipe ({'; '.join(changes) or 'other fonts or another version'}); "
        "choose another --out, or --force to overwrite it"
    )


def _clear(out: Path, recipe: dict[str, Any]) -> None:
    """Removes the files of a glyphs data set and nothing else."""
    for split in SPLITS:
        for path in [*out.glob(f"{split}-*.tar"), *out.glob(f"{split}-*.tar.index.npz")]:
            path.unlink()
    for name in (DATASET_FILE, BEGUN_FILE, TOKENIZER, CLASS_NAMES, TEMPLATES, "samples.png"):
        (out / name).unlink(missing_ok=True)
    for name in ("embeddings", "cache"):
        shutil.rmtree(out / name, ignore_errors=True)
    if out.is_dir():
        write_json(out / BEGUN_FILE, {"recipe": recipe})
