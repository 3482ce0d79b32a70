"""`study bench step` compares two ways to the same parameters."""

from __future__ import annotations

import json

import pytest

from study.bench import step as benches
from study.cell import Sigmoid, Softmax
from sweeps.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("loss", [Sigmoid(), Softmax()], ids=["sigmoid", "softmax"])
def test_the_plain_step_makes_the_same_parameters(loss):
    cell, image = benches.siglit(32, loss, 3)
    result = benches.bench("siglit", cell, image, steps=3, rounds=2)
    assert result.difference < 1e-3
    assert result.ratio == pytest.approx(sum(result.ratios) / 2)


def test_a_wrong_variant_is_one_line(capsys):
    assert main(["bench", "step", "--cell", "siglip", "--variant", "nope/8"]) == 2
    said = capsys.readouterr().err
    assert "variant" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_json_says_all(capsys):
    sizes = ["--batch-size", "32", "--steps", "2", "--rounds", "1"]
    assert main(["bench", "step", "--cell", "siglit", *sizes, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == "siglit"
    assert found["batch_size"] == 32
    assert found["ours_seconds"] > 0
