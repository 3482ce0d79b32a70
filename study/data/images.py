"""Decodes images (JPEG, PNG, WebP, GIF, BMP) to arrays of one size and number of channels."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from study.config.data import Resize

# Pillow also reads formats that start other programs (EPS) or that no training set uses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# Above a 61-megapixel camera; Pillow needs 256 MiB for such an image as RGB.
MAX_PIXELS = 1 << 26
_GRAY_MODES = ("1", "L", "I", "I;16", "F")


def open_image(data: bytes) -> Image.Image:
    """Opens an encoded image without decompressing its pixels.

    The checksums of a PNG are verified, because Pillow does not check them when it decodes. Bytes
    after the end of an image are ignored.

    Raises:
      ValueError: the header declares more than `MAX_PIXELS` pixels.
      Exception: any error of Pillow for damaged bytes, `SyntaxError` included.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        image.close()
        raise ValueError(f"it declares {size} pixels, more than {MAX_PIXELS:,}")
    if image.format == "PNG":
        _verify_png(data)
    return image


def _verify_png(data: bytes) -> None:
    """Compares the checksum of each chunk; Pillow's `verify` would have to parse the file again."""
    start = 8  # after the signature
    while (kind := data[start + 4 : start + 8]) != b"IEND":
        end = start + 8 + int.from_bytes(data[start : start + 4])
        if not kind or int.from_bytes(data[end : end + 4]) != zlib.crc32(data[start + 4 : end]):
            raise ValueError(f"its PNG is damaged in the chunk at byte {start}")
        start = end + 4


def decode(data: bytes, *, size: int, channels: int, resize: Resize = "bicubic") -> np.ndarray:
    """Decodes an image and resizes it to a square, ignoring its aspect ratio.

    Arguments:
      data: the encoded image.
      channels: 1 or 3.
      resize: "bicubic" with antialiasing, or "bilinear" without, as in the paper's code base.

    Returns:
      uint8 size x size x channels.

    Raises:
      Exception: see `open_image`.
    """
    with open_image(data) as image:
        page: Image.Image = image
        mode = "L" if channels == 1 else "RGB"
        if page.mode != mode:
            page = to_8bit(page).convert(mode)
        if page.size != (size, size):
            if resize == "bicubic":
                page = page.resize((size, size), Image.Resampling.BICUBIC)
            else:  # PIL's `resize` always antialiases, its affine transform never does
                extent = (0, 0, page.width, page.height)
                page = page.transform(
                    (size, size), Image.Transform.EXTENT, extent, resample=Image.Resampling.BILINEAR
                )
        return np.asarray(page).reshape(size, size, channels)


class DecodeOptions(NamedTuple):
    """Size in pixels, channels, filter, and the share of each side that a central crop keeps."""

    size: int
    channels: int
    resize: Resize = "bicubic"
    crop: float = 1.0


def decode_into(
    data_K: Sequence[bytes],
    out_NxHxWxC: np.ndarray,
    row_K: Sequence[int],
    options: DecodeOptions,
) -> dict[int, str]:
    """Decodes images into rows of `out_NxHxWxC`: resized to size / crop, then cropped.

    Returns:
      Why an image does not decode, by its number in range(K). Its row is left as it is.
    """
    whole = int(options.size / options.crop)
    left = (whole - options.size) // 2
    center = slice(left, left + options.size)
    errors = {}
    for k, (data, row) in enumerate(zip(data_K, row_K, strict=True)):
        try:
            pixels_HxWxC = decode(
                data, size=whole, channels=options.channels, resize=options.resize
            )
        except Exception as error:  # PIL raises many kinds, SyntaxError among them
            errors[k] = str(error)
        else:
            out_NxHxWxC[row] = pixels_HxWxC[center, center]
    return errors


def count_channels(data: bytes) -> int:
    """1 for a grayscale image, else 3. Raises as `open_image` does."""
    with open_image(data) as image:
        return 1 if image.mode in _GRAY_MODES else 3


def to_8bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit grayscale to 8 bits (PIL would clip it), and blends transparency with white.

    White is also img2dataset's background; on black, a black icon would be invisible.
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype("u1"))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image
