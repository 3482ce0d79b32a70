"""One cell: resumed equals uninterrupted bit for bit; many devices equal one."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from study.config import (
    Adafactor,
    Adam,
    Budget,
    CachedImage,
    Cell,
    Corruption,
    Data,
    Execution,
    Groups,
    MeanPoolText,
    Model,
    Negatives,
    ParamGroup,
    Retrieval,
    Sigmoid,
    Softmax,
    TextTransformer,
    ValLoss,
    ViT,
    ZeroShot,
    replace,
)
from study.config.model import Vocabulary
from study.data.formats.dataset import DataError, Dataset
from study.data.tokenizer import Tokenizer
from study.interop import big_vision
from study.models.sharding import make_mesh
from study.records.record import METRICS
from study.training.checkpoint import Checkpoints
from study.training.compile import train_program
from study.training.loop import Stopped, train
from study.training.step import initial_state
from study.training.throughput import TIMING_METRICS

EVALS = (
    ZeroShot(split="val_font"),
    Retrieval(split="val_font", examples=50),
    ValLoss(split="val_font", examples=32, every_percent=50),
)
CELL = Cell(
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16),
        text=MeanPoolText(width=16),
        embed_dim=16,
    ),
    optimizer=Adam(learning_rate=3e-3, warmup_percent=5),
    budget=Budget(examples=640),
    batch_size=16,
    evals=EVALS,
)
SCRATCH = dataclasses.replace(
    CELL,
    model=Model(
        image=ViT(variant="mu/12", pool="gap"), text=TextTransformer(variant="mu"), embed_dim=32
    ),
    budget=Budget(examples=320),
)
# Pixels, with towers that compile fast.
PIXELS = dataclasses.replace(
    CELL,
    model=Model(image=ViT(variant="mu/12", pool="gap"), text=MeanPoolText(width=16), embed_dim=16),
)
# The paper's optimizer, on corrupted data.
PAPERS_OWN = dataclasses.replace(
    CELL,
    optimizer=Adafactor(learning_rate=3e-3, b2=0.95, min_dim_size_to_factor=8, warmup_percent=5),
    data=Data(
        corruption=Corruption(
            image=0.1, text=0.1, alignment=0.25, resample_each_epoch=True, window=16
        )
    ),
)


def execution(small_glyphs, **more):
    values = {"chunk_examples": 80, "log_every_percent": 10}  # 5 steps, and 4 between two rows
    return Execution(data_root=str(small_glyphs.parent), wandb=False, **values | more)


def rows(folder: Path) -> list[dict]:
    """What was measured, attempts stitched, without the clock."""
    kept: list[dict] = []
    for line in (folder / METRICS).read_text().splitlines():
        row = json.loads(line)
        if row.get("event") == "start":
            kept = [r for r in kept if r["step"] <= row["step"]]
        if "event" in row:
            continue
        for key in ("time", "attempt", *TIMING_METRICS):
            row.pop(key, None)
        kept.append(row)
    return kept


def without_clock(done: dict) -> dict:
    return {k: v for k, v in done["summary"].items() if k not in TIMING_METRICS}


def final_params(cell, folder):
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        manager = checkpoints._manager
        assert manager.latest_step() == cell.steps
        return manager.restore(cell.steps)
    finally:
        checkpoints.close()


def stop_after(calls: int):
    count = iter(range(10**9))
    return lambda: next(count) >= calls


@pytest.mark.parametrize(
    "cell",
    [
        CELL,
        dataclasses.replace(CELL, loss=Sigmoid(pairs=Groups(size=4), b_init=None)),
        dataclasses.replace(SCRATCH, loss=Sigmoid(pairs=Negatives(keep="random", per_positive=3))),
        dataclasses.replace(PAPERS_OWN, loss=Softmax()),
        dataclasses.replace(
            CELL, loss=Sigmoid(queue_examples=48, same_caption="masked", same_by="class")
        ),
    ],
    ids=["siglit", "groups", "siglip, random negatives", "softmax, Adafactor, corrupted", "queue"],
)
def test_resumed_equals_uninterrupted_bit_for_bit(cell, tmp_path, small_glyphs, one_device):
    whole = train(cell, execution(small_glyphs), folder=tmp_path / "a", group="s")
    for calls in (1, 3):
        with pytest.raises(Stopped):
            train(
                cell,
                execution(small_glyphs),
                folder=tmp_path / "b",
                group="s",
                should_stop=stop_after(calls),
            )
    # what a kill leaves: a torn line, and rows past the last checkpoint
    with (tmp_path / "b" / METRICS).open("a") as file:
        file.write(json.dumps({"step": cell.steps, "attempt": 2, "train/loss": -1.0}) + '\n{"st')
    parts = train(cell, execution(small_glyphs), folder=tmp_path / "b", group="s")

    assert parts["attempt"] == 3
    assert rows_with_evals(tmp_path / "b") == rows_with_evals(tmp_path / "a")
    assert without_clock(parts) == without_clock(whole)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(cell, tmp_path / "a"),
        final_params(cell, tmp_path / "b"),
    )


def rows_with_evals(folder):
    """Rows merged by step."""
    merged: dict[int, dict] = {}
    text = (folder / METRICS).read_text().splitlines()
    clean = [line for line in text if line.endswith("}")]
    (folder / METRICS).write_text("\n".join(clean) + "\n")
    for row in rows(folder):
        merged.setdefault(row["step"], {}).update(row)
    return list(merged.values())


def test_the_largest_seeds_train_to_the_end(tmp_path, small_glyphs, one_device):
    """A seed is 32 bits without a sign: the stream, the start and the corruption take them all."""
    corrupt = Corruption(
        image=0.5, text=0.5, alignment=0.5, resample_each_epoch=True, seed=2**32 - 1
    )
    random = Sigmoid(pairs=Negatives(keep="random", per_positive=3))
    cell = dataclasses.replace(
        CELL, seed=2**32 - 1, loss=random, data=Data(corruption=corrupt), budget=Budget(steps=2)
    )
    assert train(cell, execution(small_glyphs), folder=tmp_path, group="s")["status"] == "done"
    assert int(final_params(cell, tmp_path)["seed"]) == 2**32 - 1


def test_a_seed_starts_from_the_same_parameters_as_ever():
    """As when seeds reached the devices as signed numbers."""
    cell, vocabulary = dataclasses.replace(CELL, seed=7), Vocabulary(50, eos=1, pad=1)
    mesh = make_mesh(jax.devices()[:1])
    state = train_program(cell, Execution(), vocabulary, (16,), mesh).init_state(cell)
    signed = jax.jit(functools.partial(initial_state, cell, vocabulary, (16,)))(7)
    jax.tree.map(np.testing.assert_array_equal, state.params, signed.params)
    assert state.seed == signed.seed == 7


def test_nan_in_embeddings_is_an_error_and_not_a_divergence(tmp_path, small_glyphs, one_device):
    root = tmp_path / "data"
    shutil.copytree(small_glyphs, root / "glyphs")
    path = next((root / "glyphs" / "embeddings").glob("*/train-00000.npy"))
    rows_NxE = np.load(path)
    rows_NxE[7] = np.nan
    np.save(path, rows_NxE)
    where = execution(root / "glyphs")
    with pytest.raises(DataError, match="NaN or infinite"):
        train(CELL, where, folder=tmp_path / "x", group="s")
    assert not (tmp_path / "x" / "DONE.json").exists()


@pytest.mark.parametrize("name", ["classnames.txt", "templates.txt"])
def test_zero_shot_without_classes_is_refused_before_training(
    name, tmp_path, small_glyphs, one_device
):
    root = tmp_path / "data"
    shutil.copytree(small_glyphs, root / "glyphs")
    (root / "glyphs" / name).write_text("")
    where = execution(root / "glyphs")
    with pytest.raises(DataError, match=r"zero_shot: .* at least one"):
        train(CELL, where, folder=tmp_path / "x", group="s")
    assert not (tmp_path / "x" / METRICS).exists()


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (CELL, Softmax()),
        (PIXELS, Sigmoid()),
        (CELL, Softmax(queue_examples=48, same_caption="masked")),
    ],
    ids=["softmax-siglit", "sigmoid-pixels", "softmax-queue"],
)
def test_eight_devices_equal_one(model, loss, tmp_path, small_glyphs, monkeypatch):
    cell = dataclasses.replace(model, loss=loss, budget=Budget(examples=160))
    eight = train(cell, execution(small_glyphs), folder=tmp_path / "8", group="s")
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    one = train(cell, execution(small_glyphs), folder=tmp_path / "1", group="s")
    about = json.loads((tmp_path / "8" / "cell.json").read_text())
    assert about["devices"]["count"] == 8
    for key, value in one["summary"].items():
        if key.startswith(("train/", "eval/fixed")) and key not in TIMING_METRICS:
            np.testing.assert_allclose(eight["summary"][key], value, rtol=2e-3, atol=2e-4)


def test_how_it_runs_does_not_change_the_numbers(tmp_path, small_glyphs, one_device):
    a = train(CELL, execution(small_glyphs), folder=tmp_path / "a", group="s")
    other = execution(
        small_glyphs,
        chunk_examples=999,
        checkpoint_every_minutes=1e-9,
        keep_every_percent=50,
        keep_last=1,
    )
    b = train(CELL, other, folder=tmp_path / "b", group="s")
    assert without_clock(a) == without_clock(b)
    assert {int(p.name) for p in (tmp_path / "b" / "checkpoints").iterdir()} == {20, 40}


def test_started_from_its_own_start_a_cell_trains_the_same(tmp_path, small_glyphs, one_device):
    """`Model.init` changes where the parameters come from, and nothing else."""
    run = execution(small_glyphs)
    dataset = Dataset.open(small_glyphs)
    vocabulary = Tokenizer(dataset.tokenizer, SCRATCH.data.text_length).vocabulary
    start = jax.jit(lambda: initial_state(SCRATCH, vocabulary, (24, 24, 1), SCRATCH.seed).params)
    big_vision.write(small_glyphs.parent / "start.npz", start())
    train(SCRATCH, run, folder=tmp_path / "a", group="s")
    again = replace(SCRATCH, "model.init", "start.npz")
    train(again, run, folder=tmp_path / "b", group="s")
    assert rows(tmp_path / "b") == rows(tmp_path / "a")
    about = json.loads((tmp_path / "b" / "cell.json").read_text())["start"]
    assert (about["loaded"], about["random"]) == (["b", "img", "t", "txt"], [])
    with pytest.raises(DataError, match=r"no checkpoint at .*gone.npz"):
        train(replace(SCRATCH, "model.init", "gone.npz"), run, folder=tmp_path / "c", group="s")


def test_a_row_carries_the_mean_and_the_maxima_of_all_steps_since_the_last(
    tmp_path, small_glyphs, one_device
):
    """Seen from a run that records every step; the optimizer is wild enough for spikes."""
    cell = dataclasses.replace(CELL, evals=(), optimizer=Adam(learning_rate=0.3, warmup_percent=5))
    every_step = execution(small_glyphs, chunk_examples=16, log_every_percent=2.5)
    train(cell, every_step, folder=tmp_path / "a", group="s")
    train(cell, execution(small_glyphs), folder=tmp_path / "b", group="s")
    steps = {row["step"]: row for row in rows(tmp_path / "a")}
    assert sorted(steps) == list(range(1, 41))
    seen = rows(tmp_path / "b")
    assert [row["step"] for row in seen] == list(range(4, 41, 4))
    for row in seen:
        interval = [steps[s] for s in range(row["step"] - 3, row["step"] + 1)]
        for name in ("loss", "grad_norm", "update_norm"):
            values = [step[f"train/{name}"] for step in interval]
            assert row[f"train/{name}_max"] == max(values)
            assert row[f"train/{name}"] == values[-1]
        losses = [step["train/loss"] for step in interval]
        np.testing.assert_allclose(row["train/loss_mean"], np.mean(losses), rtol=1e-6)
    assert any(row["train/grad_norm_max"] > 1.5 * row["train/grad_norm"] for row in seen)


def test_a_profile_names_the_parts_of_a_step(tmp_path, small_glyphs, one_device):
    cell = dataclasses.replace(CELL, budget=Budget(steps=8), evals=())
    how = execution(small_glyphs, profile=str(tmp_path / "trace"))
    train(cell, how, folder=tmp_path / cell.id, group="t")
    (xplane,) = (tmp_path / "trace" / cell.id).rglob("*.xplane.pb")
    for scope in (b"jvp(towers)/", b"jvp(loss)/", b"/optimizer/"):
        assert scope in xplane.read_bytes(), scope
    assert list(xplane.parent.glob("perfetto_trace.json.gz"))


def test_training_learns(tmp_path, small_glyphs, one_device):
    cell = dataclasses.replace(CELL, budget=Budget(examples=16_000))
    done = train(cell, execution(small_glyphs), folder=tmp_path, group="s")
    first = rows_with_evals(tmp_path)[0]
    assert done["summary"]["train/loss"] < 0.5 * first["train/loss"]
    assert done["summary"]["eval/zero_shot/val_font/top1"] > 10
    assert done["pairs_seen"] == 1000 * 16 * 16


def test_a_frozen_image_tower_trains_as_siglit_from_pixels(tmp_path, small_glyphs, one_device):
    frozen = Adam(learning_rate=3e-3, image=ParamGroup(frozen=True))
    cell = dataclasses.replace(PIXELS, optimizer=frozen, evals=())
    train(cell, execution(small_glyphs), folder=tmp_path, group="s")
    vocabulary = Tokenizer(Dataset.open(small_glyphs).tokenizer, 16).vocabulary
    start = initial_state(cell, vocabulary, (24, 24, 1), cell.seed).params
    end = final_params(cell, tmp_path)["params"]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, end)
    assert max(jax.tree.leaves(moved["img"])) < 1e-6  # compiled or not, the start rounds
    assert min(jax.tree.leaves(moved["txt"])) > 1e-3


def test_corruption_changes_training_but_not_the_evaluations(tmp_path, small_glyphs, one_device):
    short = dataclasses.replace(CELL, budget=Budget(examples=16))
    noisy = dataclasses.replace(short, data=Data(corruption=Corruption(alignment=0.9)))
    still = Adam(learning_rate=1e-30, weight_decay=0)
    summaries = [
        train(
            dataclasses.replace(cell, optimizer=still),
            execution(small_glyphs),
            folder=tmp_path / name,
            group="s",
        )["summary"]
        for cell, name in ((short, "clean"), (noisy, "noisy"))
    ]
    clean, corrupted = summaries
    assert clean["train/loss"] != corrupted["train/loss"]
    assert {k: v for k, v in clean.items() if k.startswith("eval/")} == {
        k: v for k, v in corrupted.items() if k.startswith("eval/")
    }


def test_a_diverged_cell_says_so_and_stays(tmp_path, small_glyphs, one_device):
    wild = dataclasses.replace(
        CELL, optimizer=Adam(learning_rate=1e30, clip_norm=None), loss=Softmax()
    )
    done = train(wild, execution(small_glyphs), folder=tmp_path, group="s")
    assert done["status"] == "diverged"
    assert done["summary"]["train/loss"] is None
    json.loads((tmp_path / METRICS).read_text().splitlines()[-1], parse_constant=pytest.fail)


def test_what_is_recorded_and_that_a_finished_cell_is_not_trained_again(
    tmp_path, small_glyphs, one_device
):
    done = train(CELL, execution(small_glyphs), folder=tmp_path, group="s")
    before = (tmp_path / METRICS).read_bytes()
    assert train(CELL, execution(small_glyphs), folder=tmp_path, group="s") == done
    assert (tmp_path / METRICS).read_bytes() == before
    about = json.loads((tmp_path / "cell.json").read_text())
    assert about["id"] == CELL.id
    assert about["dataset_fingerprint"]
    assert about["dataset_examples"] == Dataset.open(small_glyphs).split("train").examples
    assert about["versions"]["jax"] == jax.__version__
    assert about["parameters"] > 1000
    names = {"loss", "t", "b", "lr", "grad_norm", "update_norm", "param_norm", "examples_per_s"}
    names |= {"data_wait_share", "loss_mean", "loss_max", "grad_norm_max", "update_norm_max"}
    names |= {f"{s}_logit_{k}" for s in ("pos", "neg", "kept") for k in ("mean", "min", "max")}
    assert {f"train/{n}" for n in names} <= done["summary"].keys()
    for key in (
        "eval/zero_shot/val_font/top1",
        "eval/retrieval/val_font/image_to_text_r1",
        "eval/retrieval/val_font/text_to_image_r1",
        "eval/val_loss/val_font/sigmoid",
        "eval/val_loss/val_font/softmax",
    ):
        assert key in done["summary"]
    item = json.loads((tmp_path / "items" / "eval.zero_shot.val_font.top1.json").read_text())
    bits = np.frombuffer(base64.b64decode(item["correct"]), np.uint8)
    hits = np.unpackbits(bits, count=item["examples"])
    np.testing.assert_allclose(100 * hits.mean(), done["summary"]["eval/zero_shot/val_font/top1"])
