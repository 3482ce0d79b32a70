"""Evaluations give the same numbers for any batch size, number of devices and sharding."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile

import jax
import numpy as np
import pytest

from study.config import (
    CachedImage,
    Cell,
    Data,
    FewShot,
    MeanPoolText,
    Model,
    MultilingualRetrieval,
    Retrieval,
    ValLoss,
    ViT,
    ZeroShot,
)
from study.data.benchmarks.importer import import_benchmark
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.sources import load_labels, open_source
from study.data.tokenizer import Tokenizer
from study.evals import Evaluator
from study.evals.encode import cached_encoder
from study.models.sharding import make_mesh, param_shardings
from study.training.step import initial_state

SPLIT = "val_font"
EVALS = (
    ZeroShot(split=SPLIT),
    Retrieval(split=SPLIT, examples=90),
    ValLoss(split=SPLIT, examples=50),
    FewShot(split=SPLIT, shots=3, l2=(1024.0, 1.0), seeds=2),
)
PIXELS = Cell(
    model=Model(image=ViT(variant="mu/12", pool="gap"), text=MeanPoolText(width=16), embed_dim=16),
    batch_size=16,
    evals=EVALS,
)
CACHED = dataclasses.replace(
    PIXELS,
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16),
        text=MeanPoolText(width=16),
        embed_dim=16,
    ),
)


@pytest.fixture(scope="module")
def dataset(small_glyphs) -> Dataset:
    return Dataset.open(small_glyphs)


@pytest.fixture(scope="module")
def tokenizer(dataset) -> Tokenizer:
    return Tokenizer(dataset.tokenizer, 16)


@pytest.fixture(scope="module")
def params(dataset, tokenizer):
    """Random towers, and so few ties."""
    return {
        cell: initial_state(cell, tokenizer.vocabulary, shape, 0).params
        for cell, shape in ((PIXELS, (24, 24, 1)), (CACHED, (16,)))
    }


def run(cell, dataset, tokenizer, params, *, batch_size=256):
    base = CACHED if isinstance(cell.model.image, CachedImage) else PIXELS
    evaluator = Evaluator(cell, dataset, tokenizer, make_mesh(jax.devices()), batch_size)
    return evaluator.run(cell.steps, params[base])


def of(cell, *evals):
    return dataclasses.replace(cell, evals=evals)


@pytest.mark.parametrize("cell", [PIXELS, CACHED], ids=["pixels", "cached"])
def test_numbers_do_not_depend_on_the_batch_size(cell, dataset, tokenizer, params):
    small, large = (run(cell, dataset, tokenizer, params, batch_size=size) for size in (7, 256))
    assert small.metrics.keys() == large.metrics.keys()
    for key, value in small.metrics.items():
        np.testing.assert_allclose(large.metrics[key], value, rtol=1e-5, err_msg=key)
    for key, hits in small.items.items():
        np.testing.assert_array_equal(large.items[key], hits)


@pytest.mark.parametrize("fsdp_min_mib", [None, 0.001], ids=["replicated", "sharded"])
def test_eight_devices_give_what_one_gives(fsdp_min_mib, dataset, tokenizer, params):
    """Also with sharded parameters, as FSDP trains them: no device holds all of them."""
    text = tokenizer(dataset.class_names)
    source = open_source(dataset, SPLIT, PIXELS.model.image, Data())
    index_N = np.arange(100)
    found = []
    for count in (8, 1):
        mesh = make_mesh(jax.devices()[:count])
        encode = cached_encoder(PIXELS.model, Data(), tokenizer.vocabulary, 30, mesh)
        shardings = param_shardings(params[PIXELS], mesh, fsdp_min_mib if count > 1 else None)
        placed = jax.device_put(params[PIXELS], shardings)
        sharded = any(not a.is_fully_replicated for a in jax.tree.leaves(placed))
        assert sharded == (count > 1 and fsdp_min_mib is not None)
        found.append(
            (
                encode.embed_images(placed, source, index_N),
                encode.embed_texts(placed, text),
                encode.image_features(placed, source, index_N),
            )
        )
    for eight, one in zip(*found, strict=True):
        assert len(eight) in (100, len(text))
        np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("embed_dim", "head"), [(16, True), (32, False)])
def test_features_are_what_the_projection_reads(dataset, tokenizer, embed_dim, head):
    """`mu` is 32 wide: there is a projection to 16 dimensions and none to 32."""
    model = dataclasses.replace(PIXELS.model, embed_dim=embed_dim)
    cell = dataclasses.replace(PIXELS, model=model)
    params = initial_state(cell, tokenizer.vocabulary, (24, 24, 1), 0).params
    assert ("head" in params["img"]) == head
    encode = cached_encoder(model, Data(), tokenizer.vocabulary, 64, make_mesh(jax.devices()[:1]))
    source = open_source(dataset, SPLIT, model.image, Data())
    x_NxF = encode.image_features(params, source, np.arange(20))
    assert x_NxF.shape == (20, 32)
    z_NxE = (
        x_NxF @ params["img"]["head"]["kernel"] + params["img"]["head"]["bias"] if head else x_NxF
    )
    z_NxE /= np.linalg.norm(z_NxE, axis=1, keepdims=True)
    np.testing.assert_allclose(
        encode.embed_images(params, source, np.arange(20)), z_NxE, rtol=1e-4, atol=1e-6
    )


def test_recorded_keys(dataset, tokenizer, params):
    result = run(PIXELS, dataset, tokenizer, params)
    head = f"/{SPLIT}/"
    assert result.metrics.keys() == {
        f"eval/zero_shot{head}top1",
        *(
            f"eval/retrieval{head}{way}_r{k}"
            for way in ("image_to_text", "text_to_image")
            for k in (1, 5, 10)
        ),
        f"eval/val_loss{head}sigmoid",
        f"eval/val_loss{head}softmax",
        f"eval/few_shot{head}top1",
        f"eval/few_shot{head}top1_l2_1",
    }
    for key, hits in result.items.items():
        assert result.metrics[key] == 100 * hits.mean()


def test_the_probe_of_good_features_beats_chance(dataset, tokenizer, params):
    """The cached tower was fitted on these very classes."""
    got = run(of(CACHED, EVALS[3]), dataset, tokenizer, params).metrics
    assert got[f"eval/few_shot/{SPLIT}/top1"] > 20


# --- other data sets -----------------------------------------------------------------------------


def members(name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, io.BytesIO(data)


@pytest.fixture(scope="module")
def elsewhere(dataset, tmp_path_factory):
    """The validation split in two published layouts, imported next to the data set."""
    reader, class_N = open_split(dataset, SPLIT), load_labels(dataset, SPLIT)
    wds = tmp_path_factory.mktemp("wds")
    (wds / "test").mkdir()
    (wds / "classnames.txt").write_text("\n".join(dataset.class_names) + "\n")
    (wds / "zeroshot_classification_templates.txt").write_text(
        "".join(t.replace("{}", "{c}") + "\n" for t in dataset.templates)
    )
    with tarfile.open(wds / "test" / "0.tar", "w") as archive:
        for i in range(len(reader)):
            archive.addfile(*members(f"s{i:07d}.png", reader.image(i)))
            archive.addfile(*members(f"s{i:07d}.cls", str(class_N[i]).encode()))
    xm = tmp_path_factory.mktemp("xm")
    (xm / "images").mkdir()
    with (xm / "captions.jsonl").open("w") as lines:
        for i in range(len(reader)):
            (xm / "images" / f"{i}.jpg").write_bytes(reader.image(i))
            row = {"en": {"caption": [reader.text(i)]}, "de": {"caption": ["ja", reader.text(i)]}}
            lines.write(json.dumps({"image/key": str(i), **row}) + "\n")
    root = dataset.folder.parent
    return import_benchmark(wds, root / "bench" / "pets"), import_benchmark(xm, root / "xm3600")


def test_a_published_layout_gives_the_same_hits(dataset, tokenizer, params, elsewhere):
    cell = of(PIXELS, ZeroShot(split=SPLIT), ZeroShot(split="test", dataset="bench/pets"))
    items = run(cell, dataset, tokenizer, params).items
    own, theirs = (items[f"eval/zero_shot/{s}/top1"] for s in (SPLIT, "bench/pets/test"))
    np.testing.assert_array_equal(own, theirs)


def test_one_language_is_plain_retrieval_and_the_mean_is_over_languages(
    dataset, tokenizer, params, elsewhere
):
    size = dataset.split(SPLIT).examples
    by_language = MultilingualRetrieval(dataset="xm3600")
    cell = of(PIXELS, Retrieval(split=SPLIT, examples=size), by_language)
    got = run(cell, dataset, tokenizer, params).metrics
    for way in ("image_to_text_r1", "text_to_image_r1"):
        prefix = "eval/multilingual_retrieval/xm3600/test"
        of_language = {k: got[f"{prefix}/{k}_{way}"] for k in ("en", "de")}
        np.testing.assert_allclose(
            of_language["en"], got[f"eval/retrieval/{SPLIT}/{way}"], rtol=1e-6
        )
        mean = sum(of_language.values()) / 2
        np.testing.assert_allclose(got[f"eval/multilingual_retrieval/xm3600/test/{way}"], mean)


def test_only_some_languages(dataset, tokenizer, params, elsewhere):
    cell = of(PIXELS, MultilingualRetrieval(dataset="xm3600", languages=("de",)))
    got = run(cell, dataset, tokenizer, params).metrics
    assert {key.rsplit("/", 1)[1][:2] for key in got} == {"de", "im", "te"}


def test_a_crop_sees_the_middle_of_the_image(dataset):
    whole = open_source(dataset, SPLIT, ViT(image_size=24), Data()).image(np.arange(5))
    middle = open_source(dataset, SPLIT, ViT(image_size=12), Data(), crop=0.5).image(np.arange(5))
    np.testing.assert_array_equal(middle, whole[:, 6:18, 6:18])


def test_canonical_prompts_have_no_punctuation():
    from study.evals.zero_shot import prompts

    names, templates = ("T-shirt", "crane_bird"), ("a photo of  the {}.", "My {}!")
    got = prompts(names, templates, canonical=True)
    assert got == [
        "a photo of the tshirt",
        "my tshirt",
        "a photo of the crane bird",
        "my crane bird",
    ]
    assert prompts(names, templates, canonical=False)[1] == "My T-shirt!"


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (ZeroShot(split="test", dataset="nowhere"), "no data set at .*nowhere"),
        (ZeroShot(split="dev", dataset="bench/pets"), "no split 'dev'"),
        (ZeroShot(split="test", dataset="xm3600"), "0 class names"),
        (FewShot(split=SPLIT, train_split="none"), "no split 'none'"),
        (
            MultilingualRetrieval(dataset="xm3600", languages=("fr",)),
            "no captions in fr; it has: de, en",
        ),
        (MultilingualRetrieval(dataset="bench/pets"), "no captions by language"),
    ],
)
def test_an_evaluation_without_its_data_fails_before_training(
    evaluation, words, dataset, tokenizer, elsewhere
):
    with pytest.raises(DataError, match=words) as error:
        Evaluator(of(PIXELS, evaluation), dataset, tokenizer, make_mesh(jax.devices()))
    assert len(str(error.value).splitlines()) == 1


def test_later_fields_leave_old_ids_alone():
    old = of(PIXELS, ZeroShot(split="a"), Retrieval(split="a"))
    spelt = of(PIXELS, ZeroShot(split="a", dataset=None, crop=1.0), Retrieval(split="a", crop=1.0))
    assert spelt.id == old.id
    assert of(PIXELS, ZeroShot(split="a", crop=0.875)).id != of(PIXELS, ZeroShot(split="a")).id
