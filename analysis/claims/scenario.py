"""What a simulated study is made of, see `analysis.claims.null_studies`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from analysis.claims.claim import Kind
from analysis.claims.made_cells import Row
from analysis.select.fields import TOP1

REPRODUCED: tuple[Kind, ...] = ("reproduced",)
CONTRADICTED: tuple[Kind, ...] = ("contradicted",)
BOTH: tuple[Kind, ...] = (*REPRODUCED, *CONTRADICTED)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Studies with one truth.

    Attributes:
      truth: in words.
      rows: the cells, see `made_cells`.
      wrong: by claim, the verdicts that are wrong at this truth, which is at their edge.
      false: the claims that are false by far.
      metric: the column of the true quality.
      spiky: the beta2 whose norms spike; None for neither.
    """

    truth: str
    rows: Sequence[Row]
    wrong: dict[str, tuple[Kind, ...]] = field(default_factory=dict)
    false: tuple[str, ...] = ()
    metric: str = TOP1
    spiky: float | None = None

    @property
    def claims(self) -> tuple[str, ...]:
        return (*self.wrong, *self.false)
