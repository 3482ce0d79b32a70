"""Pairs of equal captions, and negatives of earlier steps: losses and all gradients by hand."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from study.config import AllPairs, Budget, Cell, Corruption, Data, Groups, Sigmoid, Softmax
from study.losses import sigmoid_loss, softmax_loss
from study.losses.captions import caption_ids
from study.losses.queue import Queue
from tests.study.losses.reference import KEY, all_close, close, embeddings, mesh_of, on

BATCH, DIM, STEPS = 24, 16, 3
T, BIAS = 8.0, -3.0


def texts(batch=BATCH, distinct=9, seed=0):
    """Tokens B x 5 with only `distinct` different rows."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 50, (distinct, 5))
    return rows[rng.integers(0, distinct, batch)].astype(np.int32)


def stored(filled, *, distinct=9):
    """A queue of `STEPS` batches, of which `filled` are stored; the others hold nonsense."""
    parts = [embeddings(BATCH, DIM, seed=10 + s) for s in range(STEPS)]
    zimg, ztxt = (np.stack([part[k] for part in parts]) for k in (0, 1))
    captions = np.stack([caption_ids(texts(seed=s, distinct=distinct)) for s in range(STEPS)])
    return Queue(zimg, ztxt, captions, jnp.int32(filled))


def reference(kind, same, queue, zimg, ztxt, t, b, caption, same_side="none"):
    """The loss and its four gradients in float64, from all logits at once."""
    x_BxD, y_BxD = zimg.astype(np.float64), ztxt.astype(np.float64)
    keys = [tuple(c) for c in np.asarray(caption)]
    own = np.eye(len(keys), dtype=bool)
    qimg_QxD = qtxt_QxD = np.zeros((0, DIM))
    q_keys = []
    if queue is not None:
        filled = int(queue.filled)
        qimg_QxD, qtxt_QxD = (
            np.asarray(z[:filled], np.float64).reshape(-1, DIM) for z in queue[:2]
        )
        q_keys = [tuple(c) for c in np.asarray(queue.caption_SxBx2[:filled]).reshape(-1, 2)]
    equal = np.array([[a == c for c in keys] for a in keys]) & ~own
    q_equal = np.array([[a == c for c in q_keys] for a in keys], bool).reshape(len(keys), -1)

    def value(x_BxD, y_BxD, t, b):
        masked = lambda again: again & (same == "masked")
        # The pairs of images with texts, with stored ones, and of each side.
        products = [x_BxD @ y_BxD.T, x_BxD @ qtxt_QxD.T, y_BxD @ qimg_QxD.T]
        alike = [equal, q_equal, q_equal]
        for z_BxD, side in ((x_BxD, "images"), (y_BxD, "texts")):
            used = same_side in (side, "both")
            products.append(z_BxD @ z_BxD.T if used else jnp.zeros((len(keys), 0)))
            alike.append(equal if used else jnp.zeros((len(keys), 0), bool))
        # A row with itself is no pair of its side.
        itself = [False, False, False, *(own[:, : p.shape[1]] for p in products[3:])]
        if kind == "sigmoid":
            total = 0.0
            for k, (product, again) in enumerate(zip(products, alike, strict=True)):
                positive = own if k == 0 else False
                is_positive = (again | positive) if same == "positive" else positive
                label = jnp.where(is_positive, 1.0, -1.0)
                each = jax.nn.softplus(-label * (t * product + b))
                total += jnp.sum(jnp.where(masked(again) | itself[k], 0.0, each))
            return total / len(keys)
        logits = [
            jnp.where(masked(again) | no_pair, -jnp.inf, t * product)
            for product, again, no_pair in zip(products, alike, itself, strict=True)
        ]
        loss = 0.0
        for parts, others, further in (
            ([logits[0], logits[1], logits[3]], alike[1], alike[3]),
            ([logits[0].T, logits[2], logits[4]], alike[2], alike[4]),
        ):
            row = jnp.concatenate(parts, axis=1)
            positive = jnp.concatenate([own, others & False, further & False], axis=1)
            if same == "positive":
                positive |= jnp.concatenate([equal, others, further], axis=1)
            target = positive / positive.sum(1, keepdims=True)
            lse = jax.scipy.special.logsumexp(row, 1)
            loss += jnp.mean(lse - jnp.sum(jnp.where(positive, target * row, 0.0), 1))
        return 0.5 * loss

    with jax.enable_x64(True):
        args = (jnp.asarray(x_BxD), jnp.asarray(y_BxD), jnp.float64(t), jnp.float64(b))
        return jax.value_and_grad(value, range(4))(*args)


def ours(kind, same, queue, z, caption, *, mesh=None, tile=7, same_side="none"):
    args = (jnp.float32(T), jnp.float32(BIAS))
    how = {"same": same, "mesh": mesh, "tile": tile}

    def loss(zimg, ztxt, t, b, caption, queue):
        chosen = {"caption_Bx2": caption, "queue": queue, "same_side": same_side}
        if kind == "softmax":
            return softmax_loss(zimg, ztxt, t, **chosen, **how)
        chosen |= {"pairs": AllPairs(), "key": KEY}
        return sigmoid_loss(zimg, ztxt, t, b, **chosen, **how)

    (value, stats), grads = jax.jit(jax.value_and_grad(loss, range(4), True))(
        *z, *args, caption, queue
    )
    return value, stats, grads


CASES = [
    *(("sigmoid", same, filled) for same in ("masked", "positive") for filled in (None, 2)),
    ("sigmoid", "negative", 0),
    ("sigmoid", "negative", STEPS),
    *(("softmax", same, filled) for same in ("masked", "positive") for filled in (None, 2)),
    ("softmax", "negative", 2),
]


@pytest.mark.parametrize(("kind", "same", "filled"), CASES)
def test_loss_and_gradients_equal_the_formula_on_one_device_and_on_many(kind, same, filled):
    z = embeddings(BATCH, DIM)
    caption = caption_ids(jnp.asarray(texts()))
    queue = None if filled is None else stored(filled)
    want, want_grads = reference(kind, same, queue, *z, T, BIAS, caption)
    value, stats, grads = ours(kind, same, queue, z, caption)
    close(value, want)
    count = 4 if kind == "sigmoid" else 3
    all_close(grads[:count], want_grads[:count])

    for mesh in (mesh_of(4), mesh_of(2, 3)):
        if queue is not None:
            placed = NamedSharding(mesh, P(None, mesh.axis_names))
            queue = Queue(*(jax.device_put(a, placed) for a in queue[:3]), queue.filled)
        again, more_stats, more = ours(
            kind, same, queue, on(mesh, *z), *on(mesh, caption), mesh=mesh, tile=5
        )
        close(again, want)
        all_close(more[:count], want_grads[:count])
        all_close(more_stats, stats, floor=5.0)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    ("same_side", "same", "filled"),
    [("images", "negative", None), ("texts", "positive", None), ("both", "masked", 2)],
)
def test_pairs_of_one_side_are_negatives_too(kind, same_side, same, filled):
    z = embeddings(BATCH, DIM)
    caption = caption_ids(jnp.asarray(texts()))
    queue = None if filled is None else stored(filled)
    want, want_grads = reference(kind, same, queue, *z, T, BIAS, caption, same_side)
    count = 4 if kind == "sigmoid" else 3
    for mesh in (None, mesh_of(4)):
        z, (caption,) = (z, (caption,)) if mesh is None else (on(mesh, *z), on(mesh, caption))
        value, _, grads = ours(kind, same, queue, z, caption, mesh=mesh, same_side=same_side)
        close(value, want)
        all_close(grads[:count], want_grads[:count])


def test_statistics_are_of_kept_pairs_and_count_equal_captions():
    z = embeddings(BATCH, DIM)
    caption = caption_ids(jnp.asarray(texts()))
    rows = texts()
    equal = (rows[:, None] == rows[None, :]).all(-1) & ~np.eye(BATCH, dtype=bool)
    for kind, logits in (("sigmoid", T * z[0] @ z[1].T + BIAS), ("softmax", T * z[0] @ z[1].T)):
        _, stats, _ = ours(kind, "masked", None, z, caption)
        assert stats.same_captions == equal.sum() > 0
        kept = logits[~equal & ~np.eye(BATCH, dtype=bool)]
        every = logits[~np.eye(BATCH, dtype=bool)]
        close([stats.kept_logit_mean, stats.neg_logit_mean], [kept.mean(), every.mean()], 1e-4)
        close([stats.kept_logit_max, stats.kept_logit_min], [kept.max(), kept.min()])
        close([stats.neg_logit_max, stats.neg_logit_min], [every.max(), every.min()])


def test_distinct_captions_change_nothing():
    z = embeddings(BATCH, DIM)
    caption = caption_ids(jnp.arange(BATCH)[:, None])
    for kind, same in itertools.product(("sigmoid", "softmax"), ("masked", "positive")):
        plain = ours(kind, "negative", None, z, caption)
        value, stats, grads = ours(kind, same, None, z, caption)
        assert stats.same_captions == 0
        close(value, plain[0])
        all_close(grads, plain[2])


def test_ids_are_equal_for_equal_rows_alone():
    """All pairs of two tokens at two places, and rows that differ in the order of tokens."""
    rows = np.stack(np.meshgrid(*[np.arange(40)] * 2), -1).reshape(-1, 2)
    ids = np.asarray(caption_ids(jnp.asarray(rows)))
    assert len({tuple(i) for i in ids}) == len(rows)
    for half in (0, 1):  # each of the two is a hash of its own
        assert len(set(ids[:, half].tolist())) > 0.999 * len(rows)
    np.testing.assert_array_equal(caption_ids(jnp.asarray(rows[5:6])), ids[5:6])


def test_a_queue_holds_the_last_batches_and_no_gradient():
    queue = Queue.empty(2, 3, 4, jnp.float32)
    for step in range(3):
        z = jnp.full((3, 4), step, jnp.float32)
        queue = queue.push(jnp.int32(step), z, -z, jnp.full((3, 2), step, jnp.uint32))
    assert queue.filled == 2
    np.testing.assert_array_equal(queue.zimg_SxBxD[:, 0, 0], [2, 1])
    np.testing.assert_array_equal(queue.ztxt_SxBxD[:, 0, 0], [-2, -1])
    np.testing.assert_array_equal(queue.caption_SxBx2[:, 0, 0], [2, 1])
    pushed = lambda z: queue.push(jnp.int32(0), z, z, jnp.zeros((3, 2), jnp.uint32))
    grad = jax.grad(lambda z: sum(jnp.sum(a) for a in pushed(z)[:2]))(jnp.ones((3, 4)))
    np.testing.assert_array_equal(grad, jnp.zeros((3, 4)))


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (lambda: Sigmoid(pairs=Groups(size=2), same_caption="masked"), "only with all pairs"),
        (lambda: Sigmoid(pairs=Groups(size=2), queue_examples=8), "only with all pairs"),
        (lambda: Sigmoid(pairs=Groups(size=2), same_side="both"), "only with all pairs"),
        (lambda: Softmax(same_by="class"), "no effect with same_caption='negative'"),
        (
            lambda: Cell(
                batch_size=8,
                loss=Sigmoid(same_caption="masked", same_by="class"),
                data=Data(corruption=Corruption(text=0.1)),
            ),
            "leave out data.corruption",
        ),
        (lambda: Cell(batch_size=8, loss=Softmax(queue_examples=12)), "multiple of batch_size=8"),
        (
            lambda: Cell(batch_size=8, loss=Softmax(queue_examples=8), budget=Budget(pairs=9999)),
            "no fixed number of pairs",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(loss, named):
    with pytest.raises(ValueError, match=named):
        loss()


def test_pairs_seen_count_a_queue_that_fills():
    """B = 4, Q = 8: 16 pairs of the batch, and 0, 4 * 4 * 2, then 4 * 8 * 2 with the queue."""
    cell = Cell(batch_size=4, loss=Sigmoid(queue_examples=8), budget=Budget(steps=5))
    assert [cell.pairs_seen(s) for s in range(5)] == [0, 16, 64, 144, 224]
    assert cell.pairs_per_step == 80
    for loss in (Sigmoid(same_side="both"), Softmax(same_side="both")):
        both = Cell(batch_size=4, loss=loss, budget=Budget(steps=5))
        assert both.pairs_per_step == 16 + 2 * 12
    assert Cell(batch_size=4, budget=Budget(steps=5)).pairs_seen(5) == 80
