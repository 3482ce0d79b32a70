"""A study's written finding: text in which every sentence cites verdicts.

A text file of paragraphs and `## headings`, separated by blank lines. Each sentence ends with the
claims that it rests on and their verdicts, separated by semicolons:

    Sigmoid leads at small batches. [sigmoid ahead at small batch: reproduced]

A paragraph whose lines begin with `>` describes the method and cites none, and a comment is left
out. When records change, a verdict may change too: the page then marks the sentence. `stale` lists
these, and every number with an interval that none of the sentence's verdicts holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from analysis.claims import CLAIMS, Verdict, parse_intervals
from analysis.claims.claim import AtBudget, Condition
from analysis.errors import AnalysisError

_RESTS_ON = re.compile(r"\[([^\[\]]*:[^\[\]]*)\]")  # with a colon: `[1.40, 1.60]` is an interval


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A claim that a sentence rests on.

    claim: its name. quoted: its verdict as the text has it. verdict: its verdict on the records,
    None before `with_verdicts`.
    """

    claim: str
    quoted: str
    verdict: Verdict | None = None

    @property
    def stale(self) -> bool:
        return self.verdict is not None and self.verdict.verdict != self.quoted


@dataclass(frozen=True, kw_only=True)
class Sentence:
    text: str
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Block:
    """A heading, a paragraph, or a note that cites no claim."""

    kind: Literal["heading", "paragraph", "note"]
    sentences: tuple[Sentence, ...]


def read(path: str | Path) -> tuple[Block, ...]:
    """The finding in a file.

    Raises:
      AnalysisError: no such file, a sentence without a claim, or an unknown claim.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise AnalysisError(f"cannot read {path}: {error.strerror or error}") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str = "finding") -> tuple[Block, ...]:
    """The finding in a text; `source` is named in errors."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        whole = " ".join(lines)
        if whole.startswith("<!--"):
            continue
        if whole.startswith("## "):
            blocks.append(Block(kind="heading", sentences=(Sentence(text=whole[3:]),)))
        elif all(line.startswith(">") for line in lines):
            note = " ".join(line.removeprefix(">").strip() for line in lines)
            blocks.append(Block(kind="note", sentences=(Sentence(text=note),)))
        else:
            blocks.append(Block(kind="paragraph", sentences=_sentences(whole, source)))
    return tuple(blocks)


def with_verdicts(blocks: Sequence[Block], verdicts: Sequence[Verdict]) -> tuple[Block, ...]:
    """The same blocks, each citation with its verdict on the records."""
    by_name = {one.name: one for one in verdicts}
    return tuple(
        Block(
            kind=block.kind,
            sentences=tuple(
                Sentence(
                    text=sentence.text,
                    citations=tuple(
                        replace(citation, verdict=by_name.get(citation.claim))
                        for citation in sentence.citations
                    ),
                )
                for sentence in block.sentences
            ),
        )
        for block in blocks
    )


def stale(blocks: Sequence[Block]) -> list[str]:
    """A line for each verdict or interval in the text that these records do not give."""
    sentences = [one for block in blocks for one in block.sentences]
    lines = [
        f"the finding takes {citation.claim!r} for {citation.quoted}; "
        f"on these records it is {citation.verdict.verdict}: {one.text!r}"
        for one in sentences
        for citation in one.citations
        if citation.stale and citation.verdict
    ]
    for one in sentences:
        verdicts = [citation.verdict for citation in one.citations if citation.verdict]
        known = {number for verdict in verdicts for number in parse_intervals(verdict.sentence)}
        known |= {number for verdict in verdicts for number in _rounded(verdict)}
        known |= {(-estimate, -high, -low) for estimate, low, high in known}
        names = " or ".join(repr(verdict.name) for verdict in verdicts)
        lines += [
            f"the finding prints {estimate:g} [{low:g}, {high:g}]; "
            f"on these records {names} do not: {one.text!r}"
            for estimate, low, high in parse_intervals(one.text)
            if verdicts and (estimate, low, high) not in known
        ]
    return list(dict.fromkeys(lines))


def _rounded(verdict: Verdict) -> list[tuple[float, float, float]]:
    """What a verdict rests on, as text has it."""
    parts: list[Condition | AtBudget] = [*verdict.conditions, *verdict.budgets]
    return [(round(p.estimate, 2), round(p.low, 2), round(p.high, 2)) for p in parts]


def _sentences(text: str, source: str) -> tuple[Sentence, ...]:
    *parts, last = _RESTS_ON.split(text)
    if last.strip():
        raise AnalysisError(
            f"{source}: {last.strip()[:60]!r} rests on no claim; end it with [claim: verdict], or "
            "begin the paragraph's lines with >"
        )
    return tuple(
        Sentence(
            text=words.strip(), citations=tuple(_citation(one, source) for one in claims.split(";"))
        )
        for words, claims in zip(parts[::2], parts[1::2], strict=True)
    )


def _citation(text: str, source: str) -> Citation:
    claim, _, quoted = (part.strip() for part in text.rpartition(":"))
    if claim not in {one.name for one in CLAIMS}:
        raise AnalysisError(f"{source}: no claim is named {claim!r}; `study claims` lists them")
    return Citation(claim=claim, quoted=quoted)
