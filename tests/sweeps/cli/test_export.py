"""`study export`: a trained cell opens elsewhere with the same embeddings; the rest is one line."""

from __future__ import annotations

import importlib.util
import json
import string
from pathlib import Path

import jax
import numpy as np
import pytest

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Data,
    Execution,
    MeanPoolText,
    Model,
    TextTransformer,
    ViT,
    to_dict,
)
from study.config.model import Vocabulary
from study.data.formats.dataset import Dataset
from study.data.formats.open_split import open_split
from study.data.tokenizer import Tokenizer
from study.interop.embed import FrozenTowers
from study.interop.load import load_params
from study.models.two_towers import TwoTowers
from study.records.record import Progress, Record
from study.records.storage import resolve
from study.training.checkpoint import Checkpoints, load_checkpoint
from study.training.loop import train

GRID = '''"""study run own.py"""
from sweeps.study import Study
from tests.sweeps.cli.test_export import CELLS
def study():
    return Study(name="own", question="Q?", cells=CELLS)
'''
TEXT = TextTransformer(depth=1)
LIT = CachedImage(embeddings="hog-lda-16", dim=32)


def make_cell(image, text):
    return Cell(
        model=Model(image=image, text=text, embed_dim=32),
        data=Data(text_length=12),
        optimizer=Adam(learning_rate=3e-3),
        budget=Budget(steps=6),
        batch_size=16,
    )


BOTH, SIGLIT, MEAN = CELLS = (
    make_cell(ViT(), TEXT),
    make_cell(LIT, TEXT),
    make_cell(ViT(), MeanPoolText(width=16)),
)


@pytest.fixture
def study(study):
    Path("own.py").write_text(GRID)
    return study


def write_record(root, cell, *steps):
    """A record with checkpoints of random parameters, as training leaves it."""
    folder = resolve(root) / "own" / cell.id
    towers = TwoTowers(cell, Vocabulary(50, eos=1, pad=1))
    lit = isinstance(cell.model.image, CachedImage)
    image = np.zeros((1, 32) if lit else (1, 24, 24, 1), np.float32)
    like = jax.eval_shape(towers.init, jax.random.key(0), image, np.zeros((1, 12), np.int32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), like["params"])
    record = Record(folder)
    record.begin({"hash": cell.hash, "cell": to_dict(cell)}, seen=Progress(0, 0, 0))
    record.close()
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in steps:
        state = {"params": jax.tree.map(lambda a, step=step: a + step, params)}
        checkpoints.save(step, {**state, "step": np.int32(step), "opt_state": (np.ones(3),)})
    checkpoints.close()
    return folder


@pytest.mark.slow
def test_a_trained_cell_opens_elsewhere_with_the_same_embeddings(study, small_glyphs):
    execution = Execution(data_root=str(small_glyphs.parent), wandb=False)
    train(BOTH, execution, folder=Path("runs/own") / BOTH.id, group="own")
    args = ("own.py", BOTH.id[:-2], "--data", str(small_glyphs.parent))
    code, out, err = study("export", *args, "--format", "hugging-face", "--out", "hf", "--json")
    told = json.loads(out)
    assert (code, err, told["cell"], told["step"]) == (0, "", BOTH.id, 6)
    assert told["files"] == sorted(path.name for path in Path("hf").iterdir())
    assert study("export", *args, "--format", "big_vision", "--out", "bv")[0] == 0

    dataset = Dataset.open(small_glyphs)
    split, tokenizer = open_split(dataset, "val_font"), Tokenizer.open(dataset, BOTH.data)
    texts, images = (
        [split.text(i) for i in range(8)],
        split.read_images(range(8), size=24, channels=1),
    )
    tokens = tokenizer(texts)
    np.save("tokens.npy", tokens)
    params = load_checkpoint(Path("runs/own") / BOTH.id / "checkpoints", 6, part="params")["params"]
    zimg, ztxt = TwoTowers(BOTH, tokenizer.vocabulary).apply({"params": params}, images, tokens)
    for file in ("hf/model.safetensors", f"bv/{BOTH.id}.npz"):
        towers = FrozenTowers(file)
        np.testing.assert_allclose(towers(images), zimg, atol=2e-6)
        np.testing.assert_allclose(towers.texts("tokens.npy"), ztxt, atol=2e-6)
    if importlib.util.find_spec("transformers") is None:
        return
    _check_transformers("hf", texts, tokens, images, np.asarray(zimg), np.asarray(ztxt), params)


def _check_transformers(folder, texts, tokens, images, zimg, ztxt, params):
    """Its tokens and pixels of the same texts and images, and its embeddings and logits of both."""
    import torch
    import transformers
    from PIL import Image

    assert not any(set(text) & set(string.punctuation) for text in texts)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=texts,
        images=[Image.fromarray(image[..., 0]) for image in images],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    np.testing.assert_array_equal(inputs["input_ids"], tokens)
    with torch.no_grad():
        out = transformers.SiglipModel.from_pretrained(folder).eval()(**inputs)
    np.testing.assert_allclose(out.image_embeds, zimg, atol=1e-5)
    np.testing.assert_allclose(out.text_embeds, ztxt, atol=1e-5)
    logits = np.exp(params["t"]) * zimg @ ztxt.T + params["b"]
    np.testing.assert_allclose(out.logits_per_image, logits, atol=1e-4)


def test_any_kept_step_is_exported_from_a_bucket_without_its_grid(study, gcs):
    root = f"gs://{gcs.bucket()}/runs"
    folder = write_record(root, BOTH, 3, 6)
    args = ("export", "own", "b16", "--root", root, "--format", "big_vision")
    code, out, _ = study(*args, "--out", "new", "--step", "3")
    assert (code, out.splitlines()[0]) == (0, f"new: {BOTH.id} at step 3, 0.2 MB")
    saved = load_checkpoint(folder / "checkpoints", 3)["params"]
    exported = load_params(f"new/{BOTH.id}.npz")
    jax.tree.map(np.testing.assert_array_equal, exported, saved)
    code, _, err = study(*args, "--out", "other", "--step", "4")
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("has checkpoints of steps 6, 3\n")


def test_a_siglit_cell_says_what_is_left_out(study, small_glyphs):
    write_record("runs", SIGLIT, 6)
    args = ("export", "own.py", SIGLIT.id, "--format", "hugging-face")
    code, out, _ = study(*args, "--out", "text", "--data", str(small_glyphs.parent))
    assert code == 0
    assert "its images are the embeddings 'hog-lda-16', made with a tower that cannot be" in out
    assert "no tokenizer is written: the cell was trained on another version of" in out
    code, out, _ = study(*args, "--out", "unknown")
    assert (code, "of an unknown tower; --image-tower FILE" in out) == (0, True)
    assert "no tokenizer is written: the data set glyphs is not in data; give --data" in out
    write_record("runs", BOTH, 6)
    assert study("export", "own.py", BOTH.id, "--format", "big_vision", "--out", "bv")[0] == 0
    tower = f"bv/{BOTH.id}.npz"
    code, out, _ = study(*args, "--out", "both", "--image-tower", tower)
    assert code == 0
    assert set(load_params("both/model.safetensors")) == {"img", "txt", "t", "b"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("b17",), "study own has no cell 'b17'"),
        (("b16",), "'b16' matches 2 cells of own"),
        ((SIGLIT.id,), f"{SIGLIT.id} has no record in"),
        ((MEAN.id,), f"{MEAN.id} is not a Hugging Face SigLIP: its text tower averages"),
        ((MEAN.id, "--format", "big_vision"), "big_vision has no such tower"),
        ((BOTH.id,), "has no checkpoint"),
        ((MEAN.id, "--format", "onnx"), "'onnx' is not one of 'big_vision', 'hugging-face'"),
        ((MEAN.id, "--step", "4"), "has checkpoints of steps 6"),
        ((MEAN.id, "--out", "full"), "--out full is not an empty folder"),
        ((MEAN.id, "--out", "gs://b/x"), "gs://b/x is not on this machine"),
        ((MEAN.id, "--image-tower", "a.npz"), "has an image tower of its own"),
        ((MEAN.id, "--root", "gone"), "has no record in"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(study, args, message, records):
    Path("full").mkdir()
    Path("full/file").write_text("")
    before = sorted(Path().rglob("*"))
    defaults = ("--root", str(records), "--format", "hugging-face", "--out", "new")
    code, out, err = study("export", "own.py", *defaults, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert sorted(Path().rglob("*")) == before


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of a cell that was trained, and of one without a checkpoint."""
    root = tmp_path_factory.mktemp("records")
    write_record(root, MEAN, 6)
    write_record(root, BOTH)
    return root
