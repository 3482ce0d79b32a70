"""The loaders that are compared do the same work, and what they use is measured."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from study.bench import data as bench_data
from study.bench.data_inputs import write_embeddings, write_images
from study.bench.loaders import CONTENDERS

EXAMPLES, BATCH = 24, 8
BENCH = [
    pytest.mark.skipif(importlib.util.find_spec(m) is None, reason="needs the `bench` extra")
    for m in ("torch", "webdataset")
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    inputs = write_images(folder, examples=EXAMPLES, image_size=16, batch_size=BATCH, workers=1)
    return dataclasses.replace(inputs, block=4, open_blocks=2)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    inputs = write_embeddings(folder, examples=EXAMPLES, dim=12, batch_size=BATCH, workers=1)
    return dataclasses.replace(inputs, block=4, open_blocks=2)


def examples(name, inputs, batches):
    """Image and text of each example, as bytes."""
    stream = CONTENDERS[name](inputs)
    pairs = []
    for batch in (next(stream) for _ in range(batches)):
        image_BxE, text_BxL = np.asarray(batch["image"]), np.asarray(batch["text"], np.int32)
        assert len(image_BxE) == len(text_BxL) == BATCH
        pairs += [(i.tobytes(), t.tobytes()) for i, t in zip(image_BxE, text_BxL, strict=True)]
    return pairs


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("images", "loop"),
        ("images", "grain_threads"),
        ("images", "ours_blocks"),
        ("embeddings", "memmap"),
        ("embeddings", "grain_rows"),
        ("embeddings", "ours_blocks"),
        pytest.param("images", "webdataset", marks=BENCH),
        pytest.param("embeddings", "webdataset", marks=BENCH),
        pytest.param("embeddings", "torch_rows", marks=BENCH),
    ],
)
def test_each_loader_delivers_the_examples_of_ours(kind, name, request):
    inputs = request.getfixturevalue(kind)
    ours = examples("ours_global", inputs, EXAMPLES // BATCH)
    theirs = examples(name, inputs, EXAMPLES // BATCH)
    if name == "webdataset":  # its buffer holds several epochs of so few examples
        assert set(theirs) <= set(ours)
    else:
        assert sorted(theirs) == sorted(ours)


def test_a_bench_measures_each_loader_or_says_why_not(monkeypatch):
    monkeypatch.setattr(
        bench_data, "_IMAGES", ("ours_global", "ours_blocks", "loop", "grain_processes")
    )
    monkeypatch.setattr(bench_data, "_NEEDS", {"grain_processes": ("no_such_module",)})
    results = bench_data.bench(
        images=16, embeddings=0, image_size=16, batch_size=8, seconds=0.2, rounds=2, bucket=True
    )
    by_name = {(r.place, r.name): r for r in results}
    assert len(by_name) == 8
    assert by_name["disk", "grain_processes"].not_available.startswith("no_such_module not inst")
    assert by_name["bucket", "loop"].not_available == "tarfile reads local files"
    loop = by_name["disk", "loop"]
    assert len(loop.ratios) == len(loop.rates) == 2
    assert min(loop.rates) <= loop.per_s <= max(loop.rates)
    assert loop.ratio == by_name["disk", "ours_global"].per_s / loop.per_s
    assert loop.per_s > 0 and loop.pss > 2**20 and loop.processes == 1 and loop.sent is None
    ours = by_name["bucket", "ours_global"]
    shares = [by_name["disk", n].with_neighbour for n in ("ours_global", "ours_blocks", "loop")]
    assert shares[0] < shares[1] < shares[2] == 1
    assert ours.sent > 1000 and ours.requests > 0
