"""The evaluations of a cell as values: what is measured, on which examples, and how often.

`dataset` names another data set under the data root (see `study.data.benchmarks.importer`); None is
the cell's own. Numbers do not depend on the batch size of the evaluation, which is an `Execution`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import ADDED_LATER, CONFIG, Positive

Percent = Annotated[float, Field(gt=0, le=100)]
# The share of each side of the image that is seen, around its centre.
Crop = Annotated[float, Field(gt=0, le=1)]
Folder = Annotated[str, Field(min_length=1)] | None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ZeroShot:
    """Top-1 accuracy (%) against all class names, prompts averaged (paper Sec. 4).

    crop: 0.875 is the code base's evaluation on ImageNet.
    canonical: class names and templates without punctuation, lower case, as the code base does.
    """

    kind: Literal["zero_shot"] = "zero_shot"
    split: str
    every_percent: Percent = 100.0
    dataset: Folder = field(default=None, metadata=ADDED_LATER)
    crop: Crop = field(default=1.0, metadata=ADDED_LATER)
    canonical: bool = field(default=False, metadata=ADDED_LATER)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Retrieval:
    """Recall@1, @5 and @10 (%) in both directions over `examples` images of a split.

    They are drawn once by a fixed seed, the same for every cell; all of a split that has no more.
    An image may have several texts: it is found by any of them, and finds any of them.
    """

    kind: Literal["retrieval"] = "retrieval"
    split: str
    examples: Positive = 2000
    every_percent: Percent = 100.0
    dataset: Folder = field(default=None, metadata=ADDED_LATER)
    crop: Crop = field(default=1.0, metadata=ADDED_LATER)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Multilingual:
    """Recall@1 (%) in both directions for each language, and the mean over languages (Sec. 4.3).

    languages: as the data set writes them; empty means all that it has. Crossmodal-3600 has 36;
      its Hebrew is "he", which the paper's table prints as "iw".
    """

    kind: Literal["multilingual"] = "multilingual"
    split: str = "test"
    dataset: str
    languages: tuple[str, ...] = ()
    every_percent: Percent = 100.0
    crop: Crop = 1.0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class FewShot:
    """Top-1 accuracy (%) of a linear probe of the image tower: ridge regression, closed form.

    It is fitted on `shots` examples of each class of `train_split`, drawn `seeds` times, on the
    tower's features before any projection, standardised (paper Fig. 4; LiT's evaluation).

    l2: strengths of the penalty. "top1" is the accuracy with the first; the others are recorded
      beside it, none is picked by its result.
    """

    kind: Literal["few_shot"] = "few_shot"
    split: str
    train_split: str = "train"
    shots: Positive = 10
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1024.0,)
    seeds: Positive = 3
    every_percent: Percent = 100.0
    dataset: Folder = None
    crop: Crop = 1.0


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class FixedLoss:
    """Both losses on one fixed batch with fixed negatives, comparable across batch sizes.

    Its `examples` are drawn once by a fixed seed, the same for every cell. The training loss
    depends on the batch size by construction, so curves of equal loss are drawn from this one only.
    """

    kind: Literal["fixed_loss"] = "fixed_loss"
    split: str
    examples: Positive = 1024
    every_percent: Percent = 10.0


Eval = Annotated[
    ZeroShot | Retrieval | Multilingual | FewShot | FixedLoss, Field(discriminator="kind")
]


def metric_prefix(evaluation: Eval) -> str:
    """How the metrics of an evaluation begin in a record: "eval/zero_shot/imagenet/val"."""
    dataset = getattr(evaluation, "dataset", None)
    return "/".join(["eval", evaluation.kind, *([dataset] if dataset else []), evaluation.split])
