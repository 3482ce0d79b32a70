"""Scenes: two glyphs next to each other on one page, with both names as the caption.

Made from the characters of the glyphs data set for one question: do the effects of corrupted data
on the losses depend on that data set's simplicity? In glyphs each caption has four renders. In
scenes every caption is unique, and an image can match a text in one half only.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from study.data.embed_shards import embed_dataset
from study.data.embeddings import is_complete
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
from study.data.formats.webdataset import write_shard
from study.data.glyphs import hog_lda, render
from study.data.glyphs.characters import FONTS, Characters, Examples
from study.data.glyphs.write import HELD_OUT, VIEWS, captions, render_examples, render_masters
from study.data.glyphs.write import prepare as prepare_glyphs
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.permute import ROUNDS, permute
from study.data.tokenizer import train_tokenizer

NAME, VERSION = "glyph-scenes", 1
SPLITS = ("train", "val_font", "test_font")
SHARD_EXAMPLES = 8192
HALF = render.SIZE
PAGE = 2 * HALF  # side in pixels; the glyphs are in the middle rows
TOWER, DIM = f"hog-lda-{hog_lda.DIM}x2", 2 * hog_lda.DIM

_ROWS = slice(HALF // 2, HALF // 2 + HALF)
_KEY = np.arange(1, ROUNDS + 1, dtype=np.uint32)
_TOKENIZER_SHARDS = 4
_CHUNK = 512  # scenes rendered at a time


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> Dataset:
    """Makes the glyphs data set, and scenes with embeddings in `<data_root>/glyph-scenes`.

    Each split has as many scenes as that of the glyphs data set has examples.

    Raises:
      DataError: the folder holds something else, or the disk is full or read-only.
    """
    glyphs = prepare_glyphs(data_root, progress)
    characters = Characters.of_fonts(limit=None, held_out=HELD_OUT)
    return make_scenes(Path(data_root) / NAME, glyphs, characters, progress=progress)


def make_scenes(
    out: Path,
    glyphs: Dataset,
    characters: Characters,
    *,
    views: int = VIEWS,
    workers: int = 2,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Writes scenes of these characters and their embeddings; keeps finished ones.

    Arguments:
      glyphs: the data set whose tower embeds each half.
      views: scenes for each training pair of font and character.

    Raises:
      DataError: see `prepare`.
    """
    recipe = {"version": VERSION, "views": views, "glyphs": glyphs.fingerprint}
    manifest = read_manifest(out)
    if manifest is None:
        try:
            _write(out, recipe, characters, views, workers, progress)
        except OSError as error:
            raise DataError(
                f"cannot write {out}: {error.strerror or error}; make room and run again"
            ) from None
    elif manifest.get("recipe") != recipe:
        raise DataError(
            f"{out} holds scenes of other glyphs, or something else; remove it and run again"
        )
    dataset = Dataset.open(out)
    if not is_complete(dataset, TOWER):
        tower = TwoHalves(hog_lda.fit(glyphs))
        embed_dataset(dataset, tower, TOWER, workers=workers, progress=progress)
    return dataset


@dataclasses.dataclass(frozen=True)
class TwoHalves:
    """Applies a tower to each half of a scene and concatenates the embeddings, unit length."""

    half: hog_lda.HogLda
    size: int = PAGE
    channels: int = 1

    @property
    def dim(self) -> int:
        return 2 * self.half.dim

    @property
    def metadata(self) -> dict[str, Any]:
        """The tower's entries in tower.json."""
        kind = "one tower on the left half and on the right half"
        return {"kind": kind, "half": self.half.metadata}

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        """Embeddings, float32 N x 2E, of uint8 grayscale images N x 48 x 48 x 1."""
        rows_NxHxWxC = images_NxHxWxC[:, _ROWS]
        halves = (self.half(rows_NxHxWxC[:, :, :HALF]), self.half(rows_NxHxWxC[:, :, HALF:]))
        return np.concatenate(halves, axis=1) * np.float32(0.5**0.5)


# --- shards -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    path: Path
    number: int
    left: Examples
    right: Examples

    def captions(self) -> list[str]:
        names = zip(captions(self.left), captions(self.right), strict=True)
        return [f"{left} BESIDE {right}" for left, right in names]


def _write(
    out: Path,
    recipe: dict[str, Any],
    characters: Characters,
    views: int,
    workers: int,
    progress: ProgressFn,
) -> None:
    """Writes all but the embeddings to a temporary folder, and renames it when it is complete."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shards, splits = [], {}
    for split in SPLITS:
        left = characters.of_split(split).repeat(views if split == "train" else 1).shuffle()
        right = left[permute(np.arange(len(left)), size=len(left), key=_KEY)]
        names = []
        for number, start in enumerate(range(0, len(left), SHARD_EXAMPLES)):
            rows = slice(start, start + SHARD_EXAMPLES)
            names.append(f"{split}-{number:05d}.tar")
            shards.append(
                _Shard(path=part / names[-1], number=number, left=left[rows], right=right[rows])
            )
        splits[split] = (names, len(left))
    for done, _ in enumerate(map_unordered(_write_shard, shards, workers=workers), start=1):
        progress("rendering scenes", done, len(shards))
    # The first shards are a fair sample and have all words of the rest.
    texts = [text for shard in shards[:_TOKENIZER_SHARDS] for text in shard.captions()]
    (part / TOKENIZER).write_bytes(train_tokenizer(texts))
    write_lines(part / CLASS_NAMES, characters.class_names)
    write_lines(part / TEMPLATES, ["{}"])
    write_manifest(part, name=NAME, version=VERSION, splits=splits, recipe=recipe)
    part.rename(out)


def _write_shard(shard: _Shard) -> int:
    return write_shard(shard.path, _render(shard))


def _render(shard: _Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    masters = render_masters(shard.left) | render_masters(shard.right)
    texts = shard.captions()
    for start in range(0, len(shard.left), _CHUNK):
        rows = slice(start, start + _CHUNK)
        pages_NxHxW = np.zeros((len(shard.left[rows]), PAGE, PAGE), np.uint8)
        pages_NxHxW[:, _ROWS, :HALF] = render_examples(shard.left[rows], masters)
        pages_NxHxW[:, _ROWS, HALF:] = render_examples(shard.right[rows], masters)
        for i, page_HxW in enumerate(pages_NxHxW, start=start):
            metadata = {
                name: {
                    "codepoint": int(examples.codepoint_N[i]),
                    "font": FONTS[examples.font_N[i]],
                    "view": int(examples.view_N[i]),
                }
                for name, examples in (("left", shard.left), ("right", shard.right))
            }
            yield (
                f"{shard.number:05d}{i:04d}",
                {
                    "png": render.encode_png(page_HxW),
                    "txt": texts[i].encode(),
                    "json": json.dumps(metadata).encode(),
                },
            )
