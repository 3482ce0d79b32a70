"""A page of samples with their captions, to look at before anything is trained on them."""

from __future__ import annotations

import io
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from study.data.formats.dataset import HINT, Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader
from study.data.images import open_image, to_8bit

_IMAGE, _WIDTH, _LINE, _LINES, _GAP, _TITLE = 120, 190, 14, 4, 12, 34


def draw_contact_sheet(dataset: Dataset, split: str, rows: int, cols: int) -> bytes:
    """A PNG of rows x cols examples, evenly spaced over the split, captions beneath.

    An example that cannot be used is an empty frame with the reason beneath, in red.

    Raises:
      DataError: no such split, or a shard that cannot be read.
    """
    reader = open_split(dataset, split)
    count = min(rows * cols, len(reader))
    height = _IMAGE + _LINES * _LINE + _GAP
    page = Image.new("RGB", (cols * _WIDTH + _GAP, rows * height + _TITLE + _GAP), "white")
    draw = ImageDraw.Draw(page)
    title = f"{dataset.name}: {split}, {len(reader):,} examples"
    draw.text((_GAP, 8), title, fill="black", font=_font(16))
    index = np.linspace(0, len(reader) - 1, count).astype(int).tolist() if count else []
    for place, i in enumerate(index):
        left, top = _GAP + place % cols * _WIDTH, _TITLE + place // cols * height
        try:
            picture, text, colour = _thumbnail(reader, i), reader.text(i), "black"
        except BadExampleError as error:
            said = str(error).removesuffix(f"; {HINT}")
            text = said.removeprefix(f"{reader.path(i)}: ")
            picture, colour = None, "firebrick"
        if picture is None:
            draw.rectangle((left, top, left + _IMAGE, top + _IMAGE), outline=colour)
        else:
            page.paste(picture, (left, top))
        lines = textwrap.wrap(text, width=24, max_lines=_LINES, placeholder=" ...")
        for line, text in enumerate(lines):
            at = (left, top + _IMAGE + 3 + line * _LINE)
            draw.text(at, text, fill=colour, font=_font(11))
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def _thumbnail(reader: Reader, i: int) -> Image.Image:
    data = reader.image(i)
    try:
        with open_image(data) as image:
            colour = to_8bit(image).convert("RGB")
    except Exception as error:  # PIL raises many kinds
        raise reader.bad_example(i, f"its image does not decode ({error})") from None
    scale = _IMAGE / max(colour.size)
    size = (max(1, round(colour.width * scale)), max(1, round(colour.height * scale)))
    # Enlarged pixels stay square: what is seen is what a tower gets.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return colour.resize(size, how)


def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
