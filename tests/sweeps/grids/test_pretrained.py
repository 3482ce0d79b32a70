"""The pretrained tower of `glyphs-pretrained`: made once, and what its cells start from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from study.config import Budget, to_dict
from sweeps.grids.glyphs import pretrained
from sweeps.registry import load_study


@pytest.mark.slow
def test_the_tower_is_trained_once_and_cells_start_from_it(small_glyphs, monkeypatch):
    import jax

    from study.data.formats.dataset import Dataset
    from study.data.glyphs import write as glyphs
    from study.data.tokenizer import Tokenizer
    from study.training.init_from import init_from_checkpoint
    from study.training.step import initial_state

    first = jax.devices()[:1]  # the rest of the suite sees eight
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    root = small_glyphs.parent
    budget = Budget(examples=128)
    short = dataclasses.replace(
        pretrained.pretraining_cell(), batch_size=64, budget=budget, evals=()
    )
    monkeypatch.setattr(pretrained, "pretraining_cell", lambda: short)
    monkeypatch.setattr(glyphs, "prepare", lambda *_: None)
    pretrained.prepare(root)
    file = root / pretrained.FILE
    assert not list(root.glob("pretrain-*"))
    before = file.stat().st_mtime_ns
    pretrained.prepare(root)
    assert file.stat().st_mtime_ns == before
    cell = next(c for c in load_study("glyphs-pretrained").cells if c.model.init)
    dataset = Dataset.open(small_glyphs)
    vocabulary = Tokenizer.open(dataset, cell.data).vocabulary
    random = initial_state(cell, vocabulary, (24, 24, 1), cell.seed).params
    started, about = init_from_checkpoint(cell, random, root)
    assert about["loaded"] == ["img"] and set(about["random"]) >= {"txt", "t", "b"}
    kernel = ("embedding", "kernel")
    theirs, ours = started["img"], random["img"]
    assert np.abs(theirs[kernel[0]][kernel[1]] - ours[kernel[0]][kernel[1]]).max() > 0


def test_its_seed_is_used_by_no_cell_and_its_model_by_those_that_start_from_it():
    cells = load_study("glyphs").cells
    assert pretrained.PRETRAINING_SEED not in {c.seed for c in cells}
    started = [c for c in cells if c.model.init]
    assert started
    for cell in started:
        assert cell.model.init == f"{pretrained.FILE}:img"
        assert (
            to_dict(cell)["model"]["image"]
            == to_dict(pretrained.pretraining_cell())["model"]["image"]
        )
