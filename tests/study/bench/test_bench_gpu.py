"""The check of a GPU, dry on a CPU: every part runs, and what fails or is missing is a row."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from study.bench import gpu, gpu_parts
from tests.study.losses.reference import embeddings, reference_sigmoid, reference_softmax

WAYS = ("sigmoid", "sigmoid, kernel", "softmax", "naive sigmoid", "naive softmax")


def rows_of(part):
    return list(gpu_parts.PARTS[part](gpu_parts.TINY, gpu_parts.Clock(1e6)))


def test_float64_losses_are_the_formulas():
    z = [a.astype(np.float64) for a in embeddings(16)]
    for got, (want, want_grads) in (
        (gpu_parts.exact_sigmoid(*z, 10.0, -5.0), reference_sigmoid(*z, 10.0, -5.0)),
        (gpu_parts.exact_softmax(*z, 10.0), reference_softmax(*z, 10.0)),
    ):
        for one, expected in zip(got, (want, *want_grads), strict=True):
            np.testing.assert_allclose(one, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu():
    timed = {row["name"]: row for row in rows_of("losses")}
    assert set(timed) == {*WAYS, "three matmuls"}
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in timed.values())

    compared = [row for row in rows_of("errors") if row["t"] == 117.0]
    assert {row["name"] for row in compared} == {*WAYS, "gradients rounded to bfloat16"}
    for row in compared:
        if not row["name"].startswith("naive"):  # whose logits are bfloat16
            assert row["loss"] < 1e-5
            # p is bfloat16 in the gradients of a CPU; positives and negatives cancel in dt.
            assert max(row["dimg"], row["dtxt"]) < 2**-7 and row["dt"] < 0.1

    dt = {row["name"]: row["dt"] for row in compared}
    assert dt["sigmoid, kernel"] < dt["sigmoid"]  # whose p are float16 and bfloat16 here

    (step,) = rows_of("step")
    assert step["seconds"] > 0 and step["mfu"] is None
    (glyphs,) = rows_of("glyphs")
    assert glyphs["name"] == "glyphs on cpu" and len(glyphs["losses"]) > 1


def test_a_part_that_fails_or_lasts_leaves_a_row(monkeypatch, tmp_path, capsys):
    """Its processes are real; the first part of the list is unknown to them."""
    budgets = (("unknown", "", 60.0), ("losses", "", 1.5), ("siglip-kernel", "", 0.5))
    monkeypatch.setattr(gpu, "BUDGETS", budgets)
    monkeypatch.setattr(gpu, "DEVICE", 'print(\'{"card": "A card (1)"}\')')
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--out", str(tmp_path)])
    gpu.main()
    result = json.loads((tmp_path / "gpu-a-card-1.json").read_text())
    unknown, *lasts, late = (row["skipped"] for row in result["rows"])
    assert (unknown, late) == ("KeyError: 'unknown'", "time")
    # On a fast machine it comes as far as to skip its own rows for lack of time.
    assert lasts and set(lasts) <= {"ended after 2 s", "time"}
    assert "training on glyphs as on CPU: not measured" in capsys.readouterr().out


def test_goals_compare_the_rows():
    trained = {"t": 117.0, "b": -13.0, "batch_size": 8}
    error = dict.fromkeys(("loss", "dimg", "dtxt", "dt", "db"), 1e-3)
    timed = {"batch_size": 64, "peak_bytes": 1}
    rows = [
        {"part": "losses", "name": "sigmoid", "seconds": 2.0, **timed},
        {"part": "losses", "name": "three matmuls", "seconds": 1.0, **timed},
        {"part": "siglip-kernel", "name": "siglip-kernel", "seconds": 4.0, **timed},
        {"part": "errors", "name": "sigmoid", **trained, **error},
        {"part": "siglip-kernel", "name": "siglip-kernel", **trained, **error, "loss": 0.5},
        {"part": "glyphs", "name": "glyphs on cpu", "losses": [2.0, 1.0]},
        {"part": "glyphs", "name": "glyphs on gpu", "losses": [2.0, 1.1]},
    ]
    reached = [goal["reached"] for goal in gpu.goals(rows)]
    assert reached[:3] == ["0.50", "0.50 of it", "500 times"]
    assert reached[-1] == "losses of 2 rows differ by at most 9.1e-02"
