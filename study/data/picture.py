"""A page of samples with their captions, to look at before anything is trained on them."""

from __future__ import annotations

import io
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from study.data.dataset import Dataset
from study.data.shards import ShardReader

_IMAGE, _WIDTH, _LINE, _LINES, _GAP, _TITLE = 120, 190, 14, 4, 12, 34


def samples_picture(dataset: Dataset, split: str, rows: int, cols: int) -> bytes:
    """A PNG of rows x cols examples, evenly spaced over the split, captions beneath.

    Raises:
      DataError: no such split, or a shard that cannot be read.
    """
    reader = ShardReader.of(dataset, split)
    count = min(rows * cols, len(reader))
    height = _IMAGE + _LINES * _LINE + _GAP
    page = Image.new("RGB", (cols * _WIDTH + _GAP, rows * height + _TITLE + _GAP), "white")
    draw = ImageDraw.Draw(page)
    title = f"{dataset.name}: {split}, {len(reader):,} examples"
    draw.text((_GAP, 8), title, fill="black", font=_font(16))
    index = np.linspace(0, len(reader) - 1, count).astype(int).tolist() if count else []
    for place, i in enumerate(index):
        left, top = _GAP + place % cols * _WIDTH, _TITLE + place // cols * height
        page.paste(_thumbnail(reader, i), (left, top))
        lines = textwrap.wrap(reader.text(i), width=24, max_lines=_LINES, placeholder=" ...")
        for line, text in enumerate(lines):
            at = (left, top + _IMAGE + 3 + line * _LINE)
            draw.text(at, text, fill="black", font=_font(11))
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def _thumbnail(reader: ShardReader, i: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(reader.image(i))) as image:
            colour = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise reader.damage(i, f"its image does not decode ({error})") from None
    scale = _IMAGE / max(colour.size)
    size = (max(1, round(colour.width * scale)), max(1, round(colour.height * scale)))
    # Enlarged pixels stay square: what is seen is what a tower gets.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return colour.resize(size, how)


def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
