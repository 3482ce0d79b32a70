"""Which (image, text) pairs of a batch enter the sigmoid loss (paper Sec. 4.8).

The values here only say and count; `study.losses` selects. Counts are Python integers: the
paper's grid passes 2**53 pairs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class AllPairs:
    """All B*B pairs: B positives and B*(B-1) negatives."""

    kind: Literal["all"] = "all"
    tag = ""

    def check(self, batch_size: int) -> None:
        del batch_size

    def negatives(self, batch_size: int) -> int:
        """Negatives used per step."""
        return batch_size * (batch_size - 1)

    def count(self, batch_size: int) -> int:
        """Pairs used per step, positives included."""
        return batch_size + self.negatives(batch_size)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Negatives:
    """All positives and, of the negatives, `per_positive` times as many as there are positives.

    keep: "random" ones, the "hard" ones (highest loss, so highest logit) or the "easy" ones.
    per_positive: kept negatives over positives; the paper's 1:1.6 is 1.6.
    scope: picked over the whole "batch", or per image "row". The paper does not say which.

    The number kept is exact: where logits tie at the threshold, the tied pairs share the places
    that are left by weight.
    """

    kind: Literal["negatives"] = "negatives"
    keep: Literal["random", "hard", "easy"]
    per_positive: Annotated[float, Field(gt=0)]
    scope: Literal["batch", "row"] = "batch"

    @property
    def tag(self) -> str:
        return f"{self.keep}{self.per_positive:g}"

    def check(self, batch_size: int) -> None:
        """Raises ValueError when the batch has fewer negatives than asked for."""
        if self.per_positive > batch_size - 1:
            raise ValueError(
                f"loss.pairs.per_positive: {self.per_positive:g} is more than the "
                f"{batch_size - 1} negatives per positive that batch_size={batch_size} has"
            )
        if self.scope == "row" and self.per_positive != int(self.per_positive):
            raise ValueError(
                f"loss.pairs.per_positive: {self.per_positive:g} must be whole when scope='row'"
            )

    def negatives(self, batch_size: int) -> int:
        return round(self.per_positive * batch_size)

    def count(self, batch_size: int) -> int:
        return batch_size + self.negatives(batch_size)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Groups:
    """The batch split into groups of `size`; each example meets only its own group.

    Examples per step (B) and pairs per example (`size`) become two free axes, which the softmax
    loss cannot separate.
    """

    kind: Literal["groups"] = "groups"
    size: Annotated[int, Field(gt=1)]

    @property
    def tag(self) -> str:
        return f"g{self.size}"

    def check(self, batch_size: int) -> None:
        """Raises ValueError when the groups do not fill the batch."""
        if batch_size % self.size:
            raise ValueError(
                f"loss.pairs.size: {self.size} does not divide batch_size={batch_size}"
            )

    def negatives(self, batch_size: int) -> int:
        return batch_size * (self.size - 1)

    def count(self, batch_size: int) -> int:
        return batch_size * self.size


Pairs = AllPairs | Negatives | Groups
