"""Decodes images (JPEG, PNG, WebP, GIF, BMP) to arrays of one size and number of channels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from study.config.cell import Resize

# Pillow also reads formats that run other programs (EPS) or that no training set uses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# Above what a 61-megapixel camera makes; as RGB such an image takes 256 MiB in Pillow.
MAX_PIXELS = 1 << 26
_GRAY_MODES = ("1", "L", "I", "I;16", "F")


def open_image(data: bytes) -> Image.Image:
    """Opens an encoded image without decompressing its pixels.

    The checksums of a PNG are verified, which Pillow does not do while it decodes one. Bytes
    after the end of an image are ignored.

    Raises:
      ValueError: the header declares more than `MAX_PIXELS` pixels.
      Exception: whatever Pillow raises for damaged bytes, `SyntaxError` included.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        image.close()
        raise ValueError(f"it declares {size} pixels, more than {MAX_PIXELS:,}")
    if image.format != "PNG":
        return image
    image.verify()  # which closes the image
    return Image.open(io.BytesIO(data), formats=FORMATS)


def decode(data: bytes, *, size: int, channels: int, resize: Resize = "bicubic") -> np.ndarray:
    """uint8 size x size x channels (1 or 3), the whole image squeezed to a square.

    "bicubic" resizes with antialiasing; "bilinear" without, as the paper's code base does.

    Raises what `open_image` raises.
    """
    with open_image(data) as image:
        page: Image.Image = image
        mode = "L" if channels == 1 else "RGB"
        if page.mode != mode:
            page = to_8bit(page).convert(mode)
        if page.size != (size, size):
            page = _resized(page, size, resize)
        return np.asarray(page).reshape(size, size, channels)


def _resized(page: Image.Image, size: int, resize: Resize) -> Image.Image:
    if resize == "bicubic":
        return page.resize((size, size), Image.Resampling.BICUBIC)
    # PIL's `resize` always widens its filter to the scale; its affine transform never does.
    whole = (0, 0, page.width, page.height)
    return page.transform(
        (size, size), Image.Transform.EXTENT, whole, resample=Image.Resampling.BILINEAR
    )


def count_channels(data: bytes) -> int:
    """1 for a grayscale image, else 3. Raises what `open_image` raises."""
    with open_image(data) as image:
        return 1 if image.mode in _GRAY_MODES else 3


def to_8bit(image: Image.Image) -> Image.Image:
    """16-bit grayscale scaled to 8 bits, which PIL would clip; transparency on white.

    White is what a page is and what img2dataset takes: a black icon on nothing would be all black.
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype("u1"))
    if "A" in image.getbands() or "transparency" in image.info:
        see_through = image.convert("RGBA")
        white = Image.new("RGBA", see_through.size, "white")
        return Image.alpha_composite(white, see_through)
    return image


def scale_pixels(pixels_NxHxWxC: np.ndarray) -> np.ndarray:
    """uint8 pixels as the towers take them: float32 in [-1, 1]."""
    image_NxHxWxC = pixels_NxHxWxC.astype(np.float32)
    image_NxHxWxC *= np.float32(1 / 127.5)
    image_NxHxWxC -= 1
    return image_NxHxWxC
