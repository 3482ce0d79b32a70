"""The training data of a cell: data set, tokens, image size, and corruption."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
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
      seed: Random seed. Cells with equal seeds corrupt the same examples, and a smaller
        probability corrupts a subset of what a larger one does.
    """

    image: Fraction = 0.0
    text: Fraction = 0.0
    alignment: Fraction = 0.0
    resample_each_epoch: bool = False
    window: Annotated[int, Field(gt=1)] | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.window is not None and not self.resample_each_epoch:
            raise ValueError(
                f"data.corruption.window: {self.window} needs resample_each_epoch=True, because "
                "an example has other neighbours in the stream at each visit"
            )
        if self.is_identity and (self.resample_each_epoch or self.window is not None or self.seed):
            raise ValueError(
                "data.corruption: resample_each_epoch, window and seed have no effect when image, "
                "text and alignment are all 0; leave them out"
            )

    @property
    def is_identity(self) -> bool:
        return self.image == self.text == self.alignment == 0


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
