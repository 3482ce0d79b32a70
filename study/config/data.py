"""The training data of a cell: data set, tokens, image size, and corruption."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Fraction, Positive, Seed

Resize = Literal["bicubic", "bilinear"]
Pad = Literal["eos", "pad"]
LowerCase = Literal["unicode", "ascii"] | None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Corruption:
    """Noise in the training data (paper Sec. 4.10, Fig. 7); see `study.data.corruption`.

    Attributes:
      image: Probability that an image is replaced by uniform noise.
      text: Probability that a text is replaced by random tokens of a random length.
      alignment: Fraction of the examples whose texts are shuffled among them.
      resample_each_epoch: Draw the corruption again at every visit of an example, instead of once
        for the whole run. The paper does not say which.
      window: Shuffle texts within windows of this many consecutive examples; None shuffles within
        an epoch. If the batch size is a multiple of it, each misplaced text is in the same batch
        as its own image, as in the paper. Needs `resample_each_epoch`.
      until_examples: Corrupt only the first this many examples of the run, so that the data change
        there; None corrupts all.
      seed: Random seed. Cells with equal seeds corrupt the same examples, and a smaller
        probability corrupts a subset of what a larger one does.
    """

    image: Fraction = 0.0
    text: Fraction = 0.0
    alignment: Fraction = 0.0
    resample_each_epoch: bool = False
    window: Annotated[int, Field(gt=1)] | None = None
    until_examples: Positive | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.window is not None and not self.resample_each_epoch:
            raise ValueError(
                f"data.corruption.window: {self.window} needs resample_each_epoch=True, because "
                "an example has other neighbours in the stream at each visit"
            )
        others = self.window is not None or self.until_examples is not None or self.seed
        if self.is_identity and (self.resample_each_epoch or others):
            raise ValueError(
                "data.corruption: resample_each_epoch, window, until_examples and seed have no "
                "effect when image, text and alignment are all 0; leave them out"
            )

    @property
    def is_identity(self) -> bool:
        return self.image == self.text == self.alignment == 0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Global:
    """A permutation of all examples in each epoch. Needs data on a local disk to be fast."""

    kind: Literal["global"] = "global"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Blocks:
    """A permutation of blocks of neighbouring examples, then of examples within a few blocks.

    Data in a bucket are then read in long runs. It trains as the global order does if the examples
    were shuffled once when the shards were written, and worse if they are sorted: see
    `results/bench/shuffle.md`.

    Attributes:
      size: Examples per block.
      open: Blocks that are shuffled together: a window of `size * open` examples. With several
        hosts, give a window of as many examples as each of them trains of a batch; a longer one is
        read by several.
    """

    kind: Literal["blocks"] = "blocks"
    size: Positive = 256
    open: Positive = 64


Order = Global | Blocks
Mix = tuple[tuple[str, Positive], ...]


def _read_order(order: object) -> object:
    """`--set data.order=blocks` means blocks of the default size."""
    return {"kind": order} if isinstance(order, str) else order


def _read_mix(mix: Any) -> Any:
    """Sorts the sets and reduces the weights, so that equal mixes have equal ids.

    Takes a mapping as well, as in `--set 'data.mix={"cc12m": 3, "coco": 1}'`.
    """
    try:
        weights = dict(mix)
        lengths = len(weights), len(mix)
    except (TypeError, ValueError):
        raise ValueError(_HOW_TO_MIX) from None
    if lengths[0] < lengths[1]:
        raise ValueError("each data set may be named once")
    for name, weight in weights.items():
        if type(weight) is not int or weight < 1:
            raise ValueError(f"the weight of {name} is {weight!r}; {_HOW_TO_MIX}")
    divisor = math.gcd(*weights.values()) or 1
    return tuple((name, weights[name] // divisor) for name in sorted(weights))


_HOW_TO_MIX = 'give data sets with whole numbers above 0, such as {"cc12m": 3, "coco": 1}'


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Data:
    """The training examples, in the order fixed by (dataset, seed); see `study.data.stream`.

    Attributes:
      dataset: Folder of the data set under the data root.
      split: Split to train on.
      text_length: Tokens per text; the paper uses 16, and 64 in Sec. 4.6.
      corruption: Noise added to the examples.
      tokenizer: SentencePiece model in the folder of the data set; None uses the one that the
        data set names.
      lower_case: Lower all capitals ("unicode"), only A to Z ("ascii", as the paper's code base
        does), or none (None).
      sticky_eos: End every text with EOS or padding; otherwise a text that is cut has no EOS.
      pad: Fill a text with "eos", as SigLIP was trained, or with the tokenizer's "pad" token, as
        SigLIP 2 was.
      resize: Filter that resizes images; see `study.data.images.decode`. It does not apply to
        cached embeddings, whose images were resized when they were embedded.
      flip: Mirror half of the training images, chosen by (seed, i).
      max_bad_share: Replace examples that cannot be read, up to this fraction of all.
      order: The order of the examples; see `study.data.order`.
      mix: Data sets to train on and their weights, `dataset` among them: (("cc12m", 3), ("coco",
        1)) takes three examples of cc12m for each one of coco. Empty trains on `dataset` alone.
        Classes, prompts and evaluations remain those of `dataset`, and `split` is that of each set.
    """

    dataset: str = "glyphs"
    split: str = "train"
    text_length: Positive = 16
    corruption: Corruption = Field(default_factory=Corruption)
    tokenizer: str | None = None
    lower_case: LowerCase = "unicode"
    sticky_eos: bool = True
    pad: Pad = "eos"
    resize: Resize = "bicubic"
    flip: bool = False
    max_bad_share: Fraction = 0.01
    order: Annotated[Order, Field(discriminator="kind"), BeforeValidator(_read_order)] = Field(
        default_factory=Global
    )
    mix: Annotated[Mix, BeforeValidator(_read_mix)] = ()

    def __post_init__(self) -> None:
        if not self.mix:
            return
        names = self.datasets
        if len(names) == 1:
            raise ValueError(f"data.mix: {names[0]} is the only data set; leave the mix out")
        if self.dataset not in names:
            raise ValueError(
                f"data.mix: {self.dataset} is not among {', '.join(names)}; add it, or set "
                "data.dataset to one of them, whose classes and evaluations the cell then uses"
            )

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets to train on."""
        return tuple(name for name, _ in self.mix) or (self.dataset,)
