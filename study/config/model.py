"""The model of a cell: its towers, their sizes, and the checkpoint that they start from."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.config.base import CONFIG, Positive

Rate = Annotated[float, Field(ge=0, lt=1)]
# How the files end that `study.interop.load` reads.
CHECKPOINTS = (".npz", ".safetensors", ".safetensors.index.json", ".pt", ".bin")


class Variant(NamedTuple):
    """The size of a transformer.

    Attributes:
      width: Width of the residual stream.
      depth: Number of blocks.
      mlp: Width of the MLPs.
      heads: Attention heads.
    """

    width: int
    depth: int
    mlp: int
    heads: int


class Vocabulary(NamedTuple):
    """What a text tower needs to know of a tokenizer.

    Attributes:
      size: Number of pieces; their ids are 0 to size - 1.
      eos: Id of the end of a text.
      pad: Id that fills a text up to its length, which may be `eos`.
    """

    size: int
    eos: int
    pad: int


# The sizes named by the paper and its code base; "mu" and "nu" are for tests and CPU studies.
VARIANTS = {
    "mu": Variant(32, 1, 128, 2),
    "nu": Variant(128, 1, 512, 4),
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


def get_variant(name: str, depth: int | None = None) -> Variant:
    """The size with this name; `depth` overrides its number of blocks.

    Raises:
      ValueError: The variant is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown tower variant {name!r}; known: {', '.join(VARIANTS)}")
    size = VARIANTS[name]
    return size if depth is None else size._replace(depth=depth)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CachedImage:
    """Cached embeddings of a frozen image tower in place of an image tower (SigLiT).

    Attributes:
      embeddings: Folder of the embeddings under `<dataset>/embeddings/`.
      dim: Width of the embeddings, and so of the shared embedding space.
    """

    kind: Literal["cached"] = "cached"
    embeddings: str
    dim: Positive


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ViT:
    """A vision transformer.

    Attributes:
      variant: Size and side of a patch in pixels, such as "B/16".
      image_size: Side of an image in pixels.
      pool: How the patches become one vector: "map" (attention pooling with a learned probe),
        "gap" (mean) or "tok" (a class token, as in AugReg checkpoints).
      depth: Number of blocks; None is that of the variant.
      posemb: Position embedding: "learn", or the fixed "sincos2d".
      head: Project to `embed_dim` only "if_needed" (the widths differ; the released SigLIP models
        have no projection) or "always".
      dropout: Dropout rate after the position embedding and in every block, in training only.
    """

    kind: Literal["vit"] = "vit"
    variant: str = "mu/6"
    image_size: Positive = 24
    pool: Literal["map", "gap", "tok"] = "map"
    depth: Positive | None = None
    posemb: Literal["learn", "sincos2d"] = "learn"
    head: Literal["if_needed", "always"] = "if_needed"
    dropout: Rate = 0.0

    def __post_init__(self) -> None:
        name, _, patch = self.variant.partition("/")
        width = get_variant(name).width
        if not (patch.isdecimal() and 0 < int(patch) <= self.image_size):
            raise ValueError(
                f"tower variant {self.variant!r}: write a size and the side of a patch of at most "
                f"image_size={self.image_size} pixels, such as 'B/16'"
            )
        if self.posemb == "sincos2d" and width % 4:
            raise ValueError(f"posemb 'sincos2d' needs a width divisible by 4, not {width}")

    @property
    def size(self) -> Variant:
        return get_variant(self.variant.partition("/")[0], self.depth)

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
    """The paper's text tower: bidirectional transformer, pooled at the last token, linear head.

    Attributes:
      variant: Size, such as "B".
      depth: Number of blocks; None is that of the variant.
      bottleneck: Rank K of a factored embedding, V x K then K x W, which keeps a multilingual
        vocabulary small (paper Sec. 4.3: K = 96, W = 768, V = 250k).
      dropout: Dropout rate in every block, in training only.
    """

    kind: Literal["transformer"] = "transformer"
    variant: str = "mu"
    depth: Positive | None = None
    bottleneck: Positive | None = None
    dropout: Rate = 0.0

    def __post_init__(self) -> None:
        get_variant(self.variant)

    @property
    def size(self) -> Variant:
        return get_variant(self.variant, self.depth)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class MeanPoolText:
    """A text tower for CPU studies: mean of word-piece embeddings, then one residual MLP.

    It ignores word order and trains about eight times faster than the smallest transformer.
    Figures drawn from it state this. It is not in the paper.

    Attributes:
      width: Width of the embeddings and of the tower's output.
      bottleneck: Rank K of a factored embedding, as in `TextTransformer`.
    """

    kind: Literal["mean_pool"] = "mean_pool"
    width: Positive = 96
    bottleneck: Positive | None = None


ImageTower = Annotated[CachedImage | ViT, Field(discriminator="kind")]
TextTower = Annotated[TextTransformer | MeanPoolText, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Model:
    """Two towers with a shared embedding space.

    Attributes:
      image: Image tower.
      text: Text tower.
      embed_dim: Width of the shared space.
      dtype: Type of the matrix products in the towers. Parameters, the residual stream, norms,
        attention weights and embeddings are always float32.
      init: Checkpoint to start from instead of random values, relative to the data root: a SigLIP
        of big_vision, Hugging Face or OpenCLIP, see `study.interop.load`. "file.npz" restores all
        that it holds, t and b included; "file.npz:img" and "file.npz:txt" restore one tower.
    """

    image: ImageTower = Field(default_factory=ViT)
    text: TextTower = Field(default_factory=TextTransformer)
    embed_dim: Positive = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    init: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.image, CachedImage) and self.image.dim != self.embed_dim:
            raise ValueError(
                f"model.embed_dim: {self.embed_dim} differs from the width of the cached "
                f"embeddings; set embed_dim={self.image.dim}"
            )
        if self.init is None:
            return
        path, _, part = self.init.rpartition(":")
        if part not in ("img", "txt"):
            path = self.init
        if not path.endswith(CHECKPOINTS):
            raise ValueError(
                f"model.init: {self.init!r} is not a checkpoint; write a file "
                f"({', '.join(CHECKPOINTS)}), followed by :img or :txt for one tower only"
            )
        if part == "img" and isinstance(self.image, CachedImage):
            raise ValueError(
                "model.init: a model with cached images has no image tower; leave out :img"
            )
