"""Infers the model from the names and shapes of a checkpoint's parameters."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pydantic

from study.config import Model, TextTransformer, ViT
from study.config.cell import explain
from study.config.data import Pad
from study.config.model import VARIANTS
from study.data.formats.dataset import DataError
from study.interop.big_vision import Tree

# Released checkpoints by the rows of their token embedding: their tokenizer, and how their texts
# were padded. Nothing else distinguishes SigLIP 2 from SigLIP: parameters have the same names, and
# Hugging Face's config.json calls both "siglip".
RELEASED: dict[int, tuple[str, Pad]] = {
    32_000: ("SigLIP, C4 tokenizer", "eos"),
    250_000: ("multilingual SigLIP, mC4 tokenizer", "eos"),
    256_000: ("SigLIP 2, Gemma tokenizer", "pad"),
}


class InferredModel(NamedTuple):
    """A model, and the properties of its input that its parameters fix.

    Attributes:
      channels: of the images; None without an image tower.
      vocabulary, text_length: rows of the token embedding, tokens per text; None without a text
        tower.
      pad: how texts were padded; None unless this is the vocabulary of a released checkpoint.
    """

    model: Model
    channels: int | None
    vocabulary: int | None
    text_length: int | None
    pad: Pad | None


def infer_model(params: Tree, *, image_size: int | None = None) -> InferredModel:
    """The model with these parameters (see `study.interop`).

    Arguments:
      image_size: in pixels; by default patches times patch size (So400m/14 at 384 has 27 x 14).

    Raises:
      DataError: no variant has these sizes, or the towers embed in different widths.
    """
    try:
        return _infer(params, image_size)
    except pydantic.ValidationError as error:
        raise DataError(f"the checkpoint is of an unknown model: {explain(error)}") from None
    except KeyError as error:
        raise DataError(f"the checkpoint is of an unknown model: it lacks {error}") from None


def _infer(params: Tree, image_size: int | None) -> InferredModel:
    towers: dict[str, Any] = {}
    channels = vocabulary = text_length = pad = None
    dims = {}
    if "img" in params:
        img = params["img"]
        towers["image"], channels, dims["img"] = _image(img, image_size)
    if "txt" in params:
        txt = params["txt"]
        table_VxK = txt["Embed_0"]["embedding"]
        projected = "embed_projection" in txt
        name, depth = _size(txt["Encoder_0"])
        towers["text"] = TextTransformer(
            variant=name, depth=depth, bottleneck=table_VxK.shape[1] if projected else None
        )
        vocabulary, text_length = len(table_VxK), txt["pos_embedding"].shape[1]
        if vocabulary in RELEASED:
            _, pad = RELEASED[vocabulary]
        dims["txt"] = txt["head"]["kernel"].shape[1]
    if len(set(dims.values())) != 1:
        raise DataError(f"the checkpoint's towers embed in different widths: {dims or 'none'}")
    model = Model(**towers, embed_dim=dims.popitem()[1])
    return InferredModel(model, channels, vocabulary, text_length, pad)


def _image(img: Tree, image_size: int | None) -> tuple[ViT, int, int]:
    patch, _, channels, width = img["embedding"]["kernel"].shape
    name, depth = _size(img["Transformer"])
    learned = "pos_embedding" in img
    if image_size is None:
        if not learned:
            raise DataError("the checkpoint does not fix the size of its images; give image_size")
        image_size = patch * math.isqrt(img["pos_embedding"].shape[1])
    dim = img["head"]["kernel"].shape[1] if "head" in img else width
    tower = ViT(
        variant=f"{name}/{patch}",
        image_size=image_size,
        pool="map" if "MapHead_0" in img else "tok" if "cls" in img else "gap",
        depth=depth,
        posemb="learn" if learned else "sincos2d",
        head="always" if "head" in img and dim == width else "if_needed",
    )
    if learned and tower.grid**2 != (patches := img["pos_embedding"].shape[1]):
        raise DataError(
            f"images of {image_size} pixels have {tower.grid}x{tower.grid} patches of {patch}, "
            f"the checkpoint has {patches} positions; give another image size"
        )
    return tower, channels, dim


def _size(encoder: Tree) -> tuple[str, int | None]:
    """The name of the variant, and its depth if that is not the variant's."""
    blocks = encoder["encoderblock"]
    depth, width, heads, _ = blocks["MultiHeadDotProductAttention_0"]["query"]["kernel"].shape
    mlp = blocks["Mlp_0"]["Dense_0"]["kernel"].shape[1]
    named = {n: v for n, v in VARIANTS.items() if (v.width, v.mlp, v.heads) == (width, mlp, heads)}
    if not named:
        raise DataError(
            f"the checkpoint is of an unknown model: width {width}, MLP {mlp} and {heads} "
            f"heads are none of {', '.join(VARIANTS)}"
        )
    # g-opt and G-opt differ only in depth.
    name = next((n for n, v in named.items() if v.depth == depth), next(iter(named)))
    return name, None if named[name].depth == depth else depth
