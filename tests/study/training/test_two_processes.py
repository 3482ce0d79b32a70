"""Two processes with two devices each train the cell that one process trains."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Execution,
    Groups,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    ValLoss,
    to_dict,
)
from study.training.loop import train
from study.training.throughput import TIMING_METRICS
from tests.study.training.test_train import rows
from tests.xla import xla_flags

SCRIPT = Path(__file__).with_name("two_process_cell.py")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "how"),
    [
        # Which pairs count depends on the order of rows.
        (Sigmoid(pairs=Groups(size=8)), {"crossed": True, "fsdp_min_mib": 0.0005}),
        (Softmax(), {"crossed": False, "checkpoint_every_minutes": 1e-9}),
    ],
    ids=["sigmoid, cut, two slices", "softmax"],
)
def test_two_processes_equal_one(loss, how, tmp_path, small_glyphs, monkeypatch):
    cell = small_cell(loss, evals=(ValLoss(split="val_font", examples=32),))
    ranks = start(cell, tmp_path / "two", [small_glyphs.parent] * 2, how)
    outputs = [p.communicate(timeout=300) for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], outputs
    ends = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert [end["step"] for end in ends] == [20, 20]
    # Half of what is free where the least is, for two devices.
    assert [end["room"] for end in ends] == [0.5 * 3 * 2**30 / 2] * 2

    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    execution = Execution(data_root=str(small_glyphs.parent), wandb=False, log_every_percent=50)
    one = train(cell, execution, folder=tmp_path / "one", group="s")
    two = json.loads((tmp_path / "two" / "DONE.json").read_text())
    about = json.loads((tmp_path / "two" / "cell.json").read_text())
    assert about["devices"] == {"kind": "cpu", "count": 4, "processes": 2}
    assert two["attempt"] == 1
    for key, value in one["summary"].items():
        if key not in TIMING_METRICS:
            np.testing.assert_allclose(two["summary"][key], value, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_go_on_bit_for_bit(tmp_path, small_glyphs):
    """Whichever of them is asked to stop, and when; all attempts are in one JAX session."""
    cell = dataclasses.replace(small_cell(Sigmoid()), budget=Budget(steps=60))
    how = {"crossed": False, "chunk_examples": 16, "log_every_percent": 25, "keep_last": 20}
    stops = [(None, 0), (2, None), (4, 9), (9, 4), (None, 11)]
    outputs = []
    for name, more in {"whole": {}, "stopped": {"stops": stops}}.items():
        ranks = start(cell, tmp_path / name, [small_glyphs.parent] * 2, how | more)
        outputs = [p.communicate(timeout=300) for p in ranks]
        assert [p.returncode for p in ranks] == [0, 0], outputs
    lines = [
        [line for line in out.splitlines() if " stopped at step " in line] for out, _ in outputs
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == len(stops)
    steps = []
    for line in lines[0]:
        message, saved = line.split(" of 60 ")
        steps.append(int(message.split()[-1]))
        assert sorted(map(int, ast.literal_eval(saved))) == steps  # one checkpoint each
    assert steps == sorted(set(steps))
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_cannot_open_ends_the_other_with_its_line(failing, tmp_path, small_glyphs):
    """Not minutes later, when the coordinator misses it, and not without the reason."""
    data = [small_glyphs.parent, small_glyphs.parent]
    data[failing] = tmp_path / "nowhere"
    ranks = start(small_cell(Sigmoid()), tmp_path / "two", data, {"crossed": False})
    errors = [p.communicate(timeout=300)[1] for p in ranks]
    assert "DataError: " in errors[failing].splitlines()[-1]
    other = errors[1 - failing]
    assert f"PeerFailed: process {failing} of this run failed: DataError: " in other
    assert "nowhere" in other.splitlines()[-1]


def small_cell(loss, evals=()):
    towers = {"image": CachedImage(embeddings="hog-lda-16", dim=16), "text": MeanPoolText(width=16)}
    return Cell(
        model=Model(**towers, embed_dim=16),
        loss=loss,
        optimizer=Adam(learning_rate=3e-3),
        budget=Budget(examples=320),
        batch_size=16,
        evals=evals,
    )


def start(cell, folder, data_roots, how):
    """Two processes of one run, each with a data root of its own."""
    env = os.environ | {"XLA_FLAGS": xla_flags(2)}
    port, descriptions = str(free_port()), [json.dumps(to_dict(cell)), json.dumps(how)]
    return [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), port, folder, data_root, *descriptions],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, data_root in enumerate(data_roots)
    ]
