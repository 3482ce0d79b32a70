"""Killed at ten random points and taken up again each time, a run ends the same, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from study.config import Budget, to_dict
from study.training.loop import train
from tests.study.training.test_train import CELL, SCRATCH, execution, final_params, without_clock
from tests.xla import xla_flags

KILLS = 10


class Killed(BaseException):
    """Raised where it cannot be caught for a failure, as a kill would strike."""


def killed_at(steps: int):
    """Strikes between two pieces, `steps` pieces from now; nothing is saved on the way out."""
    left = iter(range(steps, -1, -1))

    def strike() -> bool:
        if next(left) == 0:
            raise Killed
        return False

    return strike


@pytest.mark.slow
@pytest.mark.parametrize("cell", [CELL, SCRATCH], ids=["siglit", "siglip"])
def test_ten_random_kills_change_no_bit(cell, tmp_path, small_glyphs, one_device):
    cell = dataclasses.replace(cell, evals=(), budget=Budget(steps=40))
    # A piece is a step, and every third step is saved: between two rows, mostly.
    how = execution(small_glyphs, chunk_examples=1, keep_every_percent=7.5)
    whole = train(cell, how, folder=tmp_path / "whole", group="s")
    rng = random.Random(0)
    for _ in range(KILLS):
        with pytest.raises(Killed):
            # At most 7 steps on from a checkpoint that was at least 0 steps before: it gets on.
            train(
                cell,
                how,
                folder=tmp_path / "killed",
                group="s",
                should_stop=killed_at(rng.randrange(0, 7)),
            )
    killed = train(cell, how, folder=tmp_path / "killed", group="s")
    assert killed["attempt"] == KILLS + 1
    assert without_clock(killed) == without_clock(whole)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(cell, tmp_path / "killed"),
        final_params(cell, tmp_path / "whole"),
    )


PROCESS = """
import json, sys
from pathlib import Path
from study.config import Execution, from_dict
from study.training.loop import train
cell, how, folder = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
train(from_dict(cell), Execution(**how), folder=folder, group="s")
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_no_bit(tmp_path, small_glyphs, one_device):
    cell = dataclasses.replace(CELL, evals=(), budget=Budget(steps=120))
    how = execution(small_glyphs, chunk_examples=1, keep_every_percent=5)
    train(cell, how, folder=tmp_path / "whole", group="s")
    command = [sys.executable, "-c", PROCESS, json.dumps(to_dict(cell))]
    command += [json.dumps(dataclasses.asdict(how)), str(tmp_path / "killed")]
    alone = os.environ | {"XLA_FLAGS": xla_flags(1)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=alone)
    saved = tmp_path / "killed" / "checkpoints"
    while not (saved.exists() and any(p.name.isdigit() for p in saved.iterdir())):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "DONE.json").exists()
    done = train(cell, how, folder=tmp_path / "killed", group="s")
    assert done["attempt"] == 2
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(cell, tmp_path / "killed"),
        final_params(cell, tmp_path / "whole"),
    )
