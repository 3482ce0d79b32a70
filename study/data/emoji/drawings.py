"""The drawings of each emoji by four artists, and their renders.

An emoji is named by its code points in hex, without U+FE0F: "1f408-200d-2b1b" is the black cat.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from study.data import rng
from study.data.emoji.packages import FLUENT, NOTO, TWEMOJI, openmoji_folder, read_json

SIZE = 224  # pixels
PLAIN_SCALE = 0.9
ROTATION_DEGREES, SCALES, SHIFT_SHARE = 15.0, (0.7, 1.0), 0.06
SKIN_TONES = {f"{tone:x}" for tone in range(0x1F3FB, 0x1F400)}

Svgs = dict[str, str]  # the svg element of each emoji


@dataclasses.dataclass(frozen=True)
class View:
    """A render of a drawing. View 0 is plain; each other one is turned, scaled and moved."""

    emoji: str
    artist: str
    number: int

    @property
    def seed(self) -> np.uint64:
        """A hash of this view."""
        word = np.uint64(zlib.crc32(f"{self.artist} {self.emoji}".encode()))
        key = (word << np.uint64(16)) | np.uint64(self.number)
        return rng.mix64(np.array([key]) + rng.GOLDEN_GAMMA)[0]


def read_drawings(packages: Path) -> dict[str, Svgs]:
    """The drawings of each artist. Emoji with a skin tone are left out."""
    drawings = {
        artist: _read_iconify(*read_json(packages, package, ["chars.json", "icons.json"]))
        for artist, package in (("noto", NOTO), ("fluent", FLUENT), ("twemoji", TWEMOJI))
    }
    drawings["openmoji"] = _read_openmoji(openmoji_folder())
    return drawings


def emoji_key(code_points: str) -> str | None:
    """The name of an emoji here; None if it has a skin tone."""
    parts = [part for part in code_points.lower().split("-") if part != "fe0f"]
    return None if SKIN_TONES & set(parts) else "-".join(parts)


def _read_iconify(chars: dict, icons: dict) -> Svgs:
    svgs = {}
    for code_points, name in chars.items():
        icon, key = icons["icons"].get(name), emoji_key(code_points)
        if icon is None or key is None:  # an alias, or a skin tone
            continue
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        svgs[key] = f'<svg viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    return svgs


def _read_openmoji(folder: Path) -> Svgs:
    svgs = {}
    for path in sorted(folder.glob("*.svg")):
        if (key := emoji_key(path.stem)) is not None:
            text = path.read_text(encoding="utf-8")
            svgs[key] = re.sub(r"^.*?(?=<svg)", "", text, count=1, flags=re.DOTALL)
    return svgs


def render(svg: str, view: View, size: int = SIZE) -> bytes:
    """A PNG of `size` pixels on white."""
    import resvg_py

    transform = f"translate(50 50) {_transform(view)} translate(-50 -50)"
    page = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 100 100"><g transform="{transform}">{svg}</g></svg>'
    )
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=page, width=size, height=size, background="#ffffff", skip_system_fonts=True
        )
    )


def _transform(view: View) -> str:
    """SVG's transform around the centre of a page of 100 x 100."""
    if view.number == 0:
        return f"scale({PLAIN_SCALE})"
    draws_P = rng.uniform(rng.streams(np.array([view.seed]), 4))[0]
    angle = ROTATION_DEGREES * (2 * draws_P[0] - 1)
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * draws_P[1]
    right, down = 100 * SHIFT_SHARE * (2 * draws_P[2:] - 1)
    # Four decimals are 1e-4 of a percent of the page, and the same on every machine.
    return f"translate({right:.4f} {down:.4f}) rotate({angle:.4f}) scale({scale:.4f})"


def shuffle(views: Sequence[View]) -> list[View]:
    """In the order of their hashes, so that the first N are a fair sample of all."""
    return sorted(views, key=lambda view: (int(view.seed), view.emoji, view.artist))
