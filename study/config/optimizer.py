"""The optimizer of a cell: update rule, learning rate, weight decay, schedule, frozen parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Fraction, Positive
from study.config.budget import check_one_duration, is_set

Count = Annotated[int, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
HalfLife = Annotated[float, Field(gt=0)]


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
    `Cell.b1`, `Cell.b2` and `Cell.weight_decay` are the values for the cell's batch size.

    Attributes:
      learning_rate: Peak learning rate.
      weight_decay: Decoupled decay of kernels. It is multiplied by the schedule (0 to 1) but not
        by `learning_rate`, as in the paper's code base: 1e-4 here with a learning rate of 1e-3 is
        0.1 in PyTorch's AdamW.
      weight_decay_time_steps, weight_decay_time_examples, weight_decay_time_percent: Instead of
        `weight_decay`, the time in which the decay alone shrinks a kernel by a factor of e, at
        the peak of the schedule. In examples or percent it makes the decay proportional to the
        batch size, as Bergsma et al. (arXiv 2505.13738) find best.
      b1: Decay rate of the first moment.
      b2: Decay rate of the second moment.
      b1_half_life_examples, b2_half_life_examples: Instead of `b1` or `b2`, the number of examples
        after which a gradient's weight in the moment has halved, so that the moment averages over
        as much data at any batch size (Marek et al., arXiv 2507.07101).
      schedule: Shape of the learning rate after the warm-up. "cosine" and "linear" fall to zero
        at the end, "constant" stays, and "rsqrt" is 1 / sqrt(1 + steps / timescale), with steps
        counted from the end of the warm-up.
      schedule_examples: Examples of the whole run that the schedule is of, where the cell is a part
        of it: the schedule stands where the cell's branch begins, and percentages are of the whole
        run. None: the schedule is the cell's own.
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
    weight_decay_time_steps: Count | None = None
    weight_decay_time_examples: Count | None = None
    weight_decay_time_percent: Percent | None = None
    b1: Fraction = 0.9
    b2: Fraction = 0.95
    b1_half_life_examples: HalfLife | None = None
    b2_half_life_examples: HalfLife | None = None
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    schedule_examples: Positive | None = None
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
        for name in ("warmup", "timescale", "cooldown", "weight_decay_time"):
            check_one_duration(self, name)
            if self.schedule_examples and getattr(self, f"{name}_steps"):
                raise ValueError(
                    f"{name}_steps: with schedule_examples steps are of several batch sizes; give "
                    f"{name}_examples or {name}_percent"
                )
        self._check_replaced("b1", "b1_half_life_examples", self.b1_half_life_examples is not None)
        self._check_replaced("b2", "b2_half_life_examples", self.b2_half_life_examples is not None)
        self._check_replaced("weight_decay", "weight_decay_time", is_set(self, "weight_decay_time"))
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

    def _check_replaced(self, name: str, replacement: str, given: bool) -> None:
        """Refuses a value that another field replaces."""
        value, default = getattr(self, name), getattr(type(self), name)
        if given and value != default:
            raise ValueError(
                f"{name}: {value:g} has no effect, because {replacement} replaces it; give one"
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


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Muon(_Optimizer):
    """Muon for kernels (orthogonalized momentum), Adam for all other parameters.

    Both take the same learning rate, because updates of kernels are scaled to the root mean square
    that Adam's have (Liu et al., arXiv 2502.16982). Muon has a larger critical batch than Adam
    (Shah et al., arXiv 2505.02222).

    Attributes:
      b1: Decay rate of the momentum of kernels.
      b2: Decay rate of Adam's second moment.
      adam_b1: Decay rate of Adam's first moment.
      eps: Added to the root of Adam's second moment.
      iterations: Newton-Schulz iterations that orthogonalize a kernel's momentum.
      update_rms: Root mean square of a kernel's update, before the learning rate.
    """

    kind: Literal["muon"] = "muon"
    b1: Fraction = 0.95
    adam_b1: Fraction = 0.9
    eps: Annotated[float, Field(gt=0)] = 1e-8
    iterations: Positive = 5
    update_rms: Annotated[float, Field(gt=0)] = 0.2


Optimizer = Annotated[Adam | Adafactor | Lion | Muon, Field(discriminator="kind")]
