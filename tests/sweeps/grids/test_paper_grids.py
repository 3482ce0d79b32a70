"""The grids of the paper: every point that it prints has its cell, and equal runs are one cell."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from study.config import Adafactor, CachedImage, Lion, Negatives, TextTransformer, ViT
from study.data.formats.dataset import DATASET_FILE
from sweeps.grids.paper import recipe as paper
from sweeps.grids.paper.all import STUDIES
from sweeps.registry import builtin_studies, load_study
from sweeps.study import StudyError

REFERENCE = Path(__file__).parents[3] / "analysis" / "paper" / "reference.csv"
BUDGETS = {"450M": 450e6, "900M": 900e6, "3B": 3e9, "9B": 9e9, "18B": 18e9, "30B": 30e9}


@pytest.fixture(scope="module")
def studies():
    return {name: load_study(name) for name in STUDIES}


def reference(figure: str) -> list[dict[str, str]]:
    """The rows of a figure or table."""
    with REFERENCE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == figure]
    assert rows
    return rows


def printed(figure: str) -> list[dict[str, str]]:
    return [row for row in reference(figure) if row["x_name"] == "batch_size"]


def budget(panel: str) -> int:
    return next(int(n) for label, n in BUDGETS.items() if f"{label} examples" in panel)


@pytest.mark.parametrize(
    ("figure", "panel", "study"),
    [
        ("Table 8", "", "table-8"),
        ("Table 5", "", "table-5"),
        ("Table 2", "", "table-2"),
        ("Fig. 2", "left", "fig-2-left"),
        ("Fig. 2", "middle", "fig-2-middle"),
        ("Fig. 2", "right", "fig-2-right"),
    ],
)
def test_every_printed_point_has_its_cell_and_every_cell_is_printed(figure, panel, study, studies):
    points = {
        (int(r["x"]), budget(r["panel"]), "softmax" if r["series"] == "Softmax" else "sigmoid")
        for r in printed(figure)
        if panel in r["panel"]
    }
    cells = {(c.batch_size, c.budget.examples, c.loss.kind) for c in studies[study].cells}
    assert cells == points


def test_table_8_has_as_many_cells_as_the_paper_prints(studies):
    cells = studies["table-8"].cells
    assert len(cells) == 77 == len(printed("Table 8"))
    assert Counter(c.budget.examples for c in cells) == {
        450_000_000: 20, 900_000_000: 20, 3_000_000_000: 20, 18_000_000_000: 17
    }  # fmt: skip


def test_fig_3_has_the_batch_sizes_and_budgets_of_its_axis(studies):
    rows = reference("Fig. 3")
    points = {int(r["x"]) * 10**6 for r in rows}
    assert {c.budget.examples for c in studies["fig-3"].cells} == points
    assert len(studies["fig-3"].cells) == len(rows) == 16


def test_the_batch_sizes_and_values_of_tables_4_6_and_7_have_cells(studies):
    rows = reference("Table 4")
    starts = {(r["x"], r["series"].removeprefix("t_prime_init=log ")) for r in rows}
    cells = studies["table-4"].cells
    b = {None: "n/a", -10.0: "-10", 0.0: "0"}
    assert {(b[c.loss.b_init], f"{c.loss.t_init:g}") for c in cells} == starts
    rows = printed("Table 6")
    assert {c.batch_size for c in studies["table-6"].cells} == {int(r["x"]) for r in rows}
    recipes = {(c.optimizer.learning_rate, c.optimizer.weight_decay) for c in
               studies["table-6"].cells}  # fmt: skip
    best = {
        kind: {float(r["value"]) for r in rows if r["metric"] == f"best {kind}"}
        for kind in ("learning rate", "weight decay")
    }
    assert best["learning rate"] <= {rate for rate, _ in recipes} and len(recipes) == 9
    assert best["weight decay"] <= {decay for _, decay in recipes}
    assert Counter((c.loss.kind, c.optimizer.kind) for c in studies["table-7"].cells) == {
        ("softmax", "adafactor"): 5, ("sigmoid", "adafactor"): 6, ("sigmoid", "adam"): 5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("part", "whole", "count"),
    [
        ("fig-2-left", "table-8", 17),
        ("fig-3", "table-8", 16),
        ("fig-2-middle", "table-5", 12),
        ("fig-2-right", "table-2", 5),
        ("table-2", "table-9", 5),
        ("fig-8", "table-9", 6),
        ("table-1", "table-5", 1),  # row 5 is the 9B run at 32k
        ("table-1", "fig-4", 1),  # row 3 is the pretrained tower without decay
        ("fig-6", "table-8", 1),  # without a mask
        ("table-6", "table-5", 2),  # the defaults at 8k and 32k
        ("table-7", "table-5", 2),  # the first seed of either loss
        ("bias-init", "table-8", 5),
        ("lr-by-batch", "table-8", 10),
        ("examples-vs-pairs", "table-8", 4),
    ],
)
def test_equal_runs_of_the_paper_are_one_cell_with_one_record(part, whole, count, tmp_path):
    a, b = load_study(part), load_study(whole)
    shared = {c.id for c in a.cells} & {c.id for c in b.cells}
    assert len(shared) == count
    assert {a.folder(tmp_path) / i for i in shared} == {b.folder(tmp_path) / i for i in shared}


def test_the_whole_paper_is_every_cell_of_its_parts_once(studies):
    whole = load_study("paper")
    assert {c.id for c in whole.cells} == {c.id for s in studies.values() for c in s.cells}
    assert set(STUDIES) == {n for n in builtin_studies() if n.startswith(("fig-", "table-"))}
    assert {s.group for s in studies.values()} == {whole.group}


def test_the_recipe_is_the_papers_at_every_batch_size(studies):
    """App. A: the same learning rate, decay, beta2 and warm-up from 512 to 1024k."""
    for name in ("table-8", "table-5", "table-2"):
        for cell in studies[name].cells:
            optimizer = cell.optimizer
            assert isinstance(optimizer, Adafactor)
            assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-3, 1e-4)
            assert (optimizer.b1, optimizer.b2, optimizer.schedule) == (0.9, 0.95, "cosine")
            assert optimizer.warmup_examples == 200_000_000
            assert cell.data.text_length == 16 and cell.model.dtype == "bfloat16"
            assert cell.loss.t_init == 10
            assert cell.loss.kind == "softmax" or cell.loss.b_init == -10


def test_the_towers_are_the_papers(studies):
    (siglit,) = {c.model for c in studies["table-8"].cells}
    assert siglit.image == CachedImage(embeddings="vit-g14-288", dim=1408)
    assert siglit.text == TextTransformer(variant="B")
    (siglip,) = {c.model for c in studies["table-5"].cells}
    assert siglip.image == ViT(variant="B/16", image_size=224) and siglip.embed_dim == 768
    (multilingual,) = {c.model for c in studies["table-2"].cells}
    assert multilingual.text == TextTransformer(variant="B", bottleneck=96)
    assert {c.data.tokenizer for c in studies["table-2"].cells} == {"mc4.model"}
    (medium,) = {c.model for c in studies["fig-7"].cells}
    assert medium.image.size.width == medium.text.size.width == medium.embed_dim == 512


def test_the_patches_of_the_scaled_up_models_are_those_of_table_3(studies):
    rows = reference("Table 3")
    ours = [r for r in rows if r["series"] == "SigLIP"]
    patches = Counter()
    for panel, width in (("ViT B", 768), ("ViT L", 1024), ("ViT SO", 1152)):
        printed_patches = {int(r["x"]) for r in ours if panel in r["panel"]}
        cells = [c for c in studies["table-3"].cells if c.model.embed_dim == width]
        assert printed_patches <= {c.model.image.grid**2 for c in cells}
        patches.update(c.budget.examples for c in cells)
    assert patches == {40_000_000_000: 3, 5_000_000_000: 5}
    for cell in studies["table-3"].cells:
        more = cell.budget.examples == 5_000_000_000
        assert (cell.model.init is not None) == more
        assert cell.optimizer.learning_rate == pytest.approx(1e-5 if more else 1e-3)
        assert cell.optimizer.weight_decay == (0 if more else 1e-4)
        assert cell.data.text_length == 64 and cell.batch_size == 32768


def test_table_1_has_the_papers_steps(studies):
    lion, long, tuned, short, whole = studies["table-1"].cells
    assert isinstance(lion.optimizer, Lion)
    assert (lion.steps, lion.optimizer.warmup_steps, lion.optimizer.weight_decay) == (
        65_000, 6_500, 1e-7
    )  # fmt: skip
    assert lion.model.text.depth == 12 and lion.model.text.size.width == 1024
    assert (long.steps, long.batch_size) == (107_000, 20_480)
    assert tuned.optimizer.image.wd_mult == 0 and tuned.optimizer.image.lr_mult == 0.1
    assert (short.batch_size, whole.batch_size) == (32768, 32768)


def test_the_masks_of_fig_6_keep_the_papers_ratios_and_match_its_pairs(studies):
    cells = studies["fig-6"].cells
    whole = next(c for c in cells if c.loss.pairs.kind == "all")
    assert whole.pairs_per_step - whole.batch_size == 268_419_072  # the paper's 268M
    kept = {c.loss.pairs.per_positive for c in cells if isinstance(c.loss.pairs, Negatives)}
    assert sorted(kept) == pytest.approx([1.6383, 16.383, 163.83, 1638.3])
    matched = [c for c in cells if c.budget.pairs]
    for cell in matched:
        seen = cell.steps * cell.pairs_per_step
        assert 0 <= whole.steps * whole.pairs_per_step - seen < cell.pairs_per_step
        assert cell.loss.pairs.keep == "hard"
    assert len(matched) == 2 and len(cells) == 15


def test_fig_5_differs_in_beta2_and_fig_4_in_the_image_tower_alone(studies):
    high, low = studies["fig-5"].cells
    assert (high.optimizer.b2, low.optimizer.b2) == (0.999, 0.95)
    same = dataclasses.replace(high, optimizer=dataclasses.replace(high.optimizer, b2=0.95))
    assert same == low
    scratch, tuned, undecayed = studies["fig-4"].cells
    assert {c.examples // 10**8 for c in studies["fig-4"].cells} == {23}
    assert scratch.model.init is None and tuned.model == undecayed.model
    assert tuned.model.init.endswith(":img")
    for cell in (scratch, tuned, undecayed):  # a point each 100M examples
        assert {round(100 / e.every_percent) for e in cell.evals if e.kind != "val_loss"} == {24}


def test_fig_7_corrupts_both_losses_alike(studies):
    cells = studies["fig-7"].cells
    clean = [c for c in cells if c.data.corruption.is_identity]
    assert len(clean) == 2 and len(cells) == 42
    by_loss = {
        kind: {c.data.corruption for c in cells if c.loss.kind == kind}
        for kind in ("sigmoid", "softmax")
    }
    assert by_loss["sigmoid"] == by_loss["softmax"]
    assert all(c.optimizer.warmup_percent == 10 for c in cells)


def test_what_each_cell_assumes_is_named_with_a_reason(studies):
    for study in studies.values():
        names = [a.name for a in study.assumptions]
        assert names and len(names) == len(set(names)), study.name
        assert all(a.value and a.reason.endswith((".", ")")) for a in study.assumptions)
    odd = {c.batch_size for c in load_study("paper").cells} - {2**k for k in range(9, 21)}
    assert odd == {98_304, 307_200, 245_760, 20_480}


def test_every_batch_can_be_spread_over_the_chips_of_its_slice(studies):
    chips = {"v4-8": 4, "v4-32": 16, "v4-64": 32, "v4-128": 64, "v4-256": 128}
    for study in studies.values():
        for cell in study.cells:
            assert cell.batch_size % chips[study.execution_of(cell).slice] == 0


def test_missing_data_sets_are_all_named_in_one_line_before_anything_starts(studies, tmp_path):
    study = studies["table-4"]
    with pytest.raises(StudyError) as caught:
        study.prepare(tmp_path, cells=study.cells)
    message = str(caught.value)
    assert "\n" not in message and "study data index" in message and "study data import" in message
    for name in ("webli-en", "imagenet", "pets", "cifar100"):
        assert name in message
        (tmp_path / name).mkdir()
        (tmp_path / name / DATASET_FILE).touch()  # a folder of a bucket is known by its files
    study.prepare(tmp_path, cells=study.cells)


def test_each_data_set_of_the_paper_says_where_it_comes_from():
    assert set(paper.datasets(load_study("paper").cells)) == set(paper.SOURCES)
