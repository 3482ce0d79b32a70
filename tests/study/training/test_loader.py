"""Batches reach the devices once, whatever is due, and few at a time."""

import dataclasses
import gc
import threading
import weakref

import jax
import numpy as np
import pytest

from study.config import (
    Budget,
    CachedImage,
    Cell,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
)
from study.data.formats.dataset import Dataset
from study.data.formats.reader import BadExampleError
from study.data.order import indices
from study.data.replacements import Replacements
from study.data.sources import load_labels, open_source
from study.data.stream import with_classes
from study.models.sharding import make_mesh
from study.training.loader import TrainLoader
from tests.study.training.test_throughput import Clock

IMAGE = CachedImage(embeddings="hog-lda-16", dim=16)
CELL = Cell(
    model=Model(image=IMAGE, text=MeanPoolText(width=16), embed_dim=16),
    budget=Budget(steps=20),
    batch_size=16,
)


@pytest.fixture
def loader(small_glyphs):
    made = []

    def make(cell, count=8):
        mesh = make_mesh(jax.devices()[:count])
        made.append(TrainLoader(cell, Execution(), Dataset.open(small_glyphs), mesh, None))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("chunk_steps", "first"), [(5, 0), (4, 3), (20, 0)])
@pytest.mark.parametrize("due", [{20}, {1, 2, 7, 8, 9, 20}])
def test_every_step_comes_once_and_calls_end_where_something_is_due(
    chunk_steps, first, due, loader, small_glyphs
):
    data = loader(CELL)
    step, rows, ends = first, [], set()
    for batches, begin, end, _ in data.steps(first, due, chunk_steps):
        assert {a.shape[:2] for a in batches.values()} == {(chunk_steps, 16)}
        rows.append(np.asarray(batches["image"])[begin:end])
        step += end - begin
        ends.add(step)
    assert {d for d in due if d > first} <= ends
    assert step == 20
    source = open_source(Dataset.open(small_glyphs), "train", IMAGE, Data())
    index_N = indices(np.arange(16 * first, 16 * 20), size=source.size, seed=0)
    got = np.concatenate(rows)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got.reshape(-1, 16), source.image(index_N))


def test_nothing_but_the_batches_travels_and_two_chunks_at_most_are_on_the_devices(
    loader, monkeypatch
):
    references, alive, sent = [], [], []
    place = jax.make_array_from_process_local_data

    def count(sharding, a):
        placed = place(sharding, a)
        sent.append(a.nbytes)
        references.append(weakref.ref(placed))
        gc.collect()
        alive.append(sum(one() is not None for one in references))
        return placed

    monkeypatch.setattr(jax, "make_array_from_process_local_data", count)
    data = loader(CELL)
    for _batches, _begin, _end, _ in data.steps(0, {3, 8, 20}, 4):
        data.prefetch()  # all steps before these are finished
    assert sum(sent) == 20 * 16 * (16 * 2 + 16 * 4)  # float16 and int32
    assert max(alive) == 4  # images and texts of two chunks


def test_chunks_are_as_long_as_the_run_divides_into():
    from study.config.model import Vocabulary
    from study.training.compile import train_program

    def chunk_steps(steps, chunk_examples=128):
        cell = dataclasses.replace(CELL, budget=Budget(steps=steps))
        how = Execution(chunk_examples=chunk_examples)
        mesh = make_mesh(jax.devices()[:1])
        return train_program(cell, how, Vocabulary(50, eos=1, pad=1), (16,), mesh).chunk_steps

    assert [chunk_steps(n) for n in (1, 7, 8, 64, 35, 37)] == [1, 7, 8, 8, 7, 8]
    assert chunk_steps(64, chunk_examples=1) == 1


class Slow:
    """A source whose `batch` waits to be allowed, and then takes a second of a fake clock."""

    def __init__(self, source, clock):
        self.source, self.clock, self.allowed = source, clock, threading.Semaphore(0)
        self.read = self.taken = self.most_ahead = 0
        self.size, self.replacements, self.prefetch = (
            source.size,
            source.replacements,
            lambda _: None,
        )

    def batch(self, index_N):
        assert self.allowed.acquire(timeout=60)
        self.read += 1
        self.most_ahead = max(self.most_ahead, self.read - self.taken)
        self.clock.at(self.clock.now + 1.0)
        return self.source.batch(index_N)


def test_all_the_time_that_a_slow_source_takes_is_waiting(loader, monkeypatch):
    clock = Clock(monkeypatch)
    meter, data = clock.meter(), loader(CELL)
    slow = data._source = Slow(data._source, clock)
    steps = data.steps(0, {20}, 4)
    for chunk in range(5):
        if chunk == 1:
            meter.resume()
        slow.allowed.release()
        next(steps)
        meter.batch_ready()
        meter.dispatched(clock.now + 0.25)  # the devices work for a quarter of each second
    meter.pause()
    assert meter.row(16)["train/data_wait_share"] == pytest.approx((1 + 3 * 0.75) / 4)


def test_two_chunks_at_most_are_read_ahead(loader, monkeypatch):
    data = loader(CELL)
    slow = data._source = Slow(data._source, Clock(monkeypatch))
    slow.allowed.release(20)
    for _ in data.steps(0, {20}, 1):
        data.prefetch()
        slow.taken += 1
    assert slow.read == 20
    assert 0 < slow.most_ahead <= 3  # that which is taken next, and two


def test_classes_come_with_the_examples_for_a_loss_that_compares_them(loader, small_glyphs):
    assert {*loader(CELL)._source.batch(np.zeros(1, int))} == {"image", "text"}
    cell = dataclasses.replace(CELL, loss=Sigmoid(same_caption="masked", same_by="class"))
    ((chunk, *_),) = loader(cell).steps(0, {20}, 20)
    dataset = Dataset.open(small_glyphs)
    class_N = load_labels(dataset, "train")
    index_N = indices(np.arange(16 * 20), size=len(class_N), seed=0)
    np.testing.assert_array_equal(np.asarray(chunk["class"]).ravel(), class_N[index_N])


def test_an_example_that_is_replaced_has_the_class_of_its_replacement():
    class Source:
        replacements = Replacements(size=5, max_share=1.0, name="x")

        def batch(self, index_N):
            return {"text": index_N}

    source = Source()
    source.replacements.add_all_bad({2: BadExampleError("bad")})
    read = with_classes(np.array([10, 11, 12, 13, 14]), None)
    index_N = np.array([1, 2, 4])
    np.testing.assert_array_equal(read(source, None, index_N, index_N)["class"], [11, 13, 14])
