"""Memory by formula: where to begin a search, and all there is without a compiler.

No cell is declared too large by these numbers alone. For ten steps of Tables 1 and 8 on v4 (whole
batches, rematerialised ones and microbatches) they were 1.0 to 1.4 times the compiler's peak.
"""

from __future__ import annotations

from study.config.cell import Adam, CachedImage, Cell, Lion, TextAverage, TextTransformer, ViT
from study.config.hardware import Slice
from study.config.model import Variant
from study.models.parameters import count_parameters
from study.planning.fits import RunSetting

# What the compiler needed within a block of SigLiT's B text tower at 16 tokens, over what `_kept`
# counts there: intermediates of gelu and softmax in float32, and axes padded to the chip's lanes.
_PADDED = 3
# The last axis of an array takes a multiple of these many places in a TPU's memory.
_LANES = 128
# Arrays of a device's embeddings held at once: both sides, their gradients, and the texts and
# gradients under way round the ring.
_EMBEDDINGS = 10


def step_bytes(cell: Cell, machine: Slice, setting: RunSetting, vocabulary: int) -> int:
    """About what a step needs per device: state, gradients, embeddings, batch, activations."""
    rows = -(-cell.batch_size // machine.devices)
    size = rows if setting.microbatch is None else min(setting.microbatch, rows)
    parameters = count_parameters(cell, vocabulary)
    cut = 1 if setting.fsdp_mib is None else machine.devices // machine.slices
    state = parameters * (8 + moment_bytes(cell)) // cut
    embeddings = _EMBEDDINGS * rows * cell.model.embed_dim * 4
    return (
        state + embeddings + 2 * rows * batch_bytes(cell) + size * activation_bytes(cell, setting)
    )


def evaluation_bytes(cell: Cell, machine: Slice, setting: RunSetting, vocabulary: int) -> int:
    """More than an evaluation takes per device to embed a batch, beside state and training data.

    Of three pairs of towers on v4-8 (B/16 with B, cached embeddings with g, each whole and cut)
    this was 1.3 to 10 times what the compiler said. An evaluation whose bound stays below the
    step need not be compiled: it makes no gradient, so it seldom comes near.

    Arguments:
      cell: with the evaluation's batch as its own, see `study.planning.fits.evaluation_of`.
    """
    rows = -(-cell.batch_size // machine.devices)
    model, parameters = cell.model, count_parameters(cell, vocabulary)
    # Weights are cast for the matrix products, all at once where the compiler takes the cast out
    # of the loop over blocks, and brought together where they are cut.
    weights = parameters * (2 if model.dtype == "bfloat16" else 0)
    weights += 0 if setting.fsdp_mib is None else 4 * parameters
    towers = []
    if isinstance(model.image, ViT):
        towers.append(_forward(model.image.size, model.image.grid**2 + 1, model.dtype))
    match model.text:
        case TextTransformer():
            towers.append(_forward(model.text.size, cell.data.text_length, model.dtype))
        case TextAverage():
            towers.append(_PADDED * 4 * _lanes(model.text.width) * (cell.data.text_length + 8))
    embedded = 2 * 4 * _lanes(model.embed_dim)
    return weights + rows * (2 * batch_bytes(cell) + embedded + max(towers))


def moment_bytes(cell: Cell) -> int:
    """Of optimizer state per parameter: two float32 moments, one, or one in bfloat16 beside
    factors that are small."""
    return {Adam: 8, Lion: 4}.get(type(cell.optimizer), 2)


def batch_bytes(cell: Cell) -> int:
    """Of one example on its way to the step."""
    image = cell.model.image
    pixels = image.dim if isinstance(image, CachedImage) else 3 * image.image_size**2
    return 4 * (pixels + cell.data.text_length)


def activation_bytes(cell: Cell, setting: RunSetting) -> int:
    """Bytes that both towers keep of one example for the backward pass."""
    model, total = cell.model, 0
    if isinstance(model.image, ViT):
        total += _kept(model.image.size, model.image.grid**2 + 1, model.dtype, setting.remat)
    match model.text:
        case TextTransformer():
            total += _kept(model.text.size, cell.data.text_length, model.dtype, setting.remat)
        case TextAverage():
            total += _PADDED * 4 * model.text.width * (cell.data.text_length + 8)
    return total


def _kept(v: Variant, length: int, dtype: str, remat: bool) -> int:
    """Each block keeps its float32 input, and, unless that is computed again, both normed
    inputs, queries, keys, values, scores and the hidden layer before and after its gelu."""
    size = 4 if dtype == "float32" else 2
    inside = _PADDED * length * (size * (7 * v.width + 2 * v.mlp) + v.heads * length * (size + 4))
    carried = 4 * length * v.width
    return v.depth * carried + inside if remat else v.depth * (carried + inside)


def _forward(v: Variant, length: int, dtype: str) -> int:
    """One block without its gradient, all of its arrays at once, between its float32 input and
    output."""
    size = 4 if dtype == "float32" else 2
    width, mlp = _lanes(v.width), _lanes(v.mlp)
    scores = v.heads * _lanes(length) * (size + 4)
    return length * (2 * 4 * width + size * (7 * width + 2 * mlp) + scores)


def _lanes(places: int) -> int:
    return -(-places // _LANES) * _LANES
