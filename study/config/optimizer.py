"""The optimizer of a cell as values: rule, rates, decay, schedule, and what stays frozen."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import ADDED_LATER, CONFIG, Positive, Share
from study.config.budget import check_one_duration, is_set

Steps = Annotated[int, Field(ge=0)] | None
Percent = Annotated[float, Field(ge=0, le=100)] | None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Part:
    """How one part of the parameters departs from what the optimizer does to all.

    rate_times: multiplies the learning rate, not the weight decay: at 0.1 the decay weighs ten
      times as much beside the gradient (the paper's Fig. 4 set-up).
    decay_times: multiplies the weight decay; 0 switches it off (Fig. 4, "w/o enc. wd").
    frozen: not trained: no update, no decay, no optimizer state, no share in the clipped norm.
    """

    rate_times: Annotated[float, Field(gt=0)] = 1.0
    decay_times: Annotated[float, Field(ge=0)] = 1.0
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.frozen and (self.rate_times, self.decay_times) != (1.0, 1.0):
            raise ValueError(
                "frozen: rate_times and decay_times have no effect on what is not trained; leave "
                "them out"
            )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class _Optimizer:
    """What all optimizers share. Each duration is at most one of its three suffixes.

    Weight decay is decoupled, on kernels only, and not multiplied by `learning_rate` (only by
    the 0..1 schedule), as in the paper's code base: 1e-4 here at learning rate 1e-3 is what
    PyTorch's AdamW calls 0.1.

    schedule: after the warm-up "cosine" and "linear" fall to zero at the end, "constant" stays,
      and "rsqrt" is 1 / sqrt(1 + steps after the warm-up / timescale), which needs a timescale.
    cooldown: the last so many steps fall linearly to zero, whatever the schedule.
    image, text, scalars: the two towers, and t and b.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    b1: Share = 0.9
    b2: Share = 0.95
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    warmup_steps: Steps = None
    warmup_examples: Steps = None
    warmup_percent: Percent = None
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    timescale_steps: Steps = field(default=None, metadata=ADDED_LATER)
    timescale_examples: Steps = field(default=None, metadata=ADDED_LATER)
    timescale_percent: Percent = field(default=None, metadata=ADDED_LATER)
    cooldown_steps: Steps = field(default=None, metadata=ADDED_LATER)
    cooldown_examples: Steps = field(default=None, metadata=ADDED_LATER)
    cooldown_percent: Percent = field(default=None, metadata=ADDED_LATER)
    image: Part = field(default=Part(), metadata=ADDED_LATER)
    text: Part = field(default=Part(), metadata=ADDED_LATER)
    scalars: Part = field(default=Part(), metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        for name in ("warmup", "timescale", "cooldown"):
            check_one_duration(self, name)
        if (self.schedule == "rsqrt") != is_set(self, "timescale"):
            raise ValueError(
                "timescale: give timescale_steps, _examples or _percent above zero with "
                f"schedule='rsqrt', and only with it (the schedule is {self.schedule!r})"
            )
        if self.scalars.decay_times != 1.0:
            raise ValueError(
                f"scalars.decay_times: {self.scalars.decay_times:g} has no effect, because t and b "
                "are never decayed; leave it out"
            )
        for name in ("image", "text"):
            if self.weight_decay == 0 and (times := getattr(self, name).decay_times) != 1.0:
                raise ValueError(
                    f"{name}.decay_times: {times:g} has no effect with weight_decay=0; leave it out"
                )
        if self.image.frozen and self.text.frozen and self.scalars.frozen:
            raise ValueError("image, text and scalars are all frozen, so nothing would be trained")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Adam(_Optimizer):
    """Adam with decoupled decay: AdamW, but for the convention of the decay."""

    kind: Literal["adam"] = "adam"
    eps: Annotated[float, Field(gt=0)] = 1e-8


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Adafactor(_Optimizer):
    """The paper's optimizer: Adafactor as "Scaling Vision Transformers" changed it.

    b1: of a plain average of the scaled gradients, stored in bfloat16 and not debiased.
    b2: the cap on min(b2, 1 - (step + 1) ** -0.8). The paper takes 0.95 in all experiments; the
      default of its code base is 0.999.
    factor_from: second moments are factored where two axes of a layer's array are at least this
      long.
    clip_block_rms: a bound on the root mean square of each array's scaled gradient, or None; each
      layer of a tower has arrays of its own.

    No relative step size and no multiplication by the size of the parameters.
    """

    kind: Literal["adafactor"] = "adafactor"
    b2: Share = 0.95
    eps: Annotated[float, Field(gt=0)] = 1e-30
    factor_from: Positive = 32
    clip_block_rms: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Lion(_Optimizer):
    kind: Literal["lion"] = "lion"
    b2: Share = 0.99


Optimizer = Annotated[Adam | Adafactor | Lion, Field(discriminator="kind")]
