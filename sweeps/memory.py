"""Memory of a step by formula: where to begin a search, and all there is without a compiler.

Nothing is said not to fit by these numbers alone. They were 1.0 to 1.4 times what the compiler
said of ten steps of Tables 1 and 8 on v4, whole batches, rematerialised ones and microbatches.
"""

from __future__ import annotations

from study.cell import Adam, CachedImage, Cell, Lion, TextAverage, TextTransformer, ViT
from study.fit import Setting
from study.hardware import Slice
from study.model import Variant
from study.parameters import count

# What the compiler needed within a block of SigLiT's B text tower at 16 tokens, over what `_kept`
# counts there: intermediates of gelu and softmax in float32, and axes padded to the chip's lanes.
_PADDED = 3
# Arrays of a device's embeddings held at once: both sides, their gradients, and the texts and
# gradients under way round the ring.
_EMBEDDINGS = 10


def step_bytes(cell: Cell, machine: Slice, setting: Setting, vocabulary: int) -> int:
    """About what a step needs per device: state, gradients, embeddings, batch, activations."""
    rows = -(-cell.batch_size // machine.devices)
    size = rows if setting.microbatch is None else min(setting.microbatch, rows)
    parameters = count(cell, vocabulary)
    cut = 1 if setting.fsdp_mib is None else machine.devices // machine.slices
    state = parameters * (8 + moment_bytes(cell)) // cut
    embeddings = _EMBEDDINGS * rows * cell.model.embed_dim * 4
    return state + embeddings + 2 * rows * batch_bytes(cell) + size * activations(cell, setting)


def moment_bytes(cell: Cell) -> int:
    """Of optimizer state per parameter: two float32 moments, one, or one in bfloat16 beside
    factors that are small."""
    return {Adam: 8, Lion: 4}.get(type(cell.optimizer), 2)


def batch_bytes(cell: Cell) -> int:
    """Of one example on its way to the step."""
    image = cell.model.image
    pixels = image.dim if isinstance(image, CachedImage) else 3 * image.image_size**2
    return 4 * (pixels + cell.data.text_length)


def activations(cell: Cell, setting: Setting) -> int:
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
