"""A folder of real images as img2dataset packs it: indexed, drawn, trained on, embedded."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
    ValLoss,
    ViT,
    ZeroShot,
)
from study.data.contact_sheet import draw_contact_sheet
from study.data.embed_shards import embed_dataset
from study.data.embeddings import CachedEmbeddings
from study.data.formats.dataset import DataError
from study.data.formats.index_shards import index_shards
from study.data.formats.open_split import open_split
from study.data.formats.webdataset import write_shard
from study.data.replacements import Replacements
from study.data.sources import open_source
from study.records.record import METRICS
from study.training.loop import Stopped, train
from study.training.throughput import TIMING_METRICS

CELL = Cell(
    model=Model(image=ViT(variant="mu/8", image_size=16), text=MeanPoolText(width=32)),
    data=Data(dataset="photos", flip=True, resize="bilinear", max_bad_share=0.1),
    loss=Sigmoid(b_init=-3.0),
    optimizer=Adam(learning_rate=3e-3),
    batch_size=16,
    budget=Budget(examples=640),
)


@pytest.fixture
def photos_with_two_bad(folder):
    """Two examples whose image is torn; those left are what a study may train and evaluate on."""
    tar = folder / "00000.tar"
    reader = open_split(index_shards(folder, train_pieces=200, workers=1).dataset, "train")
    rows = [
        (reader.key(i), {"png": reader.image(i)[: 60 if i in (5, 9) else None], "txt": b"a text"})
        for i in range(32)
    ]
    write_shard(tar, rows)
    return index_shards(folder, splits={"train": "*.tar", "val": "00001.tar"}, workers=1).dataset


def metrics(folder):
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return {
        (row["step"], k): v
        for row in rows
        for k, v in row.items()
        if "/" in k and k not in TIMING_METRICS
    }


@pytest.mark.slow
def test_a_cell_trains_on_it_and_its_tower_embeds_it(photos_with_two_bad, tmp_path, monkeypatch):
    dataset = photos_with_two_bad
    cell = dataclasses.replace(CELL, evals=(ValLoss(split="val", examples=24, every_percent=50),))
    execution = Execution(
        data_root=str(dataset.folder.parent),
        wandb=False,
        keep_every_percent=30,
        chunk_examples=112,
    )
    done = train(cell, execution, folder=tmp_path / "whole", group="photos")
    curve = [v for (_, k), v in sorted(metrics(tmp_path / "whole").items()) if k == "train/loss"]
    assert curve[-1] < 0.9 * curve[0]
    replaced = done["summary"]["data/replaced_examples"]
    assert replaced >= 2 * (640 // dataset.split("train").examples)

    # Stopped between two rows of the record, and on another number of threads.
    asked = iter([False, False, True, *[False] * 99])
    other = dataclasses.replace(execution, decode_threads=2)
    with pytest.raises(Stopped):
        train(cell, other, folder=tmp_path / "cut", group="photos", should_stop=lambda: next(asked))
    resumed, resume = [], Replacements.resume
    monkeypatch.setattr(
        Replacements, "resume", lambda *args: (resumed.append(args[1:]), resume(*args))
    )
    again = train(cell, other, folder=tmp_path / "cut", group="photos")
    ((read, before),) = resumed  # what was read and replaced before the restart counts on
    assert read % cell.batch_size == 0 < read < 640 and 0 < before <= replaced
    assert again["summary"]["data/replaced_examples"] == replaced
    one, two = metrics(tmp_path / "whole"), metrics(tmp_path / "cut")
    assert {key: two[key] for key in one} == one

    from study.training.frozen_tower import load_tower

    tower = load_tower(tmp_path / "whole")
    embed_dataset(dataset, tower, "own", workers=1, max_bad_share=0.1)
    rows_NxE = CachedEmbeddings.open(dataset, "own", "val").rows()
    source = open_source(dataset, "val", cell.model.image, Data())
    alone_NxE = tower(source.image(np.arange(9)))
    np.testing.assert_allclose(rows_NxE[:9], alone_NxE, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(alone_NxE, axis=1), 1, atol=1e-5)
    assert alone_NxE.std(0).max() > 1e-3
    cached = open_source(dataset, "train", CachedImage(embeddings="own", dim=32), cell.data)
    assert np.isfinite(cached.batch(np.arange(cached.size))["image"]).all()


def test_a_page_shows_what_cannot_be_used_as_a_frame(photos_with_two_bad):
    page = Image.open(io.BytesIO(draw_contact_sheet(photos_with_two_bad, "train", 8, 12)))
    red = (np.asarray(page) == (178, 34, 34)).all(-1)
    columns = red.sum(0)
    assert (columns >= 120).sum() == 4  # two frames, each with a left and a right side


def test_an_evaluation_replaces_nothing_and_names_what_it_lacks(photos_with_two_bad, tmp_path):
    folder = photos_with_two_bad.folder.parent
    execution = Execution(data_root=str(folder), wandb=False, chunk_examples=112)
    for evaluation, message in (
        (ValLoss(split="train", examples=64, every_percent=2.5), r"000000005|000000009"),
        (ZeroShot(split="val"), "0 class names"),
    ):
        cell = dataclasses.replace(CELL, evals=(evaluation,))
        with pytest.raises(DataError, match=message):
            train(cell, execution, folder=tmp_path / evaluation.kind, group="photos")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    from study.training.frozen_tower import load_tower

    with pytest.raises(DataError, match="is not a checkpoint"):
        load_tower(tmp_path)
    (tmp_path / "cell.json").write_text("{}")
    with pytest.raises(DataError, match="is not done"):
        load_tower(tmp_path)
