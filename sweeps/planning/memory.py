"""Estimates of memory: they order a search, and replace the compiler where there is none.

No cell is declared too large by an estimate alone. For ten steps of Tables 1 and 8 on v4 (whole
batches, rematerialised ones and microbatches) they were 1.0 to 1.4 times the compiler's peak.
"""

from __future__ import annotations

from study.config import Adam, CachedImage, Cell, Lion, MeanPoolText, TextTransformer, ViT
from study.config.execution import Remat
from study.config.hardware import Slice
from study.config.model import Variant
from study.models.parameters import count_parameters
from study.planning.fits import RunSetting

# What the compiler needed inside a block of SigLiT's B text tower at 16 tokens, over what
# `_block_bytes` counts: gelu and softmax have float32 intermediates, and axes are padded.
_PADDING = 3
# A TPU pads the last axis of an array to a multiple of this.
_LANES = 128
# Arrays of a device's embeddings in memory at once: both sides, their gradients, and the texts and
# gradients that travel round the ring.
_EMBEDDING_ARRAYS = 10


def step_bytes(cell: Cell, machine: Slice, setting: RunSetting, vocabulary: int) -> int:
    """Estimated bytes per device of a step: state, gradients, embeddings, batch, activations."""
    rows = -(-cell.batch_size // machine.devices)
    size = rows if setting.microbatch is None else min(setting.microbatch, rows)
    parameters = count_parameters(cell, vocabulary)
    shards = 1 if setting.fsdp_min_mib is None else machine.devices // machine.slices
    state = parameters * (8 + moment_bytes(cell)) // shards
    embeddings = _EMBEDDING_ARRAYS * rows * cell.model.embed_dim * 4
    return (
        state + embeddings + 2 * rows * batch_bytes(cell) + size * activation_bytes(cell, setting)
    )


def evaluation_bytes(cell: Cell, machine: Slice, setting: RunSetting, vocabulary: int) -> int:
    """An upper bound on the bytes per device that an evaluation needs to embed a batch.

    State and training data are not counted. For towers on v4-8 (B/16 with B, cached embeddings
    with g, each replicated and sharded) it was 1.3 to 10 times the compiler's account. Without
    gradients an evaluation seldom needs as much as the step, and then it need not be compiled.

    Arguments:
      cell: with the evaluation's batch size, see `study.planning.fits.evaluation_of`.
    """
    rows = -(-cell.batch_size // machine.devices)
    model, parameters = cell.model, count_parameters(cell, vocabulary)
    # Weights are cast for the matrix products, all at once if the compiler moves the cast out of
    # the loop over blocks, and gathered if they are sharded.
    weights = parameters * (2 if model.dtype == "bfloat16" else 0)
    weights += 0 if setting.fsdp_min_mib is None else 4 * parameters
    towers = []
    if isinstance(model.image, ViT):
        towers.append(_forward(model.image.size, model.image.grid**2 + 1, model.dtype))
    match model.text:
        case TextTransformer():
            towers.append(_forward(model.text.size, cell.data.text_length, model.dtype))
        case MeanPoolText():
            towers.append(_PADDING * 4 * _lanes(model.text.width) * (cell.data.text_length + 8))
    embedded = 2 * 4 * _lanes(model.embed_dim)
    return weights + rows * (2 * batch_bytes(cell) + embedded + max(towers))


def moment_bytes(cell: Cell) -> int:
    """Bytes of optimizer state per parameter: two float32 moments, one, or one in bfloat16
    (Adafactor, whose factors are small)."""
    return {Adam: 8, Lion: 4}.get(type(cell.optimizer), 2)


def batch_bytes(cell: Cell) -> int:
    """Bytes of one example in a batch."""
    image = cell.model.image
    pixels = image.dim if isinstance(image, CachedImage) else 3 * image.image_size**2
    return 4 * (pixels + cell.data.text_length)


def activation_bytes(cell: Cell, setting: RunSetting) -> int:
    """Bytes that both towers keep for the backward pass of one example."""
    model, total = cell.model, 0
    if isinstance(model.image, ViT):
        total += _block_bytes(model.image.size, model.image.grid**2 + 1, model.dtype, setting.remat)
    match model.text:
        case TextTransformer():
            total += _block_bytes(
                model.text.size, cell.data.text_length, model.dtype, setting.remat
            )
        case MeanPoolText():
            total += _PADDING * 4 * model.text.width * (cell.data.text_length + 8)
    return total


def _block_bytes(v: Variant, length: int, dtype: str, remat: Remat | None) -> int:
    """Bytes that all blocks keep: their float32 inputs, and unless those are recomputed, both
    normed inputs, queries, keys, values, scores and the hidden layer before and after its gelu."""
    size = 4 if dtype == "float32" else 2
    inside = _PADDING * length * (size * (7 * v.width + 2 * v.mlp) + v.heads * length * (size + 4))
    carried = 4 * length * v.width
    dense = _PADDING * length * size * (4 * v.width + v.mlp)
    products = _PADDING * length * size * (v.heads * length + v.width)
    match remat:
        case None:
            return v.depth * (carried + inside)
        case "nothing_saveable":
            return v.depth * carried + inside
        case "dots_with_no_batch_dims_saveable":
            return v.depth * (carried + dense) + inside
        case "dots_saveable":
            return v.depth * (carried + dense + products) + inside


def _forward(v: Variant, length: int, dtype: str) -> int:
    """Bytes of one block without gradients: all of its arrays, float32 input and output."""
    size = 4 if dtype == "float32" else 2
    width, mlp = _lanes(v.width), _lanes(v.mlp)
    scores = v.heads * _lanes(length) * (size + 4)
    return length * (2 * 4 * width + size * (7 * width + 2 * mlp) + scores)


def _lanes(size: int) -> int:
    return -(-size // _LANES) * _LANES
