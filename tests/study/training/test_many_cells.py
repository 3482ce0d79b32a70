"""A worker trains many cells in one process: nothing is compiled twice, nothing adds up."""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from study.config import to_dict
from study.training.loop import train
from tests.study.training.test_train import CELL, execution, rows

COMPILED = "/jax/core/compile/backend_compile_duration"
ALONE = """
import json, sys
from pathlib import Path
import jax
from study.config import Execution, from_dict
from study.training.loop import train
first = jax.devices()[:1]
jax.devices = lambda *_: first
cell, how, folder = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
train(from_dict(cell), Execution(**how), folder=folder, group="s")
"""


@pytest.fixture
def compiled():
    """The compilations since, one entry each."""
    compilations: list[str] = []

    def listen(name: str, seconds: float, **_: object) -> None:
        if name == COMPILED:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compilations
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_cell_like_the_last_compiles_nothing_and_keeps_nothing(
    tmp_path, small_glyphs, one_device, compiled
):
    def go(cell, name):
        train(cell, execution(small_glyphs), folder=tmp_path / name, group="s")
        gc.collect()
        return len(jax.live_arrays()), len([*Path("/dev/fd").iterdir()])

    unlike = dataclasses.replace(CELL, batch_size=8)
    go(CELL, "first")
    compiled.clear()
    go(unlike, "unlike")
    assert compiled  # the listener works
    # The first two cells start what the process keeps.
    kept = go(dataclasses.replace(CELL, seed=1), "second")
    compiled.clear()
    for seed in range(2, 5):
        assert go(dataclasses.replace(CELL, seed=seed), str(seed)) == kept
    assert go(dataclasses.replace(unlike, seed=1), "unlike again") == kept
    assert compiled == []


@pytest.mark.slow
def test_a_cell_after_others_records_what_it_records_alone(tmp_path, small_glyphs, one_device):
    how = {"data_root": str(small_glyphs.parent), "wandb": False, "chunk_examples": 48}
    how["log_every_percent"] = 10
    cells = [
        dataclasses.replace(CELL, seed=seed, batch_size=batch_size)
        for seed, batch_size in ((0, 16), (0, 32), (1, 16))
    ]
    for i, cell in enumerate(cells):
        train(cell, execution(small_glyphs), folder=tmp_path / str(i), group="s")
    arguments = [json.dumps(to_dict(cells[-1])), json.dumps(how), str(tmp_path / "alone")]
    subprocess.run([sys.executable, "-c", ALONE, *arguments], check=True, timeout=300)
    assert rows(tmp_path / "2") == rows(tmp_path / "alone")
    assert evaluated(tmp_path / "2") == evaluated(tmp_path / "alone")


def evaluated(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "items").iterdir()}
