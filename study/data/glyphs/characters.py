"""What the glyphs data set is made of: fonts, characters, their words, and the splits."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import unicodedata
from pathlib import Path

import numpy as np

from study.data.glyphs.render import seeds_of

# A font outside the training fonts tells how well settings carry over; two more are looked at
# only for results. Each of the three is bold, oblique or both, with relatives left to train on.
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

# A held-out character may use no word that fewer training characters have.
WORD_CHARACTERS = 3


@functools.cache
def font_file(font: str) -> Path:
    """The font as matplotlib ships it."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"


def style(font: str) -> str:
    """The words for a font's looks: "BOLD OBLIQUE SERIF"; "" for the plain one."""
    marks = {
        "BOLD": "Bol" in font,
        "OBLIQUE": "Oblique" in font or "Ita" in font,
        "MONO": "Mono" in font,
        "SERIF": "Serif" in font,
        "TIMES": font.startswith("STIX"),
    }
    return " ".join(word for word, has in marks.items() if has)


def words(name: str) -> str:
    """The words of a character's official name; "DOTS-1234" gives DOTS D1 D2 D3 D4."""
    parts = name.replace("-", " ").split()
    return " ".join(
        " ".join(f"D{digit}" for digit in part) if part.isdecimal() else part for part in parts
    )


def templates() -> list[str]:
    """The prompts: the bare name, and each style that a training font has."""
    return ["{}", *sorted({f"{style(font)} {{}}" for font in TRAINING_FONTS if style(font)})]


@functools.cache
def codepoints(font: str) -> tuple[int, ...]:
    """The named characters of a font that leave ink: no controls, no separators."""
    from matplotlib.ft2font import FT2Font, LoadFlags

    face, found = FT2Font(str(font_file(font))), []
    for codepoint in face.get_charmap():
        character = chr(codepoint)
        if unicodedata.category(character)[0] in "CZ" or not unicodedata.name(character, ""):
            continue
        left, bottom, right, top = face.load_char(codepoint, flags=LoadFlags.NO_SCALE).bbox
        if left < right and bottom < top:
            found.append(codepoint)
    return tuple(sorted(found))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Examples in the order in which they are written. font_N indexes `FONTS`."""

    font_N: np.ndarray
    codepoint_N: np.ndarray
    view_N: np.ndarray

    def __len__(self) -> int:
        return len(self.font_N)

    def __getitem__(self, part: slice | np.ndarray) -> Examples:
        return Examples(
            font_N=self.font_N[part], codepoint_N=self.codepoint_N[part], view_N=self.view_N[part]
        )

    def shuffled(self) -> Examples:
        """By a hash of each example, so that any first few are a fair sample of all."""
        seeds_N = np.empty(len(self), np.uint64)
        for font in np.unique(self.font_N):
            here_N = self.font_N == font
            seeds_N[here_N] = seeds_of(
                f"order {FONTS[font]}", self.codepoint_N[here_N], self.view_N[here_N]
            )
        return self[np.argsort(seeds_N, kind="stable")]

    def repeated(self, views: int) -> Examples:
        """Each example as its views 0, 1, ... `views` - 1."""
        return Examples(
            font_N=self.font_N.repeat(views),
            codepoint_N=self.codepoint_N.repeat(views),
            view_N=np.tile(np.arange(views), len(self)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Characters:
    """All characters by code point; the place of one is its class."""

    codepoints: tuple[int, ...]
    held_out: frozenset[int]

    @classmethod
    def of_fonts(cls, *, limit: int | None, held_out: int) -> Characters:
        """The characters that a training font draws: the first `limit` by code point, or all."""
        drawn = {c for font in TRAINING_FONTS for c in codepoints(font)}
        chosen = tuple(sorted(drawn)[:limit])
        return cls(codepoints=chosen, held_out=_hold_out(chosen, held_out))

    @property
    def class_names(self) -> list[str]:
        return [words(unicodedata.name(chr(c))) for c in self.codepoints]

    def of_split(self, split: str) -> Examples:
        """The (font, character) pairs of a split, as view 0, shuffled."""
        fonts = {"val_font": VALIDATION_FONTS, "test_font": TEST_FONTS}.get(split, TRAINING_FONTS)
        wanted = set(self.codepoints)
        wanted = wanted & self.held_out if split == "test_chars" else wanted - self.held_out
        pairs = [(FONTS.index(f), c) for f in fonts for c in codepoints(f) if c in wanted]
        pairs_Nx2 = np.array(pairs, np.int64).reshape(-1, 2)
        return Examples(
            font_N=pairs_Nx2[:, 0],
            codepoint_N=pairs_Nx2[:, 1],
            view_N=np.zeros(len(pairs_Nx2), np.int64),
        ).shuffled()


def _hold_out(chosen: tuple[int, ...], count: int) -> frozenset[int]:
    """Up to `count` characters, each of whose words stays in `WORD_CHARACTERS` others or more."""
    names = {c: set(words(unicodedata.name(chr(c))).split()) for c in chosen}
    left = collections.Counter(word for name in names.values() for word in name)
    held: set[int] = set()
    for c in sorted(chosen, key=lambda c: hashlib.sha256(b"hold out %d" % c).digest()):
        if len(held) == count:
            break
        if all(left[word] > WORD_CHARACTERS for word in names[c]):
            held.add(c)
            left.subtract(names[c])
    return frozenset(held)
