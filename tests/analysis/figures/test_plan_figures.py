"""Figures of plans: the same bytes for the same rows, and Table 1 next to what the paper prints."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.figures import plan as plan_figures

CHIPS = (4, 4, 16, 32, 32)  # of the paper's Table 1


def rows(chips=CHIPS):
    return [
        {
            "id": f"b{k}",
            "batch_size": 16384,
            "loss": ("sigmoid", "softmax")[k % 2],
            "pairs": ("all", "hard1638.3")[k // 3],
            "steps": 10**6,
            "slice": f"v4-{2 * n}",
            "chips": n,
            "fits": (True, False, None)[k % 3],
            "flops_towers": 4 * 10**15,
            "flops_loss": 10**13,
            "peak_flops": 275e12,
            "hbm_gib": 10.0 + k,
            "usable_hbm_gib": 30.75,
            "days": 1.0 + k,
        }
        for k, n in enumerate(chips)
    ]


def test_a_plan_of_one_batch_size_is_a_csv_alone(tmp_path):
    files = plan_figures.write_plan(rows(), tmp_path, "s")
    assert [f.name for f in files] == [f.name for f in tmp_path.iterdir()] == ["s.csv"]


def test_a_plan_drawn_twice_is_the_same_bytes(tmp_path):
    several = [row | {"batch_size": 2 ** (9 + k)} for k, row in enumerate(rows())]
    for folder in ("a", "b"):
        files = plan_figures.write_plan(several, tmp_path / folder, "s", assumed="40 % is assumed.")
        assert [f.name for f in files] == ["s.csv", "s.png", "s.pdf", "s.md", "s.tex"]
    for name in ("s.csv", "s.png", "s.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_table_1_stands_beside_the_papers_days(tmp_path):
    csv, *_ = plan_figures.write_plan(rows(), tmp_path, "table-1")
    frame = pd.read_csv(csv)
    assert list(frame["paper_days"]) == [1, 2, 3, 2, 5]
    whole = 10**6 * 4.01e15 / (86_400 * 4 * 275e12)
    assert frame["paper_mfu"][0] == pytest.approx(whole, rel=1e-3)
    assert (frame["paper_mfu"] > 0).all()


def test_table_1_on_other_chips_is_refused(tmp_path):
    with pytest.raises(AnalysisError, match="plan all five rows on their own slices"):
        plan_figures.write_plan(rows((4, 4, 4, 4, 4)), tmp_path, "table-1")


def test_predicted_stands_against_measured(tmp_path):
    measured = [
        {
            "id": f"b{k}",
            "chip": "v4",
            "chips": 4,
            "loss": "sigmoid",
            "batch_size": 64,
            "predicted_examples_per_s": 200.0 * (k + 1),
            "measured_examples_per_s": 100.0 * (k + 1),
        }
        for k in range(3)
    ]
    files = plan_figures.write_speed(measured, tmp_path, "s")
    ends = ("csv", "png", "pdf", "md", "tex")
    assert [f.name for f in files] == [f"s-measured.{end}" for end in ends]
    assert len(pd.read_csv(files[0])) == 3
