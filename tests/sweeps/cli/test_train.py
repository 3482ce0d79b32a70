"""`study train`: what it refuses before it trains, and how its options reach the data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("file", "--profile file: cannot write there (File exists); give a folder"),
        ("gs://b/p", "--profile': gs://b/p is not on this machine"),
    ],
)
def test_a_profile_needs_a_local_folder(profile, reason, study):
    Path("file").touch()
    code, out, err = study("train", "demo", "b512-sigmoid-s0", "--profile", profile)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


GRID = """
from study.config import Budget, CachedImage, Cell, MeanPoolText, Model
from sweeps.study import Study
def study():
    image = CachedImage(embeddings="hog-lda-16", dim=16)
    model = Model(image=image, text=MeanPoolText(width=16), embed_dim=16)
    return Study(name="own", question="Q?", cells=(
        Cell(model=model, batch_size=16, budget=Budget(steps=30)),
    ))
"""


@mock.patch.dict(os.environ)  # `train` sets what JAX finds
def test_a_mix_in_blocks_is_trained_from_the_command_line(study, small_glyphs):
    Path("own.py").write_text(GRID)
    for name in ("glyphs", "twin"):
        shutil.copytree(small_glyphs, Path("sets") / name)
    args = ["train", "own.py", "b16", "--data", "sets", "--set", "execution.wandb=false"]
    args += ["--set", "data.order=blocks", "--set", "data.order.size=32"]
    mixed = [*args, "--set", 'data.mix={"glyphs": 1, "twin": 2}']
    code, _, err = study(*mixed)
    assert code == 0, err
    (folder,) = Path("runs/own").iterdir()
    about = json.loads((folder / "cell.json").read_text())
    assert about["cell"]["data"]["order"] == {"kind": "blocks", "size": 32, "open": 64}
    summary = json.loads((folder / "DONE.json").read_text())["summary"]
    assert [summary[f"data/examples/{name}"] for name in ("glyphs", "twin")] == [160, 320]
    code, _, err = study(*args, "--set", 'data.mix={"glyphs": 1, "none": 2}')
    assert (code, err.count("\n")) == (2, 1) and "no data set at" in err and "none" in err
