"""The contents of the glyphs data set: fonts, characters, their names, and the splits."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import unicodedata
from pathlib import Path

import numpy as np

from study.data.glyphs.render import view_seeds

# Settings are chosen on the validation font; the two test fonts are only for results. Each of the
# three is bold, oblique or both, and the training fonts include its relatives.
VALIDATION_FONTS = ("DejaVuSansMono-BoldOblique",)
TEST_FONTS = ("DejaVuSans-BoldOblique", "DejaVuSerif-Italic")
TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
)
FONTS = TRAINING_FONTS + VALIDATION_FONTS + TEST_FONTS
SPLITS = ("train", "val_font", "test_font", "test_chars")

# Each word of a held-out character must occur in the names of this many training characters.
WORD_CHARACTERS = 3


@functools.cache
def font_file(font: str) -> Path:
    """The font file inside matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"


def style(font: str) -> str:
    """The words for a font's style: "BOLD OBLIQUE SERIF"; "" for the plain one."""
    words = {
        "BOLD": "Bol" in font,
        "OBLIQUE": "Oblique" in font or "Ita" in font,
        "MONO": "Mono" in font,
        "SERIF": "Serif" in font,
        "TIMES": font.startswith("STIX"),
    }
    return " ".join(word for word, applies in words.items() if applies)


def name_words(name: str) -> str:
    """The words of a character's Unicode name; "DOTS-1234" becomes DOTS D1 D2 D3 D4."""
    parts = name.replace("-", " ").split()
    return " ".join(
        " ".join(f"D{digit}" for digit in part) if part.isdecimal() else part for part in parts
    )


def templates() -> list[str]:
    """The prompt templates: the name alone, and with each style of a training font."""
    return ["{}", *sorted({f"{style(font)} {{}}" for font in TRAINING_FONTS if style(font)})]


@functools.cache
def codepoints(font: str) -> tuple[int, ...]:
    """The named characters of a font with visible ink: no controls, no separators."""
    from matplotlib.ft2font import FT2Font, LoadFlags

    face, visible = FT2Font(str(font_file(font))), []
    for codepoint in face.get_charmap():
        character = chr(codepoint)
        if unicodedata.category(character)[0] in "CZ" or not unicodedata.name(character, ""):
            continue
        left, bottom, right, top = face.load_char(codepoint, flags=LoadFlags.NO_SCALE).bbox
        if left < right and bottom < top:
            visible.append(codepoint)
    return tuple(sorted(visible))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Renders of characters, in the order in which they are written.

    Attributes:
      font_N: index into `FONTS`.
      view_N: number of the render of this (font, character) pair.
    """

    font_N: np.ndarray
    codepoint_N: np.ndarray
    view_N: np.ndarray

    def __len__(self) -> int:
        return len(self.font_N)

    def __getitem__(self, part: slice | np.ndarray) -> Examples:
        return Examples(
            font_N=self.font_N[part], codepoint_N=self.codepoint_N[part], view_N=self.view_N[part]
        )

    def pairs(self) -> list[tuple[int, int]]:
        """(font, code point) of each example."""
        return list(zip(self.font_N.tolist(), self.codepoint_N.tolist(), strict=True))

    def seeds(self, purpose: str = "") -> np.ndarray:
        """A hash of each example and `purpose`, uint64 N."""
        seeds_N = np.empty(len(self), np.uint64)
        for font in np.unique(self.font_N):
            mask_N = self.font_N == font
            seeds_N[mask_N] = view_seeds(
                f"{purpose}{FONTS[font]}", self.codepoint_N[mask_N], self.view_N[mask_N]
            )
        return seeds_N

    def shuffle(self) -> Examples:
        """In the order of their hashes, so that the first N are a fair sample of all."""
        return self[np.argsort(self.seeds("order "), kind="stable")]

    def repeat(self, views: int) -> Examples:
        """Each example as views 0, 1, ... `views` - 1."""
        return Examples(
            font_N=self.font_N.repeat(views),
            codepoint_N=self.codepoint_N.repeat(views),
            view_N=np.tile(np.arange(views), len(self)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Characters:
    """All characters, sorted by code point; the position of one is its class.

    Attributes:
      held_out: the characters of the split `test_chars`, which no other split has.
    """

    codepoints: tuple[int, ...]
    held_out: frozenset[int]

    @classmethod
    def of_fonts(cls, *, limit: int | None, held_out: int) -> Characters:
        """The characters of the training fonts: the first `limit` by code point, or all.

        Arguments:
          held_out: number of characters to hold out, at most. Each of their words stays in the
            names of `WORD_CHARACTERS` others.
        """
        characters = {c for font in TRAINING_FONTS for c in codepoints(font)}
        chosen = tuple(sorted(characters)[:limit])
        names = {c: set(name_words(unicodedata.name(chr(c))).split()) for c in chosen}
        count = collections.Counter(word for words in names.values() for word in words)
        held: set[int] = set()
        for c in sorted(chosen, key=lambda c: hashlib.sha256(b"hold out %d" % c).digest()):
            if len(held) == held_out:
                break
            if all(count[word] > WORD_CHARACTERS for word in names[c]):
                held.add(c)
                count.subtract(names[c])
        return cls(codepoints=chosen, held_out=frozenset(held))

    @property
    def class_names(self) -> list[str]:
        return [name_words(unicodedata.name(chr(c))) for c in self.codepoints]

    def of_split(self, split: str) -> Examples:
        """The (font, character) pairs of a split, as view 0, shuffled."""
        fonts = {"val_font": VALIDATION_FONTS, "test_font": TEST_FONTS}.get(split, TRAINING_FONTS)
        chosen = self.held_out if split == "test_chars" else set(self.codepoints) - self.held_out
        pairs = [(FONTS.index(f), c) for f in fonts for c in codepoints(f) if c in chosen]
        pairs_Nx2 = np.array(pairs, np.int64).reshape(-1, 2)
        return Examples(
            font_N=pairs_Nx2[:, 0],
            codepoint_N=pairs_Nx2[:, 1],
            view_N=np.zeros(len(pairs_Nx2), np.int64),
        ).shuffle()
