"""The evaluations of a cell: what is measured, on which examples, and how often.

Numbers do not depend on the batch size of the evaluation, which belongs to `Execution`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Positive

Percent = Annotated[float, Field(gt=0, le=100)]
Crop = Annotated[float, Field(gt=0, le=1)]
Dataset = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ZeroShot:
    """Top-1 accuracy (%) against all class names, with averaged prompts (paper Sec. 4).

    Attributes:
      split: Split to classify.
      every_percent: Evaluate whenever this percentage of the run has passed, and at its end.
      dataset: Data set under the data root; None is the cell's own.
      crop: Fraction of each side kept by a central crop; the code base uses 0.875 on ImageNet.
      canonical: Strip punctuation and capitals from class names and templates, as the code base
        does.
    """

    kind: Literal["zero_shot"] = "zero_shot"
    split: str
    every_percent: Percent = 100.0
    dataset: Dataset | None = None
    crop: Crop = 1.0
    canonical: bool = False


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Retrieval:
    """Recall@1, @5 and @10 (%) in both directions.

    An image may have several texts: any of them retrieves it, and it may retrieve any of them.

    Attributes:
      split: Split to retrieve from.
      examples: Number of images, drawn with a fixed seed that all cells share; a smaller split is
        used whole.
      every_percent: Evaluate whenever this percentage of the run has passed, and at its end.
      dataset: Data set under the data root; None is the cell's own.
      crop: Fraction of each side kept by a central crop.
    """

    kind: Literal["retrieval"] = "retrieval"
    split: str
    examples: Positive = 2000
    every_percent: Percent = 100.0
    dataset: Dataset | None = None
    crop: Crop = 1.0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class MultilingualRetrieval:
    """Recall@1 (%) in both directions for each language, and their means (paper Sec. 4.3).

    Attributes:
      split: Split to retrieve from.
      dataset: Data set under the data root.
      languages: Language codes as the data set writes them; empty means all of them.
        Crossmodal-3600 has 36, and writes Hebrew "he" where the paper's table prints "iw".
      every_percent: Evaluate whenever this percentage of the run has passed, and at its end.
      crop: Fraction of each side kept by a central crop.
    """

    kind: Literal["multilingual_retrieval"] = "multilingual_retrieval"
    split: str = "test"
    dataset: Dataset
    languages: tuple[str, ...] = ()
    every_percent: Percent = 100.0
    crop: Crop = 1.0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class FewShot:
    """Top-1 accuracy (%) of a linear probe: ridge regression in closed form (paper Fig. 4).

    The probe sees the standardised features of the image tower before any projection, as in LiT's
    evaluation.

    Attributes:
      split: Split to classify.
      train_split: Split that the probe is fitted on.
      shots: Training examples per class.
      l2: Penalties to fit with. "top1" is the accuracy with the first; the others are recorded
        next to it, and none is picked by its result.
      seeds: Number of draws of the training examples to average over.
      every_percent: Evaluate whenever this percentage of the run has passed, and at its end.
      dataset: Data set under the data root; None is the cell's own.
      crop: Fraction of each side kept by a central crop.
    """

    kind: Literal["few_shot"] = "few_shot"
    split: str
    train_split: str = "train"
    shots: Positive = 10
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1024.0,)
    seeds: Positive = 3
    every_percent: Percent = 100.0
    dataset: Dataset | None = None
    crop: Crop = 1.0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ValLoss:
    """The sigmoid and the softmax loss on one fixed validation batch.

    The training loss depends on the batch size by construction; this one can be compared across
    batch sizes, so steps to a target are read from it.

    Attributes:
      split: Split of the batch.
      examples: Examples in the batch, drawn with a fixed seed that all cells share.
      every_percent: Evaluate whenever this percentage of the run has passed, and at its end.
    """

    kind: Literal["val_loss"] = "val_loss"
    split: str
    examples: Positive = 1024
    every_percent: Percent = 10.0


Eval = Annotated[
    ZeroShot | Retrieval | MultilingualRetrieval | FewShot | ValLoss, Field(discriminator="kind")
]


def metric_prefix(evaluation: Eval) -> str:
    """The prefix of an evaluation's metrics in a record, such as "eval/zero_shot/imagenet/val"."""
    dataset = getattr(evaluation, "dataset", None)
    return "/".join(["eval", evaluation.kind, *([dataset] if dataset else []), evaluation.split])
