"""Writes the pages of `results/` and the README's summary from their templates.

Every `*.md.in` below `results/` gives the page beside it: `<study>/finding.md.in` by
`publish.finding`, the others with the placeholders of `publish.fill` and these of their own:

    {studies}  {verdicts on the paper}  {verdicts on ours}  {untested claims}, see `publish.summary`

A study without a snapshot has no finding yet: its template is skipped.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from analysis.errors import AnalysisError
from analysis.publish.fill import fill
from analysis.publish.finding import MADE, render_finding, summary
from analysis.publish.sources import Published
from analysis.publish.summary import describe_studies, untested, verdict_table

MAIN = "glyphs"  # whose finding the README summarises
FINDING = "finding.md.in"
WIDTH = 125  # characters of a line in the README
_SECTION = re.compile(r"(<!-- summary: [^>]* -->\n).*?(<!-- end of summary -->)", re.DOTALL)


def render_pages(results: str | Path, readme: str | Path | None = None) -> dict[Path, str]:
    """Every page, and `readme` with its summary, by path.

    Raises:
      AnalysisError: a template does not agree with the records, or a file cannot be read.
    """
    published = Published(folder=Path(results))
    pages = {}
    for template in sorted(published.folder.rglob("*.md.in")):
        study = template.parent.name
        if template.name != FINDING:
            pages[template.with_suffix("")] = _page(template, published)
        elif study in published.studies:
            pages[template.with_suffix("")] = render_finding(template, published, study)
    if readme is not None:
        finding = pages[(published.folder / MAIN / FINDING).with_suffix("")]
        pages[Path(readme)] = _with_summary(Path(readme), finding)
    return pages


def write_pages(results: str | Path, readme: str | Path | None = None) -> list[Path]:
    """Writes what `render_pages` returns, all or nothing; returns the files."""
    pages = render_pages(results, readme)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


def _page(template: Path, published: Published) -> str:
    text = template.read_text(encoding="utf-8")
    made = {
        "{studies}": lambda: describe_studies(published),
        "{verdicts on the paper}": lambda: verdict_table(published, ours=False),
        "{verdicts on ours}": lambda: verdict_table(published, ours=True),
        "{untested claims}": lambda: untested(published),
    }
    for placeholder, make in made.items():
        if placeholder in text:
            text = text.replace(placeholder, make())
    try:
        return MADE.format(name=template.name) + fill(text, published)
    except AnalysisError as error:
        raise AnalysisError(f"{template}: {error}") from None


def _with_summary(readme: Path, finding: str) -> str:
    """The README with the section "In short" of the finding between its two comments."""
    text = readme.read_text(encoding="utf-8")
    if not _SECTION.search(text):
        raise AnalysisError(f"{readme}: no <!-- summary: ... --> and <!-- end of summary -->")
    points = (
        textwrap.fill(
            paragraph, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
        for paragraph in summary(finding)
    )
    lines = "".join(f"{point}\n" for point in points)
    return _SECTION.sub(lambda match: f"{match[1]}{lines}{match[2]}", text)
