"""The cell: one training run as a frozen value, checked when built.

What changes the result is in `Cell` and is hashed into its id. Where and how the cell runs is an
`Execution` beside it and is not hashed, because it may not change more than the rounding of a sum.

>>> cell = Cell(batch_size=512, data=Data(dataset="glyphs"), loss=Softmax())
>>> cell.id
'b512-softmax-s0-...'
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from study.config.base import ADDED_LATER, Positive, Seed, Share
from study.config.base import CONFIG as _CONFIG
from study.config.budget import Budget
from study.config.evals import (
    Eval,
    FewShot,
    FixedLoss,
    Multilingual,
    Retrieval,
    ZeroShot,
    metric_prefix,
)
from study.config.hardware import check_slice_name
from study.config.model import (
    CachedImage,
    ImageTower,
    Model,
    TextAverage,
    TextTower,
    TextTransformer,
    ViT,
)
from study.config.optimizer import Adafactor, Adam, Lion, Optimizer, Part
from study.config.pairs import AllPairs, Groups, Negatives, Pairs
from study.errors import UserError

__all__ = [
    "ADDED_LATER", "Adafactor", "Adam", "CachedImage", "Cell", "CellError", "Corruption", "Data",
    "Eval", "Execution", "FewShot", "FixedLoss", "ImageTower", "Lion", "Loss", "Model",
    "Multilingual", "Optimizer", "Part", "Retrieval", "Sigmoid", "Softmax", "TextAverage",
    "TextTower", "TextTransformer", "ViT", "ZeroShot", "explain", "from_dict", "replace", "to_dict",
]  # fmt: skip


# --- data ---------------------------------------------------------------------------------------

Resize = Literal["bicubic", "bilinear"]
Pad = Literal["eos", "pad"]
# The first cells had true and false here, and false is still how "none" is written.
LowerCase = Annotated[
    Literal["unicode", "ascii", False],
    BeforeValidator(lambda value: "unicode" if value is True else value),
]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Corruption:
    """Training data made worse (paper Sec. 4.10, Fig. 7): see `study.data.corruption`.

    image: probability that an example's image is replaced by uniform noise.
    text: probability that its text is replaced by random tokens of a random length.
    alignment: share of the examples whose texts are shuffled among them.
    redraw: whether all this is drawn anew at each visit of an example, or once for good. The
      paper does not say which.
    window: texts are shuffled within windows of so many consecutive examples of the stream;
      None is a whole epoch. Where the batch size is a multiple of it, each misplaced text meets
      its own image in the batch, as in the paper's shuffled batch. It needs `redraw`.
    seed: two cells with equal seeds meet the same corruption, and what a smaller probability
      corrupts a larger one corrupts too.
    """

    image: Share = 0.0
    text: Share = 0.0
    alignment: Share = 0.0
    redraw: bool = False
    window: Annotated[int, Field(gt=1)] | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.window is not None and not self.redraw:
            raise ValueError(
                f"data.corrupt.window: {self.window} needs redraw=True, because which examples "
                "are neighbours in the stream differs between visits"
            )
        if self.is_identity and (self.redraw or self.window is not None or self.seed):
            raise ValueError(
                "data.corrupt: redraw, window and seed have no effect where image, text and "
                "alignment are all 0; leave them out"
            )

    @property
    def is_identity(self) -> bool:
        return self.image == self.text == self.alignment == 0


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Data:
    """Which examples, in the order fixed by (dataset, seed): see `study.data.stream`.

    text_length: tokens of a text; the paper has 16, and 64 in Sec. 4.6.
    tokenizer: a SentencePiece model in the data set's folder; None takes the one it names.
    lower_case: which capitals of a text become small: all ("unicode"), A to Z ("ascii", as in the
      paper's code base) or none (False). They differ for texts with other capitals only.
    sticky_eos: the last position of a text is EOS or padding; else a long text ends without EOS.
    pad: what fills a text after its EOS: more "eos", as SigLIP was trained, or the tokenizer's own
      "pad", as SigLIP 2 was.
    resize: how images get the tower's size; see `study.data.images.decode`. Cached embeddings are
      of images that were resized when they were made.
    flip: mirrors each training image or not, decided by (seed, i).
    max_bad_share: examples that cannot be used are replaced, up to this share of all.
    """

    dataset: str = "glyphs"
    split: str = "train"
    text_length: Positive = 16
    corrupt: Corruption = dataclasses.field(default=Corruption(), metadata=ADDED_LATER)
    tokenizer: str | None = dataclasses.field(default=None, metadata=ADDED_LATER)
    lower_case: LowerCase = dataclasses.field(default="unicode", metadata=ADDED_LATER)
    sticky_eos: bool = dataclasses.field(default=True, metadata=ADDED_LATER)
    pad: Pad = dataclasses.field(default="eos", metadata=ADDED_LATER)
    resize: Resize = dataclasses.field(default="bicubic", metadata=ADDED_LATER)
    flip: bool = dataclasses.field(default=False, metadata=ADDED_LATER)
    max_bad_share: Share = dataclasses.field(default=0.01, metadata=ADDED_LATER)


# --- losses -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Sigmoid:
    """Pairwise sigmoid loss, paper Algorithm 1. `b_init=None` trains without a bias.

    `b_init="prior"` starts at the log-odds of the chosen pairs, -log(negatives per positive).
    """

    kind: Literal["sigmoid"] = "sigmoid"
    t_init: Annotated[float, Field(gt=0)] = 10.0
    b_init: float | Literal["prior"] | None = -10.0
    pairs: Annotated[AllPairs | Negatives | Groups, Field(discriminator="kind")] = Field(
        default_factory=AllPairs
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Softmax:
    """Bidirectional softmax (InfoNCE) loss over the batch, no bias, learnable temperature."""

    kind: Literal["softmax"] = "softmax"
    t_init: Annotated[float, Field(gt=0)] = 10.0


Loss = Annotated[Sigmoid | Softmax, Field(discriminator="kind")]


# --- the cell -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Cell:
    """One training run. Equal cells have equal ids, in whatever study they appear."""

    model: Model = Field(default_factory=Model)
    data: Data = Field(default_factory=Data)
    loss: Loss = Field(default_factory=Sigmoid)
    optimizer: Optimizer = Field(default_factory=Adam)
    budget: Budget = Field(default_factory=lambda: Budget(examples=65_536))
    batch_size: Annotated[int, Field(gt=1)]
    seed: Seed = 0
    evals: tuple[Eval, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.model.image, CachedImage):
            self._check_cached()
        twice = [key for key, n in Counter(map(metric_prefix, self.evals)).items() if n > 1]
        if twice:
            raise ValueError(
                f"evals: several are recorded as {twice[0]}, and the last would overwrite the "
                "others; keep one"
            )
        self.pairs.check(self.batch_size)
        self.budget.in_steps(self.batch_size, self.pairs_per_step)

    def _check_cached(self) -> None:
        """Refuses what cannot act where the images are embeddings already."""
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
        o = self.optimizer
        if o.image != Part():
            raise ValueError(
                "optimizer.image: cached embeddings have no image tower to train; leave it out"
            )
        if o.text.frozen and o.scalars.frozen:
            raise ValueError(
                "optimizer: text and scalars are frozen and cached embeddings have no image tower, "
                "so nothing would be trained"
            )

    @property
    def pairs(self) -> Pairs:
        """The pairs that enter the loss: the softmax always meets the whole batch."""
        return self.loss.pairs if isinstance(self.loss, Sigmoid) else AllPairs()

    @property
    def pairs_per_step(self) -> int:
        return self.pairs.count(self.batch_size)

    @property
    def steps(self) -> int:
        return self.budget.in_steps(self.batch_size, self.pairs_per_step)

    @property
    def examples(self) -> int:
        return self.steps * self.batch_size

    # Cached in the instance's dictionary: no field, so neither equality nor the hash sees it.
    @functools.cached_property
    def hash(self) -> str:
        canonical = json.dumps(_identity(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @functools.cached_property
    def id(self) -> str:
        tag = self.pairs.tag
        parts = [f"b{self.batch_size}", self.loss.kind, *([tag] if tag else []), f"s{self.seed}"]
        return "-".join([*parts, self.hash[:8]])


def _local(folder: str) -> str:
    if "://" in folder:
        raise ValueError("data sets are read from folders; copy or mount the bucket")
    return folder


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Execution:
    """Where and how a cell runs. Changes nothing in the result beyond rounding.

    slice: the kind of machine it wants, as `study.config.hardware` names it ("v4-32", "v6e-16x2",
      "gpu:h100"); None is whatever runs it.
    chunk_examples: about how many examples one compiled loop of steps covers: small batches would
      otherwise pay the dispatch of every step.
    microbatch: examples per pass through the towers on each device; "auto" finds one with which
      the step fits `memory_gib` per device (nine tenths of an accelerator's memory, or half of
      what is free on the host, when not given); None passes the whole batch at once.
    remat: compute each block of the towers again in the backward pass instead of keeping its
      activations.
    fsdp_mib: parameters and optimizer state are cut over the devices of a slice, array by array
      from this many MiB on (`study.models.sharding.param_shardings`); None replicates them all.
    eval_batch_size: images or texts that an evaluation embeds at a time over all devices.
    checkpoint_every_minutes: minutes of wall-clock time between checkpoints, by the clock of the
      first process; a run that is killed repeats at most this much. The last step is always saved.
    keep_last: how many of the latest checkpoints stay. With 1, the run starts from the beginning
      if that one cannot be read.
    keep_every_percent: checkpoints are also saved at these parts of the run, and stay for good.
    decode_threads: that read images; None is one for each core.
    cores: that a local cell takes, each as a device, or all where there are fewer. More than one is
      for a cell that runs alone: a sweep of several is faster with one each.
    priority: cells with a higher one start before others that want the same kind of machine.
    """

    slice: Annotated[str, AfterValidator(check_slice_name)] | None = None
    data_root: Annotated[str, AfterValidator(_local)] = "data"
    chunk_examples: Positive = 8192
    eval_batch_size: Positive = 2048
    log_every_percent: Annotated[float, Field(gt=0, le=100)] = 2.0
    checkpoint_every_minutes: Annotated[float, Field(gt=0)] = 15.0
    keep_last: Positive = 2
    keep_every_percent: Annotated[float, Field(gt=0, le=100)] | None = None
    wandb: bool = True
    microbatch: Positive | Literal["auto"] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    remat: bool = False
    fsdp_mib: Annotated[float, Field(ge=0)] | None = None
    decode_threads: Positive | None = None
    cores: Positive = 1
    priority: int = 0


_CELL = TypeAdapter(Cell)


def to_dict(cell: Cell) -> dict[str, Any]:
    """The cell as JSON-ready values, every field written out."""
    return _CELL.dump_python(cell, mode="json")


def from_dict(values: dict[str, Any]) -> Cell:
    """The inverse of `to_dict`.

    Raises:
      CellError: one line per field that is wrong: its name, the value, what is allowed.
    """
    try:
        return _CELL.validate_python(values)
    except pydantic.ValidationError as error:
        raise CellError(explain(error)) from None


class CellError(UserError, ValueError):
    """A cell that cannot be: the message names field, value and what is allowed."""


# Which member of a union a value was: pydantic puts it into the path of an error.
_TAGS = {
    cls.__dataclass_fields__["kind"].default
    for union in (ImageTower, TextTower, Loss, Optimizer, Eval, Annotated[Pairs, None])
    for cls in get_args(get_args(union)[0])
}


# What pydantic adds to the path where a field takes one of several types: it reports each of them.
_BRANCH = re.compile(r"float|int|str|bool|constrained-\w+|literal\[.*\]")


def explain(error: pydantic.ValidationError) -> str:
    """A validation error as one line per wrong field."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"] if part not in _TAGS]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "unexpected_keyword_argument":
            message = "no such field"
        elif path and _BRANCH.fullmatch(path[-1]):
            path.pop()
        where, given = ".".join(path), item["input"]
        if where in lines:
            lines[where] += f", or {message.removeprefix('Input should be ')}"
            continue
        shown = f" = {given!r}" if isinstance(given, str | int | float | bool | None) else ""
        lines[where] = f"{where}{shown}: {message}" if where else message
    return "\n".join(lines.values())


def replace(cell: Cell, path: str, value: Any) -> Cell:
    """`cell` with the field at dotted `path` set, checked again.

    >>> replace(cell, "optimizer.b2", 0.999)

    Raises:
      CellError: no such field (with the fields that exist), or a value that is not allowed.
    """
    values = to_dict(cell)
    node: Any = values
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            fields = ", ".join(k for k in node if k != "kind") if isinstance(node, dict) else "none"
            inside = ".".join(parts[:depth]) or "a cell"
            raise CellError(f"--set {path}: {inside} has no field {part!r}; it has: {fields}")
        if depth == len(parts) - 1:
            node[part] = value
        else:
            node = node[part]
    return from_dict(values)


def _identity(value: Any) -> Any:
    """What is hashed: every field but those added later and left at their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if field.metadata.get("added_later") and item == field.default:
                continue
            fields[field.name] = _identity(item)
        return fields
    if isinstance(value, tuple):
        return [_identity(item) for item in value]
    return value
