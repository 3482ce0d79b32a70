"""The optimizer of a cell: update rule, learning rate, weight decay, schedule, frozen parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Fraction, Positive
from study.config.budget import check_one_duration, is_set

Count = Annotated[int, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ParamGroup:
    """How one group of parameters is trained differently from the rest.

    Attributes:
      lr_mult: Multiplies the learning rate but not the weight decay, so at 0.1 the decay is ten
        times as strong relative to the gradient (paper Fig. 4).
      wd_mult: Multiplies the weight decay; 0 switches it off (Fig. 4, "w/o enc. wd").
      frozen: Do not train the group: no update, no decay, no optimizer state, and no share in
        the clipped gradient norm.
    """

    lr_mult: Annotated[float, Field(gt=0)] = 1.0
    wd_mult: Annotated[float, Field(ge=0)] = 1.0
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.frozen and (self.lr_mult, self.wd_mult) != (1.0, 1.0):
            raise ValueError(
                "frozen: lr_mult and wd_mult have no effect on frozen parameters; leave them out"
            )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class _Optimizer:
    """The fields that all optimizers share.

    Give each duration with at most one of its suffixes `_steps`, `_examples` and `_percent`.

    Attributes:
      learning_rate: Peak learning rate.
      weight_decay: Decoupled decay of kernels. It is multiplied by the schedule (0 to 1) but not
        by `learning_rate`, as in the paper's code base: 1e-4 here with a learning rate of 1e-3 is
        0.1 in PyTorch's AdamW.
      b1: Decay rate of the first moment.
      b2: Decay rate of the second moment.
      schedule: Shape of the learning rate after the warm-up. "cosine" and "linear" fall to zero
        at the end, "constant" stays, and "rsqrt" is 1 / sqrt(1 + steps / timescale), with steps
        counted from the end of the warm-up.
      warmup_steps, warmup_examples, warmup_percent: Linear warm-up from zero.
      clip_norm: Bound on the global gradient norm; None does not clip.
      timescale_steps, timescale_examples, timescale_percent: Timescale of "rsqrt", which needs
        one; the other schedules take none.
      cooldown_steps, cooldown_examples, cooldown_percent: Linear fall to zero at the end of the
        run, on top of any schedule.
      image: Parameter group of the image tower.
      text: Parameter group of the text tower.
      loss_scalars: Parameter group of the temperature and the bias.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    b1: Fraction = 0.9
    b2: Fraction = 0.95
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    warmup_steps: Count | None = None
    warmup_examples: Count | None = None
    warmup_percent: Percent | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    timescale_steps: Count | None = None
    timescale_examples: Count | None = None
    timescale_percent: Percent | None = None
    cooldown_steps: Count | None = None
    cooldown_examples: Count | None = None
    cooldown_percent: Percent | None = None
    image: ParamGroup = Field(default_factory=ParamGroup)
    text: ParamGroup = Field(default_factory=ParamGroup)
    loss_scalars: ParamGroup = Field(default_factory=ParamGroup)

    def __post_init__(self) -> None:
        for name in ("warmup", "timescale", "cooldown"):
            check_one_duration(self, name)
        if (self.schedule == "rsqrt") != is_set(self, "timescale"):
            raise ValueError(
                "timescale: give timescale_steps, _examples or _percent above zero with "
                f"schedule='rsqrt', and only with it (the schedule is {self.schedule!r})"
            )
        if self.loss_scalars.wd_mult != 1.0:
            raise ValueError(
                f"loss_scalars.wd_mult: {self.loss_scalars.wd_mult:g} has no effect, because t and "
                "b are never decayed; leave it out"
            )
        for name in ("image", "text"):
            if self.weight_decay == 0 and (factor := getattr(self, name).wd_mult) != 1.0:
                raise ValueError(
                    f"{name}.wd_mult: {factor:g} has no effect with weight_decay=0; leave it out"
                )
        if self.image.frozen and self.text.frozen and self.loss_scalars.frozen:
            raise ValueError(
                "image, text and loss_scalars are all frozen, so nothing would be trained"
            )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Adam(_Optimizer):
    """Adam with decoupled weight decay: AdamW, except for the scale of the decay.

    Attributes:
      eps: Added to the root of the second moment.
    """

    kind: Literal["adam"] = "adam"
    eps: Annotated[float, Field(gt=0)] = 1e-8


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Adafactor(_Optimizer):
    """The paper's optimizer: Adafactor as modified in "Scaling Vision Transformers".

    It has no relative step size and no multiplication by the scale of the parameters. `b1` is the
    decay of a plain average of the scaled gradients, stored in bfloat16 and not debiased. `b2`
    caps the decay of the second moment, min(b2, 1 - (step + 1) ** -0.8).

    Attributes:
      b2: The paper uses 0.95 in all experiments; its code base defaults to 0.999.
      eps: Added to the squared gradients.
      min_dim_size_to_factor: Factor the second moment of arrays with two axes of at least this
        length, layer by layer.
      clip_block_rms: Bound on the root mean square of each array's scaled gradient, layer by
        layer; None does not clip.
    """

    kind: Literal["adafactor"] = "adafactor"
    b2: Fraction = 0.95
    eps: Annotated[float, Field(gt=0)] = 1e-30
    min_dim_size_to_factor: Positive = 32
    clip_block_rms: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Lion(_Optimizer):
    """Lion (arXiv 2302.06675), with decoupled weight decay on the scale of `_Optimizer`."""

    kind: Literal["lion"] = "lion"
    b2: Fraction = 0.99


Optimizer = Annotated[Adam | Adafactor | Lion, Field(discriminator="kind")]
