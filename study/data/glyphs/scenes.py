"""Scenes: two glyphs beside each other on one page, and both their names as the caption.

Made of the glyphs data set for one question: does its having single characters, each caption with
four drawings of its own, decide what corrupted data do to the losses? Here every caption is one
of its kind, and an image can agree with a text in one half and not in the other.
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
    write_manifest,
)
from study.data.formats.webdataset import write_shard
from study.data.glyphs import hog_lda, render
from study.data.glyphs.characters import FONTS, Characters, Examples
from study.data.glyphs.write import (
    HELD_OUT,
    VIEWS,
    captions,
    render_examples,
    render_masters,
    write_lines,
)
from study.data.glyphs.write import prepare as prepare_glyphs
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.stream import ROUNDS, permute
from study.data.tokenizer import train_tokenizer

NAME, VERSION = "glyph-scenes", 1
SPLITS = ("train", "val_font", "test_font")
SHARD_EXAMPLES, SAMPLE = 8192, 4
HALF = render.SIZE
PAGE = 2 * HALF  # pixels of a side; the glyphs stand in its middle rows
BESIDE = "BESIDE"
TOWER, DIM = f"hog-lda-{hog_lda.DIM}x2", 2 * hog_lda.DIM

_ROWS = slice(HALF // 2, HALF // 2 + HALF)
_KEY = np.arange(1, ROUNDS + 1, dtype=np.uint32)


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> Dataset:
    """Scenes and their embeddings, in `<data_root>/glyph-scenes`, and glyphs beside them.

    As many scenes in each split as there are glyphs in that of the glyphs data set.

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
    """The scenes of these characters, and their embeddings by the tower of `glyphs`; see `prepare`.

    What is there is kept; what a killed run left is made anew.
    """
    recipe = {"version": VERSION, "views": views, "glyphs": glyphs.fingerprint}
    about = read_manifest(out)
    if about is None:
        try:
            _write(out, recipe, characters, views, workers, progress)
        except OSError as error:
            raise DataError(
                f"cannot write {out}: {error.strerror or error}; make room and run again"
            ) from None
    elif about.get("recipe") != recipe:
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
    """A tower for glyphs on each half of a scene: its two embeddings in a row, unit length."""

    half: hog_lda.HogLda
    size: int = PAGE
    channels: int = 1

    @property
    def dim(self) -> int:
        return 2 * self.half.dim

    @property
    def metadata(self) -> dict[str, Any]:
        """What the tower is, for tower.json."""
        return {
            "kind": "one tower on the left half and on the right half",
            "half": self.half.metadata,
        }

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


def _write(
    out: Path,
    recipe: dict[str, Any],
    characters: Characters,
    views: int,
    workers: int,
    progress: ProgressFn,
) -> None:
    """Everything but the embeddings, under another name until it is whole."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shards, splits = [], {}
    for split in SPLITS:
        left = characters.of_split(split).repeated(views if split == "train" else 1).shuffled()
        right = left[permute(np.arange(len(left)), size=len(left), key=_KEY)]
        names = []
        for number, start in enumerate(range(0, len(left), SHARD_EXAMPLES)):
            here = slice(start, start + SHARD_EXAMPLES)
            names.append(f"{split}-{number:05d}.tar")
            shards.append(
                _Shard(path=part / names[-1], number=number, left=left[here], right=right[here])
            )
        splits[split] = (names, len(left))
    for done, _ in enumerate(map_unordered(_write_shard, shards, workers=workers), start=1):
        progress("rendering scenes", done, len(shards))
    # Of the first shards alone, a fair sample: there are no other words in the rest.
    sample = [words for shard in shards[:SAMPLE] for words in _captions(shard.left, shard.right)]
    (part / TOKENIZER).write_bytes(train_tokenizer(sample))
    write_lines(part / CLASS_NAMES, characters.class_names)
    write_lines(part / TEMPLATES, ["{}"])
    write_manifest(part, name=NAME, version=VERSION, splits=splits, recipe=recipe)
    part.rename(out)


def _write_shard(shard: _Shard) -> int:
    return write_shard(shard.path, _rendered(shard))


def _rendered(shard: _Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    masters = render_masters(shard.left) | render_masters(shard.right)
    texts = _captions(shard.left, shard.right)
    for start in range(0, len(shard.left), 512):
        here = slice(start, start + 512)
        pages_NxHxW = np.zeros((len(shard.left[here]), PAGE, PAGE), np.uint8)
        pages_NxHxW[:, _ROWS, :HALF] = render_examples(shard.left[here], masters)
        pages_NxHxW[:, _ROWS, HALF:] = render_examples(shard.right[here], masters)
        for i, page_HxW in enumerate(pages_NxHxW, start=start):
            of = [
                {"codepoint": int(e.codepoint_N[i]), "font": FONTS[e.font_N[i]],
                 "view": int(e.view_N[i])}
                for e in (shard.left, shard.right)
            ]  # fmt: skip
            yield (
                f"{shard.number:05d}{i:04d}",
                {
                    "png": render.png(page_HxW),
                    "txt": texts[i].encode(),
                    "json": json.dumps({"left": of[0], "right": of[1]}).encode(),
                },
            )


def _captions(left: Examples, right: Examples) -> list[str]:
    halves = zip(captions(left), captions(right), strict=True)
    return [f"{a} {BESIDE} {b}" for a, b in halves]
