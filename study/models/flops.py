"""Floating-point operations of one training step, counted from the cell.

Compilers count the body of a loop once, however often it runs, and a step consists of loops over
blocks, microbatches, tiles and devices. So the operations are counted here: a multiplication and
an addition for each pair of numbers in a matrix product. Elementwise operations are left out
(about 1 % at width 384, less above). All counts are of one step over all devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from study.config import (
    CachedImage,
    Cell,
    Groups,
    MeanPoolText,
    Negatives,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.execution import Remat
from study.config.model import Variant

# Passes over all products that are counted for the search of the threshold of hard or easy
# negatives, in addition to the one for the gradients. The search makes one pass as long as it
# stores the products, and five or six beyond that (`study.losses.hard_negatives`). These are means
# of an earlier search, left as they are so that plans stay comparable with the published ones.
THRESHOLD_PASSES = {"batch": 3, "row": 6}


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one step.

    Attributes:
      image, text: one forward pass of each tower over the batch; 0 for cached images.
      towers: both towers, forward, and backward for the trained parts.
      loss: the loss and its gradients as `study.losses` computes them: for all pairs of the batch
        or of its groups, including those that a choice of negatives then leaves out.
      loss_pairs: the part of it for pairs in use.
      recompute: forward passes that are repeated to save memory.
    """

    image: int
    text: int
    towers: int
    loss: int
    loss_pairs: int
    recompute: int = 0

    @property
    def model(self) -> int:
        """The "model FLOPs" of an MFU: without recomputation."""
        return self.towers + self.loss

    @property
    def executed(self) -> int:
        """What the devices compute."""
        return self.model + self.recompute


def step_flops(
    cell: Cell, *, channels: int = 3, microbatched: bool = False, remat: Remat | None = None
) -> Flops:
    """Operations of one step of `cell`.

    Arguments:
      channels: of the images.
      microbatched, remat: how it runs (`Execution.microbatch`, `Execution.remat`).
    """
    model, batch = cell.model, cell.batch_size
    towers = []
    if isinstance(model.image, ViT):
        image = _image(model.image, model.embed_dim, channels)
        towers.append((image, cell.optimizer.image.frozen))
    match model.text:
        case TextTransformer():
            text = _text(model.text, cell.data.text_length, model.embed_dim)
        case MeanPoolText():
            text = _average(model.text, cell.data.text_length, model.embed_dim)
    towers.append((text, cell.optimizer.text.frozen))
    trained = [tower for tower, frozen in towers if not frozen]
    again = microbatched * sum(t.forward for t in trained)
    again += sum(t.again[remat] for t in trained if remat in t.again)
    loss, pairs = _loss(cell)
    return Flops(
        image=0 if isinstance(model.image, CachedImage) else batch * image.forward,
        text=batch * text.forward,
        towers=batch * (sum(t.forward for t, _ in towers) + sum(t.backward for t in trained)),
        loss=loss,
        loss_pairs=pairs,
        recompute=batch * again,
    )


@dataclass(frozen=True)
class _Tower:
    """Operations on one example: forward, backward, and to recompute rematerialised blocks.

    Backward has two products for each one of forward: for the parameters and for the input. The
    input of an image tower's first layer needs no gradient.
    """

    forward: int
    backward: int
    again: dict[Remat | None, int] = field(default_factory=dict)


def _blocks(v: Variant, length: int) -> tuple[int, dict[Remat | None, int]]:
    """All blocks on one example: forward, and what a backward pass recomputes by policy.

    It does not recompute the second layer of the MLP, whose result only leaves the block.
    """
    pairs, projections = 4 * length**2 * v.width, 8 * length * v.width**2
    layer = 2 * length * v.width * v.mlp
    return v.depth * (pairs + projections + 2 * layer), {
        "nothing_saveable": v.depth * (pairs + projections + layer),
        "dots_with_no_batch_dims_saveable": v.depth * pairs,
        "dots_saveable": 0,
    }


def _image(tower: ViT, embed_dim: int, channels: int) -> _Tower:
    v, patches = tower.size, tower.grid**2
    length = patches + (tower.pool == "tok")
    embedding = 2 * patches * tower.patch**2 * channels * v.width
    blocks, again = _blocks(v, length)
    rest = 0
    if tower.pool == "map":
        # Keys and values of all positions, query and output of the probe; scores and sums.
        rest += 4 * length * v.width**2 + 4 * v.width**2 + 4 * length * v.width
        rest += 4 * v.width * v.mlp
    if tower.head == "always" or v.width != embed_dim:
        rest += 2 * v.width * embed_dim
    return _Tower(embedding + blocks + rest, embedding + 2 * (blocks + rest), again)


def _text(tower: TextTransformer, length: int, embed_dim: int) -> _Tower:
    v = tower.size
    blocks, again = _blocks(v, length)
    forward = blocks + 2 * v.width * embed_dim
    if tower.bottleneck is not None:
        forward += 2 * length * tower.bottleneck * v.width
    return _Tower(forward, 2 * forward, again)


def _average(tower: MeanPoolText, length: int, embed_dim: int) -> _Tower:
    mean = 2 * length * (tower.bottleneck or tower.width)
    rest = 8 * tower.width**2 + 2 * tower.width * embed_dim
    rest += 2 * (tower.bottleneck or 0) * tower.width
    return _Tower(mean + rest, mean + 2 * rest)


def _loss(cell: Cell) -> tuple[int, int]:
    """Operations of the loss with its gradients: as computed, and for the pairs in use.

    Sigmoid: a pair's product, and its weight times either embedding, 6 D. Softmax: the products
    again, since the normalisers come first.
    """
    batch, pairs, dim = cell.batch_size, cell.pairs, cell.model.embed_dim
    met = batch * pairs.size if isinstance(pairs, Groups) else batch**2
    each = (8 if isinstance(cell.loss, Softmax) else 6) * dim
    computed = met * each
    if isinstance(pairs, Negatives) and pairs.keep != "random":
        computed += THRESHOLD_PASSES[pairs.scope] * met * 2 * dim
    # Stored embeddings have no gradient, so a pair with one of them needs a product less.
    more = 2 * batch * cell.loss.queue_examples * (each - 2 * dim)
    one_side = {"none": 0, "images": 1, "texts": 1, "both": 2}
    more += one_side[cell.loss.same_side] * batch**2 * each
    return computed + more, pairs.count(batch) * each + more
