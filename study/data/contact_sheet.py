"""Draws a page of examples with their captions, to inspect a data set before training on it."""

from __future__ import annotations

import io
import textwrap

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from study.data.formats.dataset import HINT, Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.images import open_image, to_8bit

# Pixels, except for _LINES of a caption.
_IMAGE, _WIDTH, _LINE, _LINES, _GAP, _TITLE = 120, 190, 14, 4, 12, 34


def draw_contact_sheet(dataset: Dataset, split: str, rows: int, cols: int) -> bytes:
    """Draws rows x cols examples, evenly spaced over the split, with their captions.

    A bad example is an empty red frame with the reason as its caption.

    Returns:
      The page as PNG.

    Raises:
      DataError: an unknown split, or a shard that cannot be read.
    """
    reader = open_split(dataset, split)
    height = _IMAGE + _LINES * _LINE + _GAP
    page = Image.new("RGB", (cols * _WIDTH + _GAP, rows * height + _TITLE + _GAP), "white")
    draw = ImageDraw.Draw(page)
    font_file = font_manager.findfont("DejaVu Sans")
    title_font, font = (ImageFont.truetype(font_file, size) for size in (16, 11))
    title = f"{dataset.name}: {split}, {len(reader):,} examples"
    draw.text((_GAP, 8), title, fill="black", font=title_font)
    for n, i in enumerate(sample(len(reader), rows * cols)):
        left, top = _GAP + n % cols * _WIDTH, _TITLE + n // cols * height
        try:
            image, text, color = thumbnail(reader, i), reader.text(i), "black"
        except BadExampleError as error:
            text = str(error).removesuffix(f"; {HINT}").removeprefix(f"{reader.path(i)}: ")
            color = "firebrick"
            draw.rectangle((left, top, left + _IMAGE, top + _IMAGE), outline=color)
        else:
            page.paste(image, (left, top))
        lines = textwrap.wrap(text, width=24, max_lines=_LINES, placeholder=" ...")
        for k, line in enumerate(lines):
            draw.text((left, top + _IMAGE + 3 + k * _LINE), line, fill=color, font=font)
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def sample(size: int, most: int) -> list[int]:
    """Up to `most` examples, evenly spaced."""
    count = min(most, size)
    return np.linspace(0, size - 1, count).astype(int).tolist() if count else []


def thumbnail(reader: Reader, i: int) -> Image.Image:
    """The image of an example, its longer side `_IMAGE` pixels."""
    data = reader.image(i)
    try:
        with open_image(data) as image:
            color = to_8bit(image).convert("RGB")
    except Exception as error:  # PIL raises many kinds
        raise reader.bad_example(i, f"its image does not decode ({error})") from None
    scale = _IMAGE / max(color.size)
    size = (max(1, round(color.width * scale)), max(1, round(color.height * scale)))
    # Small images are enlarged without smoothing, so that each of their pixels is visible.
    return color.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
