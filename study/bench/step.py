"""`study bench step`: our training step against a plain one that trains the same parameters.

The plain step is what one would write with flax and optax: the same towers, optax's own optimizer,
a loss of all B x B logits at once, one `jit` and a Python loop. It has no choice of negatives, no
statistics, no norms, no mesh and no microbatches. Both run the same steps in alternating rounds on
one device of one process, so that other load affects both. A ratio is the median over rounds.

PyTorch trains a model of the same sizes in the same rounds if it is installed, see `torch_step`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from study.bench import torch_step
from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.budget import to_steps
from study.config.model import Vocabulary
from study.config.schedule import schedule
from study.models.sharding import batch_sharding, make_mesh
from study.models.two_towers import TwoTowers
from study.training.compile import compile_loop, train_program
from study.training.step import read_numbers

VOCABULARY = Vocabulary(1000, eos=1, pad=1)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Times of our step, of the plain one and of PyTorch's.

    Attributes:
      steps: steps per round.
      ours_seconds, plain_seconds: of one step, medians over rounds.
      ratio: our time over the plain step's in the same round, the median; `ratios` are all.
      torch_seconds, torch_ratios: of PyTorch's step, and our time over it; None and empty if
        `torch_skipped` says why it did not run.
      difference: distance between both final parameters over the distance that the plain ones
        moved. It is near 0 because both do the same work.
    """

    name: str
    loss: str
    batch_size: int
    steps: int
    ours_seconds: float
    plain_seconds: float
    ratio: float
    ratios: tuple[float, ...]
    torch_seconds: float | None
    torch_ratios: tuple[float, ...]
    torch_skipped: str | None
    difference: float


def siglit(batch_size: int, loss: Sigmoid | Softmax, steps: int) -> tuple[Cell, tuple[int, ...]]:
    """The demo's SigLiT cell, and the shape of one image, which is a cached embedding."""
    image = CachedImage(embeddings="bench", dim=96)
    model = Model(image=image, text=MeanPoolText(), embed_dim=96)
    return _cell(model, batch_size, loss, steps), (96,)


def siglip(
    batch_size: int,
    loss: Sigmoid | Softmax,
    steps: int,
    *,
    variant: str = "mu/8",
    image_size: int = 32,
) -> tuple[Cell, tuple[int, ...]]:
    """A SigLIP cell from scratch, and the shape of one image."""
    image = ViT(variant=variant, image_size=image_size)
    text = TextTransformer(variant=variant.split("/")[0])
    model = Model(image=image, text=text, embed_dim=image.size.width)
    return _cell(model, batch_size, loss, steps), (image_size, image_size, 3)


def _cell(model: Model, batch_size: int, loss: Sigmoid | Softmax, steps: int) -> Cell:
    optimizer = Adam(learning_rate=1e-3, warmup_percent=5)
    # The schedule changes in every round of so long a run.
    budget = Budget(steps=100 * steps)
    return Cell(model=model, loss=loss, optimizer=optimizer, batch_size=batch_size, budget=budget)


def bench(
    name: str,
    cell: Cell,
    image_shape: tuple[int, ...],
    *,
    steps: int,
    rounds: int,
    log: Callable[[str], None] = lambda _: None,
) -> Result:
    """Times `rounds` rounds of `steps` steps of each, after one round to warm up.

    Arguments:
      image_shape: of one example.
      log: called with a line on the progress.
    """
    log(f"{name}: compiling")
    batches = _batches(cell, image_shape, steps)
    ours, params = _our_round(cell, image_shape, batches)
    start = jax.tree.map(jnp.copy, params())
    plain, carry = _plain(cell, start)
    singles = [{k: jnp.asarray(a[i]) for k, a in batches.items()} for i in range(steps)]
    start = jax.device_get(start)

    def theirs() -> None:
        nonlocal carry
        for batch in singles:
            carry, loss = plain(carry, batch)
        jax.block_until_ready(loss)

    runs = {"ours": ours, "plain": theirs}
    torch_skipped = torch_step.skip_reason(cell)
    if torch_skipped is None:
        runs["torch"] = torch_step.torch_round(cell, VOCABULARY, batches)
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        log(f"{name}: round {number} of {rounds}" if number else f"{name}: warming up")
        for key in runs if number % 2 else reversed(runs):
            round_start = time.perf_counter()
            runs[key]()
            seconds[key].append((time.perf_counter() - round_start) / steps)

    def ratios_to(key: str) -> tuple[float, ...]:
        pairs = zip(seconds["ours"], seconds.get(key, []), strict=False)
        return tuple(a / b for a, b in pairs)[1:]

    return Result(
        name=name,
        loss=cell.loss.kind,
        batch_size=cell.batch_size,
        steps=steps,
        ours_seconds=statistics.median(seconds["ours"][1:]),
        plain_seconds=statistics.median(seconds["plain"][1:]),
        ratio=statistics.median(ratios_to("plain")),
        ratios=ratios_to("plain"),
        torch_seconds=statistics.median(seconds["torch"][1:]) if "torch" in seconds else None,
        torch_ratios=ratios_to("torch"),
        torch_skipped=torch_skipped,
        difference=_difference(params(), carry[0], start),
    )


def time_step(cell: Cell, image_shape: tuple[int, ...], *, steps: int, rounds: int) -> float:
    """Seconds of our step: the median of `rounds` rounds of `steps`, after one to warm up."""
    run, _ = _our_round(cell, image_shape, _batches(cell, image_shape, steps))
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - start) / steps)
    return statistics.median(seconds[1:])


def _our_round(
    cell: Cell, image_shape: tuple[int, ...], batches: dict[str, np.ndarray]
) -> tuple[Callable[[], None], Callable[[], Any]]:
    """A function that trains on all `batches`, and one that returns the parameters."""
    steps = len(batches["text"])
    mesh = make_mesh(jax.local_devices()[:1])
    execution = Execution(chunk_examples=steps * cell.batch_size)
    program = train_program(
        cell, execution, VOCABULARY, image_shape, mesh, image_dtype=batches["image"].dtype
    )
    loop, _ = compile_loop(program, execution)
    state = program.init_state(cell)
    buffer = {k: jax.device_put(a, batch_sharding(mesh, leading=1)) for k, a in batches.items()}
    numbers, factor, done = read_numbers(cell), schedule(cell), 0

    def run() -> None:
        nonlocal state, done
        factor_S = factor(done + np.arange(steps))
        state, metrics = loop(
            state, buffer, np.int32(0), np.int32(steps), np.True_, numbers, factor_S
        )
        done += steps
        jax.block_until_ready(metrics)

    return run, lambda: state.params


def _plain(cell: Cell, params: Any) -> tuple[Any, Any]:
    """`((params, opt_state), batch) -> ((params, opt_state), loss)`, and its initial carry."""
    o = cell.optimizer
    assert isinstance(o, Adam) and o.clip_norm is not None and o.schedule == "cosine"
    model = TwoTowers(cell, VOCABULARY)
    warmup = to_steps(o, "warmup", batch_size=cell.batch_size, total_steps=cell.steps)
    factor = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, cell.steps)
    kernels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    tx = optax.chain(
        optax.clip_by_global_norm(o.clip_norm),
        optax.scale_by_adam(b1=cell.b1, b2=cell.b2, eps=o.eps),
        optax.scale(o.learning_rate),
        optax.add_decayed_weights(o.weight_decay, mask=kernels),
        optax.scale_by_schedule(lambda step: -factor(step)),
    )

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        both: Any = model.apply({"params": params}, batch["image"], batch["text"])
        zimg_BxE, ztxt_BxE = both
        logits_BxB = jnp.exp(params["t"]) * zimg_BxE @ ztxt_BxE.T
        if isinstance(cell.loss, Softmax):
            own_B = jnp.arange(cell.batch_size)
            entropy = optax.softmax_cross_entropy_with_integer_labels
            return 0.5 * jnp.mean(entropy(logits_BxB, own_B) + entropy(logits_BxB.T, own_B))
        labels_BxB = 2 * jnp.eye(cell.batch_size) - 1
        log_p_BxB = jax.nn.log_sigmoid(labels_BxB * (logits_BxB + params["b"]))
        return -jnp.sum(log_p_BxB) / cell.batch_size

    def step(carry: Any, batch: Any) -> Any:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return jax.jit(step, donate_argnums=0), (params, tx.init(params))


def _batches(cell: Cell, image_shape: tuple[int, ...], steps: int) -> dict[str, np.ndarray]:
    """As they reach the devices: uint8 pixels, or embeddings in float16."""
    rng = np.random.default_rng(0)
    shape = (steps, cell.batch_size, *image_shape)
    if isinstance(cell.model.image, ViT):
        image = rng.integers(0, 256, shape, np.uint8)
    else:
        image = rng.standard_normal(shape, np.float32).astype(np.float16)
    size = (steps, cell.batch_size, cell.data.text_length)
    return {"image": image, "text": rng.integers(2, VOCABULARY.size, size, np.int32)}


def _difference(ours: Any, plain: Any, start: Any) -> float:
    """Relative distance, without the biases of attention keys: softmax cancels them, so they move
    only by rounding."""

    def norm(a: Any, b: Any) -> float:
        squares = jax.tree_util.tree_map_with_path(
            lambda path, x, y: (
                0.0
                if [p.key for p in path[-2:]] == ["key", "bias"]
                else float(np.sum((np.asarray(x, np.float64) - np.asarray(y)) ** 2))
            ),
            a,
            b,
        )
        return float(np.sqrt(sum(jax.tree.leaves(squares))))

    return norm(ours, plain) / norm(plain, start)
