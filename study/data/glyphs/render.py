"""Pixels of the glyphs data set: masters from fonts, augmented views, PNG bytes.

A view is a function of (font, code point, view) and of nothing else: its random numbers are a
hash of the three, so neither the order of calls nor the number of processes can change it.
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
EM = 32  # pixels of a master per em: capitals are about 23 high, so accents have room

# "Strength 0.5" of the recipe: the largest shift, turn and scaling, the gain and the noise.
ROTATION_DEGREES, SCALE_SHARE, SHIFT_PIXELS, GAIN_SHARE, NOISE_SD = 5.0, 0.06, 2.0, 0.15, 8.0

_INK_LIMIT = 44
_NOISE_DRAWS = 1 << 18


@functools.lru_cache(maxsize=64)
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)


def master(font: Path, codepoint: int) -> Image.Image:
    """The character as 48x48 grayscale, white ink on black.

    All characters share one size and baseline, so that case and accents can be told apart;
    ink that does not fit is shrunk until it does.
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
        baseline = MASTER // 2 + round(0.36 * EM)  # the middle of a capital on the middle line
        y = min(max(baseline + top, 0), MASTER - ink.height)
    page = Image.new("L", (MASTER, MASTER))
    page.paste(ink, ((MASTER - ink.width) // 2, y))
    return page


def views(masters: Sequence[Image.Image], seeds_N: np.ndarray) -> np.ndarray:
    """One augmented view of each master: uint8 Nx24x24, by the seeds (see `seeds_of`)."""
    draws_NxP = rng.uniform(rng.streams(seeds_N, 6))
    turned_Nx24x24 = np.empty((len(masters), SIZE, SIZE), np.float32)
    for i, (page, draws_P) in enumerate(zip(masters, draws_NxP, strict=True)):
        turned = page.transform(
            (SIZE, SIZE), Image.Transform.AFFINE, _affine(draws_P), Image.Resampling.BILINEAR
        )
        turned_Nx24x24[i] = np.frombuffer(turned.tobytes(), np.uint8).reshape(SIZE, SIZE)
    gain_N = (1 - GAIN_SHARE * draws_NxP[:, 4]).astype(np.float32)
    offset_N = (draws_NxP[:, 5] * _NOISE_DRAWS).astype(np.int64)
    turned_Nx24x24 *= gain_N[:, None, None]
    turned_Nx24x24 += _noise_strips()[offset_N].reshape(-1, SIZE, SIZE)
    return np.clip(np.rint(turned_Nx24x24), 0, 255).astype(np.uint8)


def _affine(draws_P: np.ndarray) -> tuple[float, ...]:
    """Turn, scaling and shift about the middle, as PIL's map from a view to its master.

    A step of one pixel in the view is two in the master, between whose pixels the samples then
    fall: bilinear sampling averages the four around, so nothing aliases.
    """
    turn, grow, right, down = (float(2 * draw - 1) for draw in draws_P[:4])
    angle = math.radians(ROTATION_DEGREES * turn)
    per_pixel = MASTER / SIZE / (1 + SCALE_SHARE * grow)
    c, s = math.cos(angle) * per_pixel, math.sin(angle) * per_pixel
    x = SIZE / 2 + SHIFT_PIXELS * right * SIZE / MASTER
    y = SIZE / 2 + SHIFT_PIXELS * down * SIZE / MASTER
    return (c, s, MASTER / 2 - c * x - s * y, -s, c, MASTER / 2 + s * x - c * y)


# --- random numbers -----------------------------------------------------------------------------


def seeds_of(font: str, codepoints_N: np.ndarray, views_N: np.ndarray) -> np.ndarray:
    """The uint64 seeds of (font, code point, view)."""
    key_N = (codepoints_N.astype(np.uint64) << np.uint64(16)) | views_N.astype(np.uint64)
    font_word = np.uint64(zlib.crc32(font.encode()))
    return rng.mix64((rng.mix64(key_N + rng.GOLDEN_GAMMA) ^ font_word) + rng.GOLDEN_GAMMA)


@functools.cache
def _noise_strips() -> np.ndarray:
    """All runs of 24*24 numbers in one strip of near-normal noise, float32.

    A view takes one run, because fresh noise for each pixel would cost more than all the rest.
    A number is the sum of four 16-bit uniforms: mean 0, the wanted deviation, and exact, so that
    no library can round it in its own way.
    """
    count = _NOISE_DRAWS + SIZE * SIZE
    bits_1xP = rng.streams(np.zeros(1, np.uint64), count)
    total_P = bits_1xP.view(np.uint16).reshape(count, 4).sum(1, dtype=np.int32) - 2 * 65535
    strip_P = total_P.astype(np.float32) * np.float32(NOISE_SD / (65536 / math.sqrt(3)))
    return np.lib.stride_tricks.sliding_window_view(strip_P, SIZE * SIZE)


# --- PNG ----------------------------------------------------------------------------------------


def png(image_HxW: np.ndarray) -> bytes:
    """A grayscale PNG, the same bytes for the same pixels and zlib.

    Written by hand because the fingerprint of the data set covers these bytes: Pillow's encoder
    makes others, and takes eight times as long for an image of this size.
    """
    height, width = image_HxW.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0 = none
    rows[:, 1:] = image_HxW
    # Noise has no repeats to find: Huffman coding alone is the smallest and the fastest.
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
