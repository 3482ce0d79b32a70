"""The model of a cell as values: which towers, how large, and where they start.

Building a value checks it; `study.towers` turns it into a module.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import ADDED_LATER, CONFIG, Positive

Rate = Annotated[float, Field(ge=0, lt=1)]


class Variant(NamedTuple):
    """The size of a transformer."""

    width: int
    depth: int
    mlp: int
    heads: int


# The sizes that the paper and its code base name; mu is for tests and CPU studies.
VARIANTS = {
    "mu": Variant(32, 1, 128, 2),
    "Ti": Variant(192, 12, 768, 3),
    "S": Variant(384, 12, 1536, 6),
    "M": Variant(512, 12, 2048, 8),
    "B": Variant(768, 12, 3072, 12),
    "L": Variant(1024, 24, 4096, 16),
    "So400m": Variant(1152, 27, 4304, 16),
    "H": Variant(1280, 32, 5120, 16),
    "g": Variant(1408, 40, 6144, 16),
    "g-opt": Variant(1536, 40, 6144, 16),
    "G": Variant(1664, 48, 8192, 16),
    "G-opt": Variant(1536, 48, 8192, 16),
    "e": Variant(1792, 56, 15360, 16),
}


def variant(name: str, depth: int | None = None) -> Variant:
    """Width, depth, MLP width and heads by name; `depth` overrides that of the name.

    Raises:
      ValueError: no such variant, with those that exist.
    """
    if name not in VARIANTS:
        raise ValueError(f"tower variant {name!r} does not exist; there are {', '.join(VARIANTS)}")
    size = VARIANTS[name]
    return size if depth is None else size._replace(depth=depth)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CachedImage:
    """No image tower: `zimg` comes from cached embeddings of a frozen tower (SigLiT).

    `embeddings` names a folder under `<dataset>/embeddings/`; `dim` is its width, and so the
    width `E` of the shared embedding space.
    """

    kind: Literal["cached"] = "cached"
    embeddings: str
    dim: Positive


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ViT:
    """A vision transformer, by default with attention (MAP) pooling and learned positions.

    variant: a size and the side of a patch in pixels, such as "B/16".
    pool: "map" (a learned probe attends to all patches), "gap" (their mean) or "tok" (a token
      of its own, as in AugReg checkpoints).
    depth: blocks, where not those of the variant ("L with 12 layers" is variant="L/16", depth=12).
    posemb: "learn", or "sincos2d", which has no parameters.
    head: a linear map to the embedding width follows "if_needed" (where the tower's own width
      differs, so the released SigLIP models have none) or "always".
    dropout: after the position embedding and inside every block; training only.
    """

    kind: Literal["vit"] = "vit"
    variant: str = "mu/6"
    image_size: Positive = 24
    pool: Literal["map", "gap", "tok"] = "map"
    depth: Positive | None = field(default=None, metadata=ADDED_LATER)
    posemb: Literal["learn", "sincos2d"] = field(default="learn", metadata=ADDED_LATER)
    head: Literal["if_needed", "always"] = field(default="if_needed", metadata=ADDED_LATER)
    dropout: Rate = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        name, _, patch = self.variant.partition("/")
        width = variant(name).width
        if not (patch.isdecimal() and 0 < int(patch) <= self.image_size):
            raise ValueError(
                f"tower variant {self.variant!r}: write a size and the side of a patch, at most "
                f"image_size={self.image_size}, such as 'B/16'"
            )
        if self.posemb == "sincos2d" and width % 4:
            raise ValueError(f"posemb 'sincos2d' needs a width that 4 divides, not {width}")

    @property
    def size(self) -> Variant:
        return variant(self.variant.partition("/")[0], self.depth)

    @property
    def patch(self) -> int:
        """Pixels along the side of a patch."""
        return int(self.variant.partition("/")[2])

    @property
    def grid(self) -> int:
        """Patches along the side of an image."""
        return self.image_size // self.patch


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TextTransformer:
    """The paper's text tower: bidirectional transformer, last token, linear head.

    depth: blocks, where not those of the variant.
    bottleneck: K of a factored embedding, V x K then K x W, which keeps a multilingual
      vocabulary small (paper Sec. 4.3: K = 96 beside W = 768 for 250k pieces).
    dropout: inside every block; training only.
    """

    kind: Literal["transformer"] = "transformer"
    variant: str = "mu"
    depth: Positive | None = field(default=None, metadata=ADDED_LATER)
    bottleneck: Positive | None = field(default=None, metadata=ADDED_LATER)
    dropout: Rate = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        variant(self.variant)

    @property
    def size(self) -> Variant:
        return variant(self.variant, self.depth)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TextAverage:
    """A named variant for CPU studies: mean of word-piece embeddings and one residual MLP.

    It ignores word order and trains about eight times faster than the smallest transformer.
    Figures drawn from it say so.
    """

    kind: Literal["average"] = "average"
    width: Positive = 96


ImageTower = Annotated[CachedImage | ViT, Field(discriminator="kind")]
TextTower = Annotated[TextTransformer | TextAverage, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Model:
    """Two towers that meet in an `embed_dim`-wide space.

    dtype: of the matrix products inside the towers. Parameters, the residual stream, norms,
      attention weights and embeddings are float32 in either case.
    init: a checkpoint that the parameters start from instead of random ones, big_vision's `.npz`
      or Hugging Face's `.safetensors`; relative to the folder of the data sets. "file.npz" gives
      all it holds, t and b included; "file.npz:img" and "file.npz:txt" one tower only.
    """

    image: ImageTower = Field(default_factory=ViT)
    text: TextTower = Field(default_factory=TextTransformer)
    embed_dim: Positive = 32
    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata=ADDED_LATER)
    init: str | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        if isinstance(self.image, CachedImage) and self.image.dim != self.embed_dim:
            raise ValueError(
                f"model.embed_dim: {self.embed_dim} does not fit the cached embeddings, "
                f"which are {self.image.dim} wide; set embed_dim={self.image.dim}"
            )
        if self.init is None:
            return
        path, _, part = self.init.rpartition(":")
        if part not in ("img", "txt"):
            path = self.init
        if not path.endswith((".npz", ".safetensors")):
            raise ValueError(
                f"model.init: {self.init!r} is no checkpoint; write FILE.npz or FILE.safetensors, "
                "with :img or :txt behind it for one tower only"
            )
        if part == "img" and isinstance(self.image, CachedImage):
            raise ValueError("model.init: a model with cached images has no image tower to start")
