"""A finding from its template: each sentence with its verdicts, each measured number filled in.

The text is that of `analysis.report.prose`, with the placeholders of `fill`. Written by hand are
only settings that a verdict prints itself (batch sizes, budgets): so a sentence that a new study
has made false stops the build, and no number can be left over from an old one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.claims import Verdict, parse_intervals
from analysis.errors import AnalysisError
from analysis.publish.fill import PLACEHOLDER, fill
from analysis.publish.sources import Published
from analysis.report import prose
from analysis.report.prose import Sentence

MADE = "<!-- Made from {name} by `make results`. -->\n\n"
SUMMARY = "In short"  # the section that the README repeats
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
_MEASURED = re.compile(r"(?<![\w.])(?!95 %)\d[\d,.]*(?= points| %| times| \[)")


def render_finding(template: Path, published: Published, study: str) -> str:
    """The text of `finding.md` from its template `finding.md.in`.

    Raises:
      AnalysisError: a sentence does not agree with its verdicts, or holds a number typed by hand
        that is measured; one line that names the sentence.
    """
    text = template.read_text(encoding="utf-8")
    if wrong := problems(text, published.verdicts(study).values()):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise AnalysisError(f"{template}: {wrong[0]}{more}")
    try:
        return MADE.format(name=template.name) + fill(text, published, study)
    except AnalysisError as error:
        raise AnalysisError(f"{template}: {error}") from None


def problems(text: str, verdicts: Iterable[Verdict]) -> list[str]:
    """What is wrong with a template, one line for each sentence and reason."""
    blocks = prose.with_verdicts(prose.parse(text), list(verdicts))
    lines = prose.stale(blocks)
    for block in blocks:
        for sentence in block.sentences:
            lines += _typed_numbers(sentence, checked=block.kind == "paragraph")
    return lines


def summary(finding: str) -> list[str]:
    """The paragraphs of the section "In short" of a filled finding, without citations."""
    paragraphs, inside = [], False
    for block in prose.parse(finding):
        if block.kind == "heading":
            inside = block.sentences[0].text == SUMMARY
        elif inside:
            paragraphs.append(" ".join(sentence.text for sentence in block.sentences))
    return paragraphs


def _typed_numbers(sentence: Sentence, *, checked: bool) -> list[str]:
    """Numbers outside of placeholders that are measured, or that no verdict of it prints."""
    typed = PLACEHOLDER.sub("{}", sentence.text)
    measured = _MEASURED.findall(typed)
    if checked:
        known = _settings([one.verdict for one in sentence.citations if one.verdict])
        numbers = (number.replace(",", "") for number in _NUMBER.findall(typed))
        measured += [number for number in numbers if float(number) not in known]
    return [
        f"{number} is typed by hand; a placeholder such as {{CLAIM | .1}} takes it from a verdict: "
        f"{sentence.text!r}"
        for number in dict.fromkeys(measured)
    ]


def _settings(verdicts: Sequence[Verdict]) -> set[float]:
    """The numbers that verdicts print, without their estimates."""
    texts, estimates = [], set()
    for verdict in verdicts:
        texts += [verdict.name, verdict.claim, verdict.sentence, verdict.decide]
        texts += [condition.name for condition in verdict.conditions]
        texts += [str(budget.examples) for budget in verdict.budgets]
        estimates |= {abs(n) for part in parse_intervals(verdict.sentence) for n in part if n % 1}
    numbers = {float(n.replace(",", "")) for text in texts for n in _NUMBER.findall(text)}
    return numbers - estimates
