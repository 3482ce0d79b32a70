"""The number of parameters of a cell's model, counted without jax: plans need it at once."""

from __future__ import annotations

from study.config import CachedImage, Cell, MeanPoolText, TextTransformer, ViT
from study.config.model import Variant


def count_parameters(cell: Cell, vocabulary: int, *, channels: int = 3) -> int:
    """The parameters of both towers, t and b.

    Arguments:
      vocabulary: pieces of the tokenizer.
      channels: of the images.
    """
    model = cell.model
    total = 2 if cell.loss.has_bias else 1
    match model.image:
        case ViT():
            total += _image(model.image, model.embed_dim, channels)
        case CachedImage():
            pass
    match model.text:
        case TextTransformer():
            total += _text(model.text, cell.data.text_length, vocabulary, model.embed_dim)
        case MeanPoolText():
            total += _average(model.text, vocabulary, model.embed_dim)
    return total


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _encoder(v: Variant) -> int:
    mlp = _dense(v.width, v.mlp) + _dense(v.mlp, v.width)
    return v.depth * (4 * _dense(v.width, v.width) + mlp + 4 * v.width) + 2 * v.width


def _image(tower: ViT, embed_dim: int, channels: int) -> int:
    v, patches = tower.size, tower.grid**2
    total = _dense(tower.patch**2 * channels, v.width) + _encoder(v)
    if tower.posemb == "learn":
        total += patches * v.width
    if tower.pool == "tok":
        total += v.width
    if tower.pool == "map":
        mlp = _dense(v.width, v.mlp) + _dense(v.mlp, v.width)
        total += v.width + 4 * _dense(v.width, v.width) + 2 * v.width + mlp
    if tower.head == "always" or v.width != embed_dim:
        total += _dense(v.width, embed_dim)
    return total


def _text(tower: TextTransformer, length: int, vocabulary: int, embed_dim: int) -> int:
    v = tower.size
    table = _table(vocabulary, v.width, tower.bottleneck)
    return table + length * v.width + _encoder(v) + _dense(v.width, embed_dim)


def _average(tower: MeanPoolText, vocabulary: int, embed_dim: int) -> int:
    width = tower.width
    mlp = _dense(width, 2 * width) + _dense(2 * width, width)
    return _table(vocabulary, width, tower.bottleneck) + mlp + _dense(width, embed_dim)


def _table(vocabulary: int, width: int, narrow: int | None) -> int:
    return vocabulary * width if narrow is None else (vocabulary + width) * narrow
