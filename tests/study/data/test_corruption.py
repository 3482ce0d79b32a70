"""Corruption of an example does not depend on the batch size, hosts or restarts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from study.config import Blocks, CachedImage, Cell, Corruption, Data, Global, Model, ViT, replace
from study.config.model import Vocabulary
from study.data.corruption import make_read_fn
from study.data.order import Order
from study.data.permute import ROUNDS, permute
from study.data.sources import open_source
from study.data.stream import batches

SIZE, LENGTH, VOCABULARY, EOS = 960, 6, 50, 1
PIECES = Vocabulary(VOCABULARY, eos=EOS, pad=EOS)


class Numbered:
    """Example i has the image i, i, ... (negative, so never noise) and the text 100 + i, ..."""

    size = SIZE

    def __init__(self, shape=(4, 4, 1)):
        self.shape = shape

    def batch(self, index_N):
        image = np.broadcast_to(
            -2.0 - index_N.reshape(-1, *[1] * len(self.shape)), (len(index_N), *self.shape)
        )
        return {"image": image.astype(np.float32), "text": self.text(index_N)}

    def prefetch(self, index_N):
        pass

    def text(self, index_N):
        return np.tile(100 + index_N[:, None], LENGTH).astype(np.int32)


def cell(*, seed=0, order=None, **corruption):
    data = Data(corruption=Corruption(**corruption), order=order or Global())
    return Cell(batch_size=16, seed=seed, data=data)


def stream(c, *, batch_size=48, first=0, count=2 * SIZE, rows=None, source=None):
    """`count` examples from position `first` on, as {"image", "text"}."""
    steps = count // batch_size
    pieces = batches(
        source or Numbered(),
        seed=c.seed,
        order=order_of(c),
        batch_size=batch_size,
        first_step=first // batch_size,
        chunks=[steps // 2, steps - steps // 2],
        rows=rows,
        read=make_read_fn(c, vocabulary=PIECES),
    )
    read = list(pieces)
    return {k: np.concatenate([p[k].reshape(-1, *p[k].shape[2:]) for p in read]) for k in read[0]}


def order_of(c):
    return Order.of([SIZE], seed=c.seed, kind=c.data.order)


def own(c, count=2 * SIZE):
    return order_of(c).indices(np.arange(count))


def noisy_images(got):
    return got["image"][:, 0, 0, 0] >= -1


def noisy_texts(got):
    return got["text"][:, 0] < 100


def misplaced(got, c):
    return ~noisy_texts(got) & (got["text"][:, 0] - 100 != own(c, len(got["text"])))


BLOCKS = Blocks(size=70, open=3)
ALL = {"image": 0.2, "text": 0.2, "alignment": 0.3}
KINDS = [
    {"image": 0.3},
    {"text": 0.3},
    {"alignment": 0.3},
    ALL,
    ALL | {"resample_each_epoch": True},
    ALL | {"resample_each_epoch": True, "window": 32},
    ALL | {"until_examples": 1000},
    ALL | {"order": BLOCKS},
    ALL | {"resample_each_epoch": True, "window": 32, "order": BLOCKS},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_same_at_every_batch_size_host_count_and_restart(kind):
    c = cell(**kind)
    whole = stream(c)
    for batch_size in (16, 96, 480):
        for name, got in stream(c, batch_size=batch_size).items():
            np.testing.assert_array_equal(got, whole[name])
    for name, got in stream(c, first=SIZE, count=SIZE).items():
        np.testing.assert_array_equal(got, whole[name][SIZE:])
    hosts = [stream(c, batch_size=96, rows=rows) for rows in np.split(np.arange(96), 4)]
    for name in whole:
        parts = [h[name].reshape(-1, 24, *h[name].shape[1:]) for h in hosts]
        np.testing.assert_array_equal(
            np.concatenate(parts, axis=1).reshape(whole[name].shape), whole[name]
        )


def test_without_corruption_the_source_is_read_directly():
    assert make_read_fn(cell(), vocabulary=PIECES) is None


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize(("kind", "hit"), [("image", noisy_images), ("text", noisy_texts)])
def test_noise_hits_its_share_and_leaves_the_rest_alone(kind, hit, redraw):
    c = cell(**{kind: 0.3}, resample_each_epoch=redraw)
    got, clean = stream(c), stream(cell())
    hits = hit(got)
    assert abs(hits.mean() - 0.3) < 4 * (0.21 / len(hits)) ** 0.5
    for name, rows in got.items():
        same = (rows == clean[name]).reshape(len(rows), -1).all(1)
        np.testing.assert_array_equal(same, ~hits if name == kind else np.ones_like(hits))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_and_everything(share, expected):
    got = stream(cell(image=share, text=share))
    assert noisy_images(got).mean() == noisy_texts(got).mean() == expected


def test_images_and_texts_are_hit_independently():
    got = stream(cell(image=0.5, text=0.5))
    assert abs(np.corrcoef(noisy_images(got), noisy_texts(got))[0, 1]) < 0.1


@pytest.mark.parametrize("redraw", [False, True])
def test_corruption_that_ends_leaves_the_examples_after_it_alone(redraw):
    parts = ALL | {"resample_each_epoch": redraw}
    ended, always = stream(cell(until_examples=1000, **parts)), stream(cell(**parts))
    clean = stream(cell())
    for name, rows in ended.items():
        np.testing.assert_array_equal(rows[:1000], always[name][:1000])
        np.testing.assert_array_equal(rows[1000:], clean[name][1000:])
        assert (always[name][1000:] != clean[name][1000:]).any()


@pytest.mark.parametrize("kind", ["image", "text", "alignment"])
def test_for_good_means_the_same_at_every_visit_and_for_every_seed(kind):
    def by_example(c):
        got = stream(c)
        order = np.argsort(own(c), kind="stable")
        return {k: v[order].reshape(SIZE, 2, *v.shape[1:]) for k, v in got.items()}

    fixed, other = by_example(cell(**{kind: 0.5})), by_example(cell(**{kind: 0.5}, seed=7))
    redrawn = by_example(cell(**{kind: 0.5}, resample_each_epoch=True))
    for name in fixed:
        np.testing.assert_array_equal(fixed[name][:, 0], fixed[name][:, 1])
        np.testing.assert_array_equal(fixed[name], other[name])
    name = "image" if kind == "image" else "text"
    assert (redrawn[name][:, 0] != redrawn[name][:, 1]).any()


def test_a_larger_share_hits_what_a_smaller_one_hits():
    few, many = (stream(cell(image=p, text=p, alignment=p)) for p in (0.1, 0.4))
    assert (noisy_images(many) | ~noisy_images(few)).all()
    assert (noisy_texts(many) | ~noisy_texts(few)).all()
    for redraw in (False, True):
        few, many = (
            misplaced(stream(cell(alignment=p, resample_each_epoch=redraw)), cell())
            for p in (0.1, 0.4)
        )
        assert (many | ~few).all()


def test_another_corruption_seed_hits_others():
    cells = (replace(cell(image=0.5), "data.corruption.seed", s) for s in (0, 1))
    a, b = (noisy_images(stream(one)) for one in cells)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_noise_images_are_uniform_and_no_two_alike():
    images = stream(cell(image=1.0), count=SIZE)["image"].reshape(SIZE, -1)
    assert images.min() >= -1
    assert images.max() <= 1
    counts = np.histogram(images, bins=8, range=(-1, 1))[0]
    assert abs(counts / counts.mean() - 1).max() < 0.1
    assert len(np.unique(images, axis=0)) == SIZE
    assert abs(np.corrcoef(images.T) - np.eye(16)).max() < 0.2


def test_noise_for_cached_embeddings_has_no_preferred_direction():
    got = stream(cell(image=1.0), count=SIZE, source=Numbered(shape=(24,)))["image"]
    unit = got / np.linalg.norm(got, axis=1, keepdims=True)
    assert np.linalg.norm(unit.mean(0)) < 4 / SIZE**0.5
    assert np.linalg.eigvalsh(np.cov(unit.T)).max() < 2 / 24


def test_noise_texts_are_random_tokens_of_a_random_length_then_eos():
    texts = stream(cell(text=1.0), count=SIZE)["text"]
    assert (texts[:, -1] == EOS).all()
    assert (texts[:, 0] != EOS).all()
    assert set(np.unique(texts)) == set(range(VOCABULARY))
    lengths = (texts != EOS).sum(1)
    assert ((texts != EOS) == (np.arange(LENGTH) < lengths[:, None])).all()
    counts = np.bincount(lengths, minlength=LENGTH)[1:]
    assert abs(counts * (LENGTH - 1) / SIZE - 1).max() < 0.3


def test_a_text_of_one_token_stays_eos():
    class Short(Numbered):
        def text(self, index_N):
            return np.full((len(index_N), 1), EOS, np.int32)

    assert (stream(cell(text=1.0), source=Short())["text"] == EOS).all()


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("order", [None, BLOCKS])
def test_alignment_shuffles_an_exact_share_of_each_epoch_and_loses_no_text(redraw, order):
    c = cell(alignment=0.25, resample_each_epoch=redraw, order=order)
    got = stream(c)
    for epoch in (slice(0, SIZE), slice(SIZE, 2 * SIZE)):
        texts = got["text"][epoch, 0] - 100
        assert (texts != own(c)[epoch]).sum() == SIZE / 4
        np.testing.assert_array_equal(np.sort(texts), np.arange(SIZE))
    np.testing.assert_array_equal(got["image"][:, 0, 0, 0], -2.0 - own(c))


@pytest.mark.parametrize("order", [None, BLOCKS])
def test_within_a_window_every_batch_holds_the_texts_of_its_images(order):
    """As in the paper's shuffled batch: a misplaced text meets its own image, as a negative."""
    c = cell(alignment=0.25, resample_each_epoch=True, window=32, order=order)
    texts = (stream(c)["text"][:, 0] - 100).reshape(-1, 32)
    images = own(c).reshape(-1, 32)
    np.testing.assert_array_equal((texts != images).sum(1), 8)
    np.testing.assert_array_equal(np.sort(texts), np.sort(images))


def test_a_window_drawn_once_for_good_is_refused():
    with pytest.raises(ValueError, match="resample_each_epoch=True"):
        Corruption(alignment=0.2, window=16)


def test_a_permutation_of_its_own_at_each_place_is_undone():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 1000):
        key = rng.integers(0, 2**32, (ROUNDS, 300), np.uint64)
        x = rng.integers(0, size, 300)
        back = permute(permute(x, size=size, key=key), size=size, key=key, inverse=True)
        np.testing.assert_array_equal(back, x)
        alone = [permute(x[i : i + 1], size=size, key=key[:, i]) for i in range(300)]
        np.testing.assert_array_equal(permute(x, size=size, key=key), np.concatenate(alone))


@pytest.mark.parametrize(
    "image",
    [CachedImage(embeddings="hog-lda-16", dim=16), ViT(image_size=24)],
    ids=["cached", "pixels"],
)
def test_real_sources_are_corrupted_and_stay_as_they_were(embedded, image):
    source = open_source(embedded, "train", image, Data(text_length=12))
    index = np.arange(source.size)
    before = source.batch(index)
    c = cell(**ALL)
    dim = {"embed_dim": 16} if isinstance(image, CachedImage) else {}
    c = dataclasses.replace(c, model=Model(image=image, **dim))
    got = make_read_fn(c, vocabulary=PIECES)(source, Order.of([source.size], seed=0), index, index)
    for name in before:
        changed = (got[name] != before[name]).reshape(len(index), -1).any(1).mean()
        assert 0.1 < changed < 0.6
        # noise of 256 levels, which float16 would round
        exact = np.float32 if before[name].dtype == np.float16 else before[name].dtype
        assert got[name].dtype == exact
        np.testing.assert_array_equal(source.batch(index)[name], before[name])


def test_random_texts_end_and_are_filled_as_texts_are():
    """With padding of its own, a random text has one EOS, and no padding before it."""
    c = cell(text=1.0)
    index = np.arange(SIZE)
    read_fn = make_read_fn(c, vocabulary=Vocabulary(VOCABULARY, eos=1, pad=0))
    got = read_fn(Numbered(), Order.of([SIZE], seed=0), index, index)
    for row in got["text"].tolist():
        end = row.index(1)
        assert 1 <= end < LENGTH and 0 not in row[:end]
        assert row[end + 1 :] == [0] * (LENGTH - 1 - end)
    assert set(np.unique(got["text"])) == set(range(VOCABULARY))


def test_old_ids_stay_and_corruption_is_in_the_id():
    plain = Cell(batch_size=16)
    assert cell().id == plain.id
    ids = {replace(plain, f"data.corruption.{k}", 0.1).id for k in ("image", "text", "alignment")}
    assert len(ids | {plain.id}) == 4
