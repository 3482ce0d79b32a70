"""Cells that go on from a checkpoint of another cell."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from study.config import (
    Adam,
    Budget,
    Cell,
    CellError,
    Lion,
    Sigmoid,
    Softmax,
    batch_schedule,
    branch_from,
    from_dict,
    to_dict,
)
from study.models.two_towers import bias as bias_of
from study.records.record import RecordError
from study.training.loop import train
from tests.study.training.test_train import CELL, execution, final_params, rows

PARENT = dataclasses.replace(CELL, optimizer=Adam(learning_rate=3e-3, schedule="constant"))


@pytest.fixture(scope="module")
def trained(small_glyphs, tmp_path_factory):
    """The folder of a study in which the parent is trained, with a checkpoint at each half."""
    folder = tmp_path_factory.mktemp("branches")
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: first)
        how = execution(small_glyphs, keep_every_percent=50)
        train(PARENT, how, folder=folder / PARENT.id, group="s")
    return folder


def go(cell, folder, small_glyphs):
    return train(cell, execution(small_glyphs), folder=folder / cell.id, group="s")


def test_a_branch_like_its_parent_ends_with_the_same_parameters(trained, small_glyphs, one_device):
    branch = branch_from(PARENT, percent=50, batch_size=16, budget=Budget(examples=320))
    assert (branch.branch.step, branch.branch.examples) == (20, 320)
    assert go(branch, trained, small_glyphs)["status"] == "done"
    ends = [final_params(cell, trained / cell.id) for cell in (PARENT, branch)]
    for name in ("params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, *(end[name] for end in ends))
    losses = [
        {row["step"]: row["train/loss"] for row in rows(trained / c.id) if "train/loss" in row}
        for c in (PARENT, branch)
    ]
    shared = losses[0].keys() & {step + 20 for step in losses[1]}
    assert len(shared) >= 4
    assert all(losses[0][step] == losses[1][step - 20] for step in shared)


def test_a_branch_takes_another_batch_size_and_rate(trained, small_glyphs, one_device):
    faster = dataclasses.replace(PARENT.optimizer, learning_rate=6e-3)
    branch = branch_from(
        PARENT, percent=50, batch_size=64, budget=Budget(examples=128), optimizer=faster
    )
    done = go(branch, trained, small_glyphs)
    assert (done["status"], done["step"], done["examples_seen"]) == ("done", 2, 128)
    again = branch_from(branch, percent=100, batch_size=8, budget=Budget(examples=16))
    assert again.branch.examples == 320 + 128
    assert go(again, trained, small_glyphs)["step"] == 2


def test_a_chain_of_one_batch_size_ends_with_the_bits_of_the_whole_run(
    tmp_path, small_glyphs, one_device
):
    """The rate warms up and decays over the whole run, and the decay follows its length."""
    whole = dataclasses.replace(
        CELL,
        evals=(),
        optimizer=Adam(
            learning_rate=3e-3,
            weight_decay_time_percent=50,
            warmup_percent=30,
            cooldown_percent=20,
        ),
    )
    chain = batch_schedule(whole, ((0, 16), (20, 16), (60, 16)), rate=lambda _: 3e-3)
    assert [cell.steps for cell in chain] == [8, 16, 16]
    for cell in (whole, *chain):
        assert go(cell, tmp_path, small_glyphs)["status"] == "done"
    ends = [final_params(cell, tmp_path / cell.id) for cell in (whole, chain[-1])]
    for name in ("params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, *(end[name] for end in ends))
    rates = [
        [row["train/lr"] for row in rows(tmp_path / cell.id) if "train/lr" in row]
        for cell in (whole, chain[-1])
    ]
    assert rates[0][-1] == rates[1][-1] < 1e-3


@pytest.mark.parametrize("bias", ["absolute", "relative"])
def test_a_shifted_bias_follows_the_odds_of_a_positive(bias, tmp_path, small_glyphs, one_device):
    """With a rate of almost zero the branch ends with the bias that it began with."""
    parent = dataclasses.replace(CELL, evals=(), loss=Sigmoid(bias=bias), budget=Budget(steps=2))
    still = dataclasses.replace(parent.optimizer, learning_rate=1e-30)
    where = {"percent": 100, "batch_size": 64, "budget": Budget(steps=1), "optimizer": still}
    kept, shifted = (branch_from(parent, **where, shift_bias=shift) for shift in (False, True))
    assert kept.branch.bias_shift == 0 and kept.id != shifted.id
    for cell in (parent, kept, shifted):
        assert go(cell, tmp_path, small_glyphs)["status"] == "done"
    ends = [final_params(cell, tmp_path / cell.id)["params"] for cell in (parent, kept, shifted)]
    before, same, after = (float(bias_of(params)) for params in ends)
    assert before == same
    assert after - before == pytest.approx(np.log(15 / 63), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"percent": 25}, r"no checkpoint of step 10 \(it has: 20, .*40\)"),
        ({"percent": 50, "optimizer": Lion()}, "checkpoint 20 does not fit"),
    ],
)
def test_what_cannot_be_gone_on_from_is_one_line(change, named, trained, small_glyphs, one_device):
    branch = branch_from(PARENT, **{"batch_size": 32, "budget": Budget(steps=1)} | change)
    with pytest.raises(RecordError, match=named) as error:
        go(branch, trained, small_glyphs)
    assert "\n" not in str(error.value)


def test_a_branch_is_a_value_like_any_cell():
    branch = branch_from(PARENT, percent=50, batch_size=32, budget=Budget(steps=1))
    assert from_dict(to_dict(branch)) == branch
    assert branch.id != dataclasses.replace(branch, branch=None).id
    with pytest.raises(CellError, match="is step 0 of 40"):
        branch_from(PARENT, percent=1, batch_size=32, budget=Budget(steps=1))
    softmax = dataclasses.replace(PARENT, loss=Softmax())
    of_softmax = branch_from(softmax, percent=50, batch_size=32, budget=Budget(steps=1))
    shifted = branch_from(
        softmax, percent=50, batch_size=32, budget=Budget(steps=1), shift_bias=True
    )
    assert shifted == of_softmax  # it has no bias
    with pytest.raises(ValueError, match="bias_shift: the loss has no bias"):
        at = dataclasses.replace(of_softmax.branch, bias_shift=1.0)
        dataclasses.replace(of_softmax, branch=at)
    with pytest.raises(ValueError, match="a branch cannot go on with a queue"):
        dataclasses.replace(branch, loss=Sigmoid(queue_examples=32))
    assert isinstance(branch, Cell)
