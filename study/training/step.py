"""The training step: one function that `train` runs, `plan` compiles and `bench` times."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from study.config import Cell, Sigmoid
from study.config.execution import Remat
from study.config.model import Vocabulary
from study.losses import LogitStats, count_kept, sigmoid_loss, softmax_loss
from study.losses.captions import caption_ids
from study.losses.queue import Queue
from study.models.dropout import example_keys
from study.models.sharding import batch_sharding, param_shardings
from study.models.two_towers import TwoTowers, bias, temperature
from study.rng import mix
from study.training.microbatch import in_microbatches
from study.training.optimizer import Rates, optimizer, read_rates, trained_norm

Batch = dict[str, jax.Array]


class Interval(NamedTuple):
    """Sums and maxima over the steps since the last recorded row; float32 scalars.

    A row is written once in many steps, so without these it would miss a spike of one step. They
    are part of the state: a run that resumes between two rows records the same values. A maximum
    is NaN if any step's value was.
    """

    steps: jax.Array
    loss_sum: jax.Array
    loss_max: jax.Array
    grad_norm_max: jax.Array
    update_norm_max: jax.Array

    @classmethod
    def empty(cls) -> Interval:
        lowest = jnp.float32(-jnp.inf)
        return cls(jnp.float32(0), jnp.float32(0), lowest, lowest, lowest)

    def add(self, loss: jax.Array, grad_norm: jax.Array, update_norm: jax.Array) -> Interval:
        return Interval(
            steps=self.steps + 1,
            loss_sum=self.loss_sum + loss,
            loss_max=jnp.maximum(self.loss_max, loss),
            grad_norm_max=jnp.maximum(self.grad_norm_max, grad_norm),
            update_norm_max=jnp.maximum(self.update_norm_max, update_norm),
        )


class State(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds.

    Attributes:
      step: optimizer steps taken, int32.
      seed: of the run, uint32. Examples, negatives and dropout derive from it and the step.
      queue: `study.losses.queue.Queue`, or None for a loss without one.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    seed: jax.Array
    interval: Interval
    queue: Queue | None = None


class Metrics(NamedTuple):
    """Float32 scalars of the last step; NaN for what a cell does not have, such as a bias.

    `loss_mean` and the maxima are over all steps since the last recorded row, see `Interval`.
    `param_norm` is of the parameters after the step.
    """

    loss: jax.Array
    loss_mean: jax.Array
    loss_max: jax.Array
    grad_norm_max: jax.Array
    update_norm_max: jax.Array
    t: jax.Array
    b: jax.Array
    lr: jax.Array
    grad_norm: jax.Array
    update_norm: jax.Array
    param_norm: jax.Array
    logits: LogitStats

    @classmethod
    def zeros(cls) -> Metrics:
        scalar = jnp.float32(0)
        logits = LogitStats._make([scalar] * len(LogitStats._fields))
        return cls._make([scalar] * (len(cls._fields) - 1) + [logits])

    def as_columns(self) -> dict[str, float]:
        """The columns of a record's row, `train/<name>`; without what the loss does not have."""
        flat = self._asdict()
        flat |= flat.pop("logits")._asdict()
        values = {f"train/{name}": float(value) for name, value in flat.items()}
        for name in ("train/b", "train/same_captions"):
            if math.isnan(values[name]):
                del values[name]
        return values


class Numbers(NamedTuple):
    """The numbers of a cell that its program takes as arguments, so that cells share programs.

    Attributes:
      keep_2: how many negatives count, see `study.losses.count_kept`.
    """

    rates: Rates
    keep_2: Any


def read_numbers(cell: Cell) -> Numbers:
    """The numbers of `cell`, for the program of its `study.training.compile_key.compile_key`."""
    return Numbers(read_rates(cell), count_kept(cell.pairs, cell.batch_size))


# (state, batch, numbers, the schedule's factor) -> (state, metrics)
Step = Callable[[State, Batch, Numbers, jax.Array], tuple[State, Metrics]]
# (cell, embeddings, params, key, keep_2, queue, mesh) -> (loss, statistics of the logits)
LossFn = Callable[
    [Cell, "Embeddings", Any, jax.Array, Any, Queue | None, Mesh | None],
    tuple[jax.Array, LogitStats],
]


class Embeddings(NamedTuple):
    """Of a whole batch: unit-norm images and texts, and `caption_ids` of the captions, or of the
    classes, where a loss needs them."""

    zimg_BxE: jax.Array
    ztxt_BxE: jax.Array
    caption_Bx2: jax.Array | None


def initial_state(
    cell: Cell,
    vocabulary: Vocabulary,
    image_shape: tuple[int, ...],
    seed: Any,
    scalars: dict[str, Any] | None = None,
) -> State:
    """Parameters and optimizer state at step 0, a function of the cell and its seed.

    Arguments:
      image_shape: of one example: (H, W, C), or (E,) for cached embeddings.
      seed: uint32, which may be traced; `cell.seed` is not read.
      scalars: `study.models.two_towers.initial_scalars`, which may be traced; None: the cell's.
    """
    model = TwoTowers(cell, vocabulary)
    image = jnp.zeros((1, *image_shape))
    text = jnp.ones((1, cell.data.text_length), jnp.int32)
    params = model.init(jax.random.key(seed), image, text)["params"] | (scalars or {})
    seed = jnp.asarray(seed, jnp.uint32)
    step = jnp.zeros((), jnp.int32)
    queue = None
    if size := cell.loss.queue_examples:
        dtype = jnp.dtype(cell.model.dtype)
        steps = size // cell.batch_size
        queue = Queue.empty(steps, cell.batch_size, cell.model.embed_dim, dtype)
    return State(params, optimizer(cell).init(params), step, seed, Interval.empty(), queue)


def batch_loss(
    cell: Cell,
    z: Embeddings,
    params: Any,
    key: jax.Array,
    keep_2: Any,
    queue: Queue | None,
    mesh: Mesh | None,
) -> tuple[jax.Array, LogitStats]:
    """The cell's loss of a whole batch of embeddings, and statistics of its logits.

    Arguments:
      params: of the whole model; t and b are read.
      key: uint32 scalar that chooses random negatives.
      keep_2, queue: see `study.losses.sigmoid_loss`.
      mesh: the devices that hold the rows, over all its axes; None for one device.
    """
    t = temperature(params)
    more: Any = {"same": cell.loss.same_caption, "same_side": cell.loss.same_side}
    more |= {"caption_Bx2": z.caption_Bx2, "queue": queue}
    if isinstance(cell.loss, Sigmoid):
        b = jnp.zeros(()) if (trained := bias(params)) is None else trained
        chosen: Any = {"pairs": cell.pairs, "key": key, "keep_2": keep_2}
        return sigmoid_loss(z.zimg_BxE, z.ztxt_BxE, t, b, **chosen, **more, mesh=mesh)
    return softmax_loss(z.zimg_BxE, z.ztxt_BxE, t, **more, mesh=mesh)


def make_gradients(
    cell: Cell,
    vocabulary: Vocabulary,
    mesh: Mesh | None = None,
    *,
    microbatch: int | None = None,
    remat: Remat | None = None,
    loss_fn: LossFn = batch_loss,
) -> Callable[..., tuple[tuple[jax.Array, tuple[LogitStats, Any]], Any]]:
    """`(params, batch, key, keep_2=None, queue=None)` to the loss and gradients of a whole batch.

    That function returns `((loss, (statistics, embeddings)), gradients)`, with the embeddings only
    if there is a queue for them.

    Arguments:
      mesh: the devices that hold the batch's rows, over all its axes; None for one device.
      microbatch: examples per pass through the towers on each device, or None for all at once.
        Activations of one microbatch are in memory at a time, for the price of a second forward
        pass. The loss sees all embeddings, so the gradient is the whole batch's.
      remat: see `Execution.remat`.
      loss_fn: the loss of a batch of embeddings; a benchmark may pass another.
    """
    rows = None if mesh is None or mesh.size == 1 else batch_sharding(mesh)
    dtype = jnp.dtype(cell.model.dtype)
    if remat is None and mesh is not None and mesh.devices.flat[0].platform == "cpu":
        # A CPU stores and reads activations more slowly than it computes all but the products.
        remat = "dots_saveable"
    model = TwoTowers(cell, vocabulary, remat, rows)
    needs_captions = cell.loss.same_caption != "negative" or cell.loss.queue_examples > 0
    has_dropout = any(getattr(tower, "dropout", 0) for tower in (cell.model.image, cell.model.text))

    def forward(
        params: Any, batch: Batch, key: jax.Array, keep_2: Any = None, queue: Queue | None = None
    ) -> tuple[jax.Array, tuple[LogitStats, Embeddings | None]]:
        def encode(part: Batch) -> tuple[jax.Array, jax.Array]:
            with jax.named_scope("towers"):
                embeddings: Any = model.apply(
                    {"params": params}, part["image"], part["text"], part.get("keys")
                )
                # Norms are taken in float32. What the loss multiplies and sends between devices is
                # the model's type, or a bfloat16 model would move twice the bytes for digits that
                # its matrix products do not have.
                zimg_BxE, ztxt_BxE = embeddings
                return zimg_BxE.astype(dtype), ztxt_BxE.astype(dtype)

        if has_dropout:
            batch = batch | {"keys": example_keys(key, jnp.arange(cell.batch_size))}
        if microbatch is None:
            zimg_BxE, ztxt_BxE = encode(batch)
        else:
            zimg_BxE, ztxt_BxE = in_microbatches(encode, batch, microbatch, mesh)
        with jax.named_scope("loss"):
            by_class = cell.loss.same_by == "class"
            compared = batch["class"][:, None] if by_class else batch["text"]
            captions = caption_ids(compared) if needs_captions else None
            z = Embeddings(zimg_BxE, ztxt_BxE, captions)
            loss, stats = loss_fn(cell, z, params, key, keep_2, queue, mesh)
        return loss, (stats, None if queue is None else z)

    return jax.value_and_grad(forward, has_aux=True)


def make_step(
    cell: Cell,
    vocabulary: Vocabulary,
    mesh: Mesh | None = None,
    *,
    microbatch: int | None = None,
    remat: Remat | None = None,
    fsdp_min_mib: float | None = None,
    loss_fn: LossFn = batch_loss,
) -> Step:
    """One optimizer step on one whole batch.

    The batch is `image` (`BxHxWxC`, or cached embeddings `BxE`), `text` `BxL` and, for a loss that
    compares them, `class` `B`, its rows spread
    over all axes of `mesh`. The seed is read from the state, and the numbers and the schedule's
    factor are arguments, so cells that differ in nothing else share one compiled step. Norms are
    of the trained parameters only.

    Arguments:
      mesh, microbatch, remat, loss_fn: see `make_gradients`.
      fsdp_min_mib: see `study.models.sharding.param_shardings`, which shards the state.
    """
    gradients = make_gradients(
        cell, vocabulary, mesh, microbatch=microbatch, remat=remat, loss_fn=loss_fn
    )
    tx = optimizer(cell)

    def constrain(tree: Any) -> Any:
        """Reduce-scatter gradients to the shards of their parameters, and keep the state there."""
        if mesh is None or fsdp_min_mib is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, param_shardings(tree, mesh, fsdp_min_mib))

    def step(
        state: State, batch: Batch, numbers: Numbers, factor: jax.Array
    ) -> tuple[State, Metrics]:
        key = mix(state.seed + mix(state.step.astype(jnp.uint32)))
        (loss, (logits, z)), grads = gradients(
            state.params, batch, key, numbers.keep_2, state.queue
        )
        grads = constrain(grads)
        with jax.named_scope("optimizer"):
            updates, opt_state = tx.update(
                grads, state.opt_state, state.params, rates=numbers.rates, factor=factor
            )
            params = optax.apply_updates(state.params, updates)
            grad_norm, update_norm = trained_norm(cell, grads), trained_norm(cell, updates)
        interval = state.interval.add(loss, grad_norm, update_norm)
        metrics = Metrics(
            loss=loss,
            loss_mean=interval.loss_sum / interval.steps,
            loss_max=interval.loss_max,
            grad_norm_max=interval.grad_norm_max,
            update_norm_max=interval.update_norm_max,
            t=temperature(state.params),
            b=jnp.float32(jnp.nan) if (b := bias(state.params)) is None else b,
            lr=numbers.rates.peak * factor,
            grad_norm=grad_norm,
            update_norm=update_norm,
            param_norm=jnp.float32(jnp.nan),  # costs a pass over all parameters: see `make_loop`
            logits=logits,
        )
        queue = state.queue
        if queue is not None:
            queue = queue.push(state.step, *z)
        params, opt_state = constrain((params, opt_state))
        return State(params, opt_state, state.step + 1, state.seed, interval, queue), metrics

    return step


def make_loop(cell: Cell, step: Step) -> Callable[..., tuple[State, Metrics]]:
    """A loop of steps that returns the state and the metrics of the last one.

    Its arguments: `(state, batches, begin, end, first_of_interval, numbers, factor_S)`. It takes
    batches `begin` to `end` of a chunk of S. Both are traced, so that one compilation serves all
    lengths: at batch size 16 the dispatch of a single step costs more than the step.
    `first_of_interval` (a bool) resets `State.interval`: the record's last row is of the step
    before the first one here.
    """

    def loop(
        state: State,
        batches: Batch,
        begin: jax.Array,
        end: jax.Array,
        first_of_interval: jax.Array,
        numbers: Numbers,
        factor_S: jax.Array,
    ) -> tuple[State, Metrics]:
        def body(i: jax.Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            at_i = lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False)
            return step(carry[0], jax.tree.map(at_i, batches), numbers, at_i(factor_S))

        interval = jax.tree.map(
            lambda new, old: jnp.where(first_of_interval, new, old),
            Interval.empty(),
            state.interval,
        )
        state = state._replace(interval=interval)
        state, metrics = jax.lax.fori_loop(begin, end, body, (state, Metrics.zeros()))
        return state, metrics._replace(param_norm=trained_norm(cell, state.params))

    return loop
