"""Writes a page of examples as HTML, whose texts a browser draws in every script.

The picture of `contact_sheet` has the characters of one font and no shaping: Arabic letters stand
apart in it, Indic vowels after their consonants, and Chinese is empty boxes.
"""

from __future__ import annotations

import base64
import html
import io

from study.data.contact_sheet import sample, thumbnail
from study.data.formats.dataset import HINT, Dataset
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError, Reader

_STYLE = """
body { font: 13px/1.4 "Noto Sans", "DejaVu Sans", sans-serif; margin: 12px; }
main { display: grid; gap: 16px; }
img { width: 120px; display: block; }
p { margin: 2px 0; overflow-wrap: anywhere; }
b { color: #777; font-weight: normal; font-size: 11px; }
h1 { font-size: 16px; }
.bad { color: firebrick; }
"""


def draw_contact_page(
    dataset: Dataset, split: str, rows: int, cols: int, *, languages: tuple[str, ...] = ()
) -> str:
    """A page of rows x cols examples, evenly spaced over the split, with their captions.

    Arguments:
      languages: show the captions in these languages, of a split that has them by language; else
        the text, with its language if the metadata name one.

    Returns:
      The page as HTML in one file. A bad example is a red line with the reason.

    Raises:
      DataError: an unknown split, or a shard that cannot be read.
    """
    reader = open_split(dataset, split)
    title = html.escape(f"{dataset.name}: {split}, {len(reader):,} examples")
    cells = "".join(
        f"<div>{_example(reader, i, languages)}</div>\n" for i in sample(len(reader), rows * cols)
    )
    columns = f"grid-template-columns: repeat({cols}, minmax(130px, 1fr))"
    return (
        f'<!doctype html>\n<html><head><meta charset="utf-8"><title>{title}</title>'
        f'<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n<main style="{columns}">\n'
        f"{cells}</main></body></html>\n"
    )


def _example(reader: Reader, i: int, languages: tuple[str, ...]) -> str:
    try:
        page = io.BytesIO()
        thumbnail(reader, i).save(page, "PNG")
        texts = _texts(reader, i, languages)
    except BadExampleError as error:
        reason = str(error).removesuffix(f"; {HINT}").removeprefix(f"{reader.path(i)}: ")
        return f'<p class="bad">{html.escape(reason)}</p>'
    data = base64.b64encode(page.getvalue()).decode()
    # In <bdi> the first letter of a text decides its direction. `lang` chooses the font.
    lines = "".join(
        f"<p><b>{html.escape(language)}</b> "
        f'<bdi lang="{html.escape(language)}">{html.escape(text)}</bdi></p>'
        for language, text in texts
    )
    return f'<img alt="" src="data:image/png;base64,{data}">{lines}'


def _texts(reader: Reader, i: int, languages: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of a language ("" if unknown) and a text."""
    about = reader.json(i)
    captions = about.get("captions")
    if languages and isinstance(captions, dict):
        return [(lang, text) for lang in languages for text in captions.get(lang, [])]
    return [(str(about.get("language", "")), reader.text(i))]
