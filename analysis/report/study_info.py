"""What a study's grid says, for its report: plain values, so that no grid is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from analysis.report.prose import Block


class Assumption(NamedTuple):
    """A setting that the paper does not state, what was taken, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """What a study's grid says and no record holds. All but the name may be left out.

    Attributes:
      study: its name.
      question: one line.
      paper: the figure, table or section of the paper that it belongs to.
      assumptions: what its settings rest on where the paper says nothing.
      commands: what to type to get these records and this page, in order.
      planned: what the grid lists, see `frame.cells`; None where there is no grid.
      records: the folder of the records, if not of the study's name.
      finding: what was written about it, see `analysis.report.prose`.
    """

    study: str
    question: str = ""
    paper: str = ""
    assumptions: tuple[Assumption, ...] = ()
    commands: tuple[str, ...] = ()
    planned: tuple[Mapping[str, Any], ...] | None = None
    records: str | None = None
    finding: tuple[Block, ...] = ()

    @property
    def folder(self) -> str:
        """The folder of the records, below the root of all records."""
        return self.records or self.study
