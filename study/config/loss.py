"""The loss of a cell, and which (image, text) pairs of a batch enter it.

The values here only describe and count; `study.losses` computes. Counts are Python integers,
because the paper's grid passes 2**53 pairs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG

# --- pairs (paper Sec. 4.8) -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class AllPairs:
    """All B*B pairs: B positives and B*(B-1) negatives."""

    kind: Literal["all"] = "all"
    tag = ""

    def check(self, batch_size: int) -> None:
        """Accepts every batch size."""

    def negatives(self, batch_size: int) -> int:
        """Negatives per step."""
        return batch_size * (batch_size - 1)

    def count(self, batch_size: int) -> int:
        """Pairs per step, positives included."""
        return batch_size + self.negatives(batch_size)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Negatives:
    """All positives and a selection of the negatives.

    The number of negatives is exact: where logits tie at the threshold, the tied pairs share the
    remaining places by weight.

    Attributes:
      keep: Which negatives to keep: "random" ones, the "hard" ones (highest logit, so highest
        loss) or the "easy" ones (lowest logit).
      per_positive: Kept negatives per positive; 1.6 is the paper's ratio 1:1.6.
      scope: Select over the whole "batch" or within each image's "row". The paper does not say
        which.
    """

    kind: Literal["negatives"] = "negatives"
    keep: Literal["random", "hard", "easy"]
    per_positive: Annotated[float, Field(gt=0)]
    scope: Literal["batch", "row"] = "batch"

    @property
    def tag(self) -> str:
        return f"{self.keep}{self.per_positive:g}"

    def check(self, batch_size: int) -> None:
        """Checks that the batch has as many negatives as `per_positive` asks for.

        Raises:
          ValueError: It has fewer, or `per_positive` is not a whole number with scope="row".
        """
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
    """The batch split into groups; each example meets only its own group.

    Examples per step (B) and pairs per example (`size`) become two free axes, which the softmax
    loss cannot separate.

    Attributes:
      size: Examples per group; it must divide the batch size.
    """

    kind: Literal["groups"] = "groups"
    size: Annotated[int, Field(gt=1)]

    @property
    def tag(self) -> str:
        return f"g{self.size}"

    def check(self, batch_size: int) -> None:
        """Checks that the groups fill the batch.

        Raises:
          ValueError: `size` does not divide `batch_size`.
        """
        if batch_size % self.size:
            raise ValueError(
                f"loss.pairs.size: {self.size} does not divide batch_size={batch_size}"
            )

    def negatives(self, batch_size: int) -> int:
        return batch_size * (self.size - 1)

    def count(self, batch_size: int) -> int:
        return batch_size * self.size


Pairs = AllPairs | Negatives | Groups

# --- losses ---------------------------------------------------------------------------------------

# What a pair of an image and another example's equal caption is.
SameCaption = Literal["negative", "masked", "positive"]
SameBy = Literal["caption", "class"]
SameSide = Literal["none", "images", "texts", "both"]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Sigmoid:
    """Pairwise sigmoid loss (paper Algorithm 1).

    Attributes:
      t_init: Initial temperature, the factor of the cosine similarities.
      b_init: Initial bias; "prior" is the log-odds of a positive among the chosen pairs,
        -log(negatives per positive), and None trains without a bias.
      bias: How the bias is a parameter: "absolute" trains b in t * s + b, "relative" trains r in
        t * (s - r), from r = -b_init / t_init, so that a change of t keeps the similarity at
        which a pair counts as positive (Bangachev et al., NeurIPS 2025). b is recorded as -t * r.
      pairs: Which pairs of a batch enter the loss.
      same_caption: What a pair is whose captions are equal token for token, beside an example's
        own: a "negative" as in the paper, left out ("masked"), or a further "positive".
      same_by: What must be equal for that: the "caption", or the "class" of the two examples, of
        which equal captions are a small part (`study data false-negatives` counts both).
      same_side: Pairs of two different images, of two different texts, or both, are negatives too.
      queue_examples: The embeddings of this many examples of the last steps are further negatives,
        without gradient: texts for the batch's images, images for its texts. A multiple of the
        batch size.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    t_init: Annotated[float, Field(gt=0)] = 10.0
    b_init: float | Literal["prior"] | None = -10.0
    bias: Literal["absolute", "relative"] = "absolute"
    pairs: Annotated[Pairs, Field(discriminator="kind")] = Field(default_factory=AllPairs)
    same_caption: SameCaption = "negative"
    same_by: SameBy = "caption"
    same_side: SameSide = "none"
    queue_examples: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        defaults = {"same_caption": "negative", "same_side": "none", "queue_examples": 0}
        for name, default in defaults.items():
            if getattr(self, name) != default and not isinstance(self.pairs, AllPairs):
                raise ValueError(
                    f"loss.{name}: only with all pairs of the batch, not with {self.pairs.kind!r}; "
                    "leave one of them out"
                )
        if self.b_init is None and self.bias != "absolute":
            raise ValueError("loss.bias: 'relative' has no effect with b_init=None; leave it out")
        _check_same(self)

    @property
    def has_bias(self) -> bool:
        return self.b_init is not None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Softmax:
    """Bidirectional softmax loss (InfoNCE) over the whole batch, without a bias.

    Attributes:
      t_init: Initial temperature, the factor of the cosine similarities.
      same_caption, same_by, same_side, queue_examples: See `Sigmoid`. Masked pairs are not in the
        normalisers; stored embeddings and pairs of one side are. Where pairs with equal captions
        are positives, the target of a row is spread evenly over its positives.
    """

    kind: Literal["softmax"] = "softmax"
    t_init: Annotated[float, Field(gt=0)] = 10.0
    same_caption: SameCaption = "negative"
    same_by: SameBy = "caption"
    same_side: SameSide = "none"
    queue_examples: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        _check_same(self)

    @property
    def has_bias(self) -> bool:
        return False


def _check_same(loss: Sigmoid | Softmax) -> None:
    if loss.same_by == "class" and loss.same_caption == "negative":
        raise ValueError(
            "loss.same_by: 'class' has no effect with same_caption='negative'; set that to "
            "'masked' or 'positive'"
        )


Loss = Annotated[Sigmoid | Softmax, Field(discriminator="kind")]
