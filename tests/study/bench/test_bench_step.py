"""`study bench step` compares two ways to the same parameters."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from study.bench import step as benches
from study.config import Sigmoid, Softmax
from sweeps.cli.bench import app
from sweeps.study import StudyError


@pytest.mark.slow
@pytest.mark.parametrize("loss", [Sigmoid(), Softmax()], ids=["sigmoid", "softmax"])
def test_the_plain_step_makes_the_same_parameters(loss):
    cell, image = benches.siglit(32, loss, 3)
    result = benches.bench("siglit", cell, image, steps=3, rounds=2)
    assert result.difference < 1e-3
    assert result.ratio == pytest.approx(sum(result.ratios) / 2)


def test_a_wrong_variant_is_one_line():
    error = CliRunner().invoke(app, ["step", "--cell", "siglip", "--variant", "nope/8"]).exception
    assert isinstance(error, StudyError)
    assert "variant" in str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.slow
def test_json_says_all():
    sizes = ["--batch-size", "32", "--steps", "3", "--rounds", "2"]
    found = CliRunner().invoke(app, ["step", "--cell", "siglit", *sizes, "--json"])
    assert found.exit_code == 0, found.output
    (result,) = json.loads(found.stdout)
    assert result["name"] == "siglit"
    assert result["batch_size"] == 32
    assert len(result["ratios"]) == 2
