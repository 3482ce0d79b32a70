"""Renders the glyphs data set: masters from fonts, augmented views, PNG.

A view is a function of (font, code point, view number) alone: its random numbers are a hash of the
three, so the order of calls and the number of processes do not matter.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from study.data import rng

MASTER, SIZE = 48, 24
EM = 32  # pixels of a master per em: capitals are about 23 high, which leaves room for accents

# The largest rotation, scaling, shift (in master pixels) and loss of gain; noise in gray levels.
ROTATION_DEGREES, SCALE_SHARE, SHIFT_PIXELS, GAIN_SHARE, NOISE_SD = 5.0, 0.06, 2.0, 0.15, 8.0

_INK_LIMIT = 44
_NOISE_DRAWS = 1 << 18


@functools.lru_cache(maxsize=64)
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)


def master(font: Path, codepoint: int) -> Image.Image:
    """The character as a 48x48 grayscale image, white ink on black.

    All characters share one font size and baseline, so that upper and lower case differ. Ink that
    does not fit is shrunk.

    Raises:
      ValueError: the font draws no ink for the character.
    """
    mask, (_, top) = _font(font).getmask2(chr(codepoint), "L", anchor="ls")
    width, height = mask.size
    ink = Image.frombytes("L", (width, height), bytes(mask))
    box = ink.getbbox()
    if box is None:
        raise ValueError(f"U+{codepoint:04X} has no ink in {font.name}")
    ink, top = ink.crop(box), top + box[1]
    shrink = min(1.0, _INK_LIMIT / ink.width, _INK_LIMIT / ink.height)
    if shrink < 1:
        size = (max(1, round(ink.width * shrink)), max(1, round(ink.height * shrink)))
        ink = ink.resize(size, Image.Resampling.BILINEAR)
        y = (MASTER - ink.height) // 2
    else:
        baseline = MASTER // 2 + round(0.36 * EM)  # centers capitals vertically
        y = min(max(baseline + top, 0), MASTER - ink.height)
    page = Image.new("L", (MASTER, MASTER))
    page.paste(ink, ((MASTER - ink.width) // 2, y))
    return page


def views(masters: Sequence[Image.Image], seeds_N: np.ndarray) -> np.ndarray:
    """Renders one augmented view of each master.

    Arguments:
      masters: N images from `master`.
      seeds_N: uint64, from `view_seeds`.

    Returns:
      uint8 N x 24 x 24.
    """
    draws_NxP = rng.uniform(rng.streams(seeds_N, 6))
    pixels_Nx24x24 = np.empty((len(masters), SIZE, SIZE), np.float32)
    for i, (page, draws_P) in enumerate(zip(masters, draws_NxP, strict=True)):
        view = page.transform(
            (SIZE, SIZE), Image.Transform.AFFINE, _affine(draws_P), Image.Resampling.BILINEAR
        )
        pixels_Nx24x24[i] = np.frombuffer(view.tobytes(), np.uint8).reshape(SIZE, SIZE)
    gain_N = (1 - GAIN_SHARE * draws_NxP[:, 4]).astype(np.float32)
    offset_N = (draws_NxP[:, 5] * _NOISE_DRAWS).astype(np.int64)
    pixels_Nx24x24 *= gain_N[:, None, None]
    pixels_Nx24x24 += _noise_strips()[offset_N].reshape(-1, SIZE, SIZE)
    return np.clip(np.rint(pixels_Nx24x24), 0, 255).astype(np.uint8)


def _affine(draws_P: np.ndarray) -> tuple[float, ...]:
    """PIL's coefficients of the map from a view to its master: rotation, scaling and shift.

    One pixel of the view is two of the master. Samples fall between master pixels, and bilinear
    sampling averages the four around, so nothing aliases.
    """
    rotation, scale, right, down = (float(2 * draw - 1) for draw in draws_P[:4])
    angle = math.radians(ROTATION_DEGREES * rotation)
    per_pixel = MASTER / SIZE / (1 + SCALE_SHARE * scale)
    c, s = math.cos(angle) * per_pixel, math.sin(angle) * per_pixel
    x = SIZE / 2 + SHIFT_PIXELS * right * SIZE / MASTER
    y = SIZE / 2 + SHIFT_PIXELS * down * SIZE / MASTER
    return (c, s, MASTER / 2 - c * x - s * y, -s, c, MASTER / 2 + s * x - c * y)


def view_seeds(font: str, codepoints_N: np.ndarray, views_N: np.ndarray) -> np.ndarray:
    """A uint64 seed for each (font, code point, view number)."""
    key_N = (codepoints_N.astype(np.uint64) << np.uint64(16)) | views_N.astype(np.uint64)
    font_word = np.uint64(zlib.crc32(font.encode()))
    return rng.mix64((rng.mix64(key_N + rng.GOLDEN_GAMMA) ^ font_word) + rng.GOLDEN_GAMMA)


@functools.cache
def _noise_strips() -> np.ndarray:
    """All windows of 24*24 numbers in a strip of approximately normal noise, float32.

    A view takes one window, because fresh noise would cost more than the rest of the rendering.
    A number is a scaled sum of four 16-bit uniforms: an exact integer until the last
    multiplication, so that all libraries agree.
    """
    count = _NOISE_DRAWS + SIZE * SIZE
    bits_1xP = rng.streams(np.zeros(1, np.uint64), count)
    total_P = bits_1xP.view(np.uint16).reshape(count, 4).sum(1, dtype=np.int32) - 2 * 65535
    strip_P = total_P.astype(np.float32) * np.float32(NOISE_SD / (65536 / math.sqrt(3)))
    return np.lib.stride_tricks.sliding_window_view(strip_P, SIZE * SIZE)


def encode_png(image_HxW: np.ndarray) -> bytes:
    """Encodes a grayscale image as PNG; the same pixels and zlib give the same bytes.

    The fingerprint of the data set covers these bytes. Pillow's encoder makes other bytes, and
    takes eight times as long for an image of this size.
    """
    height, width = image_HxW.shape
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of a row is its filter, 0
    rows[:, 1:] = image_HxW
    # Noise does not repeat, so Huffman coding alone is smallest and fastest.
    packer = zlib.compressobj(6, zlib.DEFLATED, 10, 5, zlib.Z_HUFFMAN_ONLY)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", head),
            _chunk(b"IDAT", packer.compress(rows.tobytes()) + packer.flush()),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
