"""The cell: one training run as a frozen value, checked when it is built.

Everything that changes the result is in `Cell` and is hashed into its id. Where and how the cell
runs is an `Execution`, which is not hashed because it changes no more than the rounding of a sum.

>>> cell = Cell(batch_size=512, data=Data(dataset="glyphs"), loss=Softmax())
>>> cell.id
'b512-softmax-s0-...'
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections import Counter
from typing import Annotated, Any

import pydantic
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Seed
from study.config.branch import Branch
from study.config.budget import Budget, to_exact_steps
from study.config.data import Data
from study.config.evals import Eval, metric_prefix
from study.config.loss import AllPairs, Loss, Pairs, Sigmoid
from study.config.model import CachedImage, Model
from study.config.optimizer import Adam, Optimizer, ParamGroup
from study.errors import UserError


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Cell:
    """One training run. Equal cells have equal ids, whatever study lists them.

    Attributes:
      model: Image and text towers.
      data: Training examples.
      loss: Loss, and for sigmoid the pairs that enter it.
      optimizer: Optimizer, schedule and frozen parts.
      budget: Length of the run.
      batch_size: Examples per optimizer step, over all devices.
      seed: Seed of the initial parameters, of the order of examples and of dropout.
      evals: Evaluations during and after training.
      branch: The checkpoint of another cell that this one goes on from; None starts anew.
    """

    model: Model = Field(default_factory=Model)
    data: Data = Field(default_factory=Data)
    loss: Loss = Field(default_factory=Sigmoid)
    optimizer: Optimizer = Field(default_factory=Adam)
    budget: Budget = Field(default_factory=lambda: Budget(examples=65_536))
    batch_size: Annotated[int, Field(gt=1)]
    seed: Seed = 0
    evals: tuple[Eval, ...] = ()
    branch: Branch | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model.image, CachedImage):
            self._check_cached()
        repeated = [key for key, n in Counter(map(metric_prefix, self.evals)).items() if n > 1]
        if repeated:
            raise ValueError(
                f"evals: several are recorded as {repeated[0]}, and the last would overwrite the "
                "others; keep one"
            )
        self.pairs.check(self.batch_size)
        self._check_queue()
        if self.loss.same_by == "class" and (self.data.mix or not self.data.corruption.is_identity):
            raise ValueError(
                "loss.same_by: 'class' needs texts that are of the class of their images, of one "
                "data set; leave out data.corruption and data.mix"
            )
        self.budget.in_steps(self.batch_size, self.pairs_per_step)
        whole, end = self.optimizer.schedule_examples, self.origin + self.examples
        if whole and end > whole:
            raise ValueError(
                f"optimizer.schedule_examples: {whole} is less than the {end} examples that were "
                "seen when the cell ends; raise it, or lower the budget"
            )
        if self.branch is not None and self.model.init is not None:
            raise ValueError("branch: it has the parent's parameters, so leave out model.init")
        if self.branch is not None and self.branch.bias_shift and not self.loss.has_bias:
            raise ValueError(
                "branch.bias_shift: the loss has no bias; leave it out, or take a sigmoid with one"
            )

    def _check_queue(self) -> None:
        queue = self.loss.queue_examples
        if queue and self.branch is not None:
            raise ValueError(
                "loss.queue_examples: a branch cannot go on with a queue, whose batches have "
                "another size; leave one of them out"
            )
        if queue % self.batch_size:
            raise ValueError(
                f"loss.queue_examples: {queue} is not a multiple of batch_size={self.batch_size}"
            )
        if queue and self.budget.pairs is not None:
            raise ValueError(
                "budget.pairs: with a queue, which is empty at first, a step has no fixed number "
                "of pairs; give budget.examples or budget.steps"
            )

    def _check_cached(self) -> None:
        """Refuses settings that have no effect on cached embeddings."""
        if self.data.flip:
            raise ValueError("data.flip: cached embeddings have no image to mirror; leave it out")
        if self.data.resize != "bicubic":
            raise ValueError(
                f"data.resize: {self.data.resize!r} has no effect on cached embeddings; leave it "
                "out, and make them with `study data embed --resize`"
            )
        for evaluation in self.evals:
            if (crop := getattr(evaluation, "crop", 1.0)) != 1.0:
                raise ValueError(
                    f"evals: crop={crop:g} of {metric_prefix(evaluation)} has no effect on "
                    "cached embeddings, which are of whole images; leave it out"
                )
        side = self.loss.same_side
        if side in ("images", "both"):
            raise ValueError(
                f"loss.same_side: {side!r} has little effect on cached embeddings, which do not "
                "change; only 'texts' is possible"
            )
        o = self.optimizer
        if o.image != ParamGroup():
            raise ValueError(
                "optimizer.image: cached embeddings have no image tower to train; leave it out"
            )
        if o.text.frozen and o.loss_scalars.frozen:
            raise ValueError(
                "optimizer: text and loss_scalars are frozen and cached embeddings have no image "
                "tower, so nothing would be trained"
            )

    @property
    def pairs(self) -> Pairs:
        """The pairs that enter the loss; softmax always uses the whole batch."""
        return self.loss.pairs if isinstance(self.loss, Sigmoid) else AllPairs()

    @property
    def prior_log_odds(self) -> float:
        """Log odds that a pair in use is a positive, -log(B - 1) with all pairs (Sec. 3.2)."""
        return -math.log(self.pairs.negatives(self.batch_size) / self.batch_size)

    @property
    def pairs_per_step(self) -> int:
        """Pairs that enter the loss in one step, once a queue is full; masked ones count."""
        batch = self.batch_size
        sides = {"none": 0, "images": 1, "texts": 1, "both": 2}[self.loss.same_side]
        same_side = sides * batch * (batch - 1)
        return self.pairs.count(batch) + same_side + 2 * batch * self.loss.queue_examples

    def pairs_seen(self, steps: int) -> int:
        """Pairs that entered the loss in the first `steps` steps, exactly."""
        missing = 0
        if queue := self.loss.queue_examples:
            # Step s of the first ones meets s batches of the queue.
            filling = queue // self.batch_size
            short = sum(filling - s for s in range(min(steps, filling)))
            missing = 2 * self.batch_size**2 * short
        return steps * self.pairs_per_step - missing

    @property
    def steps(self) -> int:
        return self.budget.in_steps(self.batch_size, self.pairs_per_step)

    @property
    def examples(self) -> int:
        return self.steps * self.batch_size

    @property
    def origin(self) -> int:
        """The position in the stream at which the cell begins."""
        return 0 if self.branch is None else self.branch.examples

    @property
    def schedule_steps(self) -> int:
        """The length of the schedule: the cell's, or at its batch size that of the whole run."""
        whole = self.optimizer.schedule_examples
        return self.steps if whole is None else max(1, whole // self.batch_size)

    @property
    def schedule_start(self) -> float:
        """The step of the schedule at which the cell begins."""
        if self.optimizer.schedule_examples is None:
            return 0.0
        return self.origin / self.batch_size

    @property
    def b1(self) -> float:
        """The decay rate of the first moment at this batch size."""
        return self._decay_rate("b1")

    @property
    def b2(self) -> float:
        """The decay rate of the second moment at this batch size."""
        return self._decay_rate("b2")

    def _decay_rate(self, name: str) -> float:
        half_life = getattr(self.optimizer, f"{name}_half_life_examples")
        if half_life is None:
            return getattr(self.optimizer, name)
        return 0.5 ** (self.batch_size / half_life)

    @property
    def weight_decay(self) -> float:
        """The decoupled decay per step, at the peak of the schedule, at this batch size."""
        steps = to_exact_steps(
            self.optimizer,
            "weight_decay_time",
            batch_size=self.batch_size,
            total_steps=self.schedule_steps,
        )
        return 1 / steps if steps else self.optimizer.weight_decay

    # A cached property is not a field, so it enters neither comparisons nor the hash.
    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of `to_dict`. Records are found by it for ever."""
        canonical = json.dumps(to_dict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @functools.cached_property
    def id(self) -> str:
        tag = self.pairs.tag
        parts = [f"b{self.batch_size}", self.loss.kind, *([tag] if tag else []), f"s{self.seed}"]
        return "-".join([*parts, self.hash[:8]])


# Fields that were added after cells had been recorded, with the value that cells had before. A
# field with this value is neither recorded nor hashed, so cells recorded since are like those. A
# path has a kind in it where another kind has had the field from the start.
ADDED: dict[str, Any] = {
    "branch": None,
    "branch.bias_shift": 0.0,
    "data.corruption.until_examples": None,
    "data.order": {"kind": "global"},
    "data.mix": [],
    "loss.bias": "absolute",
    "loss.queue_examples": 0,
    "loss.same_by": "caption",
    "loss.same_caption": "negative",
    "loss.same_side": "none",
    "model.text.mean_pool.bottleneck": None,
    "optimizer.schedule_examples": None,
    "optimizer.b1_half_life_examples": None,
    "optimizer.b2_half_life_examples": None,
    "optimizer.weight_decay_time_steps": None,
    "optimizer.weight_decay_time_examples": None,
    "optimizer.weight_decay_time_percent": None,
}

_CELL = TypeAdapter(Cell)


def to_dict(cell: Cell) -> dict[str, Any]:
    """A cell as nested dictionaries of JSON values, without fields that `ADDED` leaves out."""
    values = all_fields(cell)
    for path, default in ADDED.items():
        *parents, name = path.split(".")
        node = functools.reduce(_enter, parents, values)
        if name in node and node[name] == default:
            del node[name]
    return values


def _enter(node: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields at `key`; those of the node itself if `key` is its kind."""
    if key in KINDS:
        return node if node.get("kind") == key else {}
    inside: dict[str, Any] = node.get(key, {})
    return inside


def all_fields(cell: Cell) -> dict[str, Any]:
    """All fields of a cell as nested dictionaries of JSON values."""
    values: dict[str, Any] = _CELL.dump_python(cell, mode="json")
    return values


def from_dict(values: dict[str, Any]) -> Cell:
    """The inverse of `to_dict`.

    Raises:
      CellError: one line per invalid field: its name, its value and what is allowed.
    """
    try:
        return _CELL.validate_python(values)
    except pydantic.ValidationError as error:
        raise CellError(explain(error)) from None


class CellError(UserError, ValueError):
    """An invalid cell; the message names the field, its value and what is allowed."""


# Pydantic puts the `kind` of a member of a union into the path of an error.
KINDS = {
    *("cached", "vit", "transformer", "mean_pool"),
    *("sigmoid", "softmax", "all", "negatives", "groups"),
    *("adam", "adafactor", "lion", "muon"),
    *("global", "blocks"),
    *("zero_shot", "retrieval", "multilingual_retrieval", "few_shot", "val_loss"),
}
# It also appends the type that it tried where a field takes one of several types.
_TRIED_TYPE = re.compile(r"float|int|str|bool|constrained-\w+|literal\[.*\]")


def explain(error: pydantic.ValidationError) -> str:
    """A validation error as one line per invalid field."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"] if part not in KINDS]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "unexpected_keyword_argument":
            message = "no such field"
        elif path and _TRIED_TYPE.fullmatch(path[-1]):
            path.pop()
        field, value = ".".join(path), item["input"]
        if field in lines:  # another type that the field would take
            lines[field] += f", or {message.removeprefix('Input should be ')}"
            continue
        shown = f" = {value!r}" if isinstance(value, str | int | float | bool | None) else ""
        lines[field] = f"{field}{shown}: {message}" if field else message
    return "\n".join(lines.values())


def replace(cell: Cell, path: str, value: Any) -> Cell:
    """A copy of `cell` with the field at dotted `path` set to `value`, checked again.

    >>> replace(cell, "optimizer.b2", 0.999)

    Raises:
      CellError: the field does not exist, or the value is not allowed.
    """
    values = all_fields(cell)
    node: Any = values
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            names = [key for key in node if key != "kind"] if isinstance(node, dict) else []
            fields = ", ".join(names) or "none"
            inside = ".".join(parts[:depth]) or "a cell"
            raise CellError(f"--set {path}: {inside} has no field {part!r}; it has: {fields}")
        if depth == len(parts) - 1:
            node[part] = value
        else:
            node = node[part]
    return from_dict(values)
