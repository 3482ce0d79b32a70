"""Panels: cells are chosen by their fields, and different configurations are never mixed."""

import dataclasses

import pytest

from analysis.records.frame import cells
from analysis.select.panels import batch_sizes, by_budget, compositions, matched_pairs, title
from study.config import Adam, Budget, Model, Sigmoid, Softmax, TextTransformer, ViT

FLAT = {16: 30.0, 64: 35.0, 256: 40.0}


def panel(writer, image="cached", **more):
    return batch_sizes(cells(writer.root, writer.study, **more), image=image)


def rates(chosen):
    pairs = zip(chosen["batch_size"], chosen["optimizer.learning_rate"], strict=True)
    return dict(sorted(set(pairs)))


def test_image_tower_separates_siglit_from_siglip(writer):
    writer.batch_panel(FLAT, FLAT)
    scratch = Model(image=ViT(), text=TextTransformer(), embed_dim=32)
    writer.batch_panel({16: 10.0}, {16: 9.0}, model=scratch)
    assert set(panel(writer).cells["model.image.kind"]) == {"cached"}
    assert panel(writer).cells["batch_size"].nunique() == 3
    assert set(panel(writer, "vit").cells["model.image.kind"]) == {"vit"}


def test_masked_and_other_loss_settings_stay_out_of_the_batch_panel(writer):
    writer.batch_panel(FLAT, FLAT)
    writer.done(writer.cell(64, keep="random", ratio=8.0), 20.0)
    writer.done(writer.cell(64, loss=Sigmoid(b_init=0.0)), 1.0)
    chosen = panel(writer)
    assert len(chosen.cells) == 12
    assert chosen.notes == ("1 cell of other configurations left out (other loss.b_init)",)


def test_two_budgets_are_never_averaged(writer):
    writer.batch_panel(FLAT, FLAT, budget=Budget(examples=300_000))
    writer.batch_panel({16: 50.0, 64: 50.0}, {16: 50.0}, budget=Budget(examples=1_000_000))
    chosen = panel(writer)
    assert set(chosen.cells["budget.examples"]) == {300_000}
    assert "300,000 examples seen" in title(chosen)
    assert "not shown: the same after 1,000,000 examples" in chosen.notes


def test_the_longest_budget_with_half_of_the_batch_sizes_is_the_panel(writer):
    """Not the one with most cells, and not a longer one with a single batch size."""
    for examples, sizes in ((300_000, (16, 64, 256)), (1_000_000, (16, 64)), (4_000_000, (16,))):
        flat = dict.fromkeys(sizes, 30.0)
        writer.batch_panel(flat, flat, budget=Budget(examples=examples), seeds=1)
    writer.done(writer.cell(64, budget=Budget(examples=4_000_000)), 30.0)  # one loss of two
    chosen = panel(writer)
    assert set(chosen.cells["budget.examples"]) == {1_000_000}
    assert "not shown: the same after 300,000 and 4,000,000 examples" in chosen.notes
    assert "(62,500 steps at B = 16 to 15,625 at B = 64)" in title(chosen)


def test_a_learning_rate_rule_is_one_panel_and_is_named(writer):
    for size, rate in ((16, 5e-3), (64, 5e-3), (256, 1e-2)):
        writer.batch_panel({size: 30.0}, {size: 30.0}, optimizer=Adam(learning_rate=rate))
    chosen = panel(writer)
    assert rates(chosen.cells) == {16: 5e-3, 64: 5e-3, 256: 1e-2}
    assert "learning rate by batch size: 0.005 at B = 16, 64; 0.01 at B = 256" in title(chosen)


def test_a_rule_beside_a_fixed_rate_shares_cells_and_is_taken_whole(writer):
    writer.batch_panel(FLAT, FLAT, optimizer=Adam(learning_rate=5e-3))
    for size, rate in ((64, 7e-3), (256, 1e-2)):
        writer.batch_panel({size: 30.0}, {size: 30.0}, optimizer=Adam(learning_rate=rate))
    chosen = panel(writer)
    assert rates(chosen.cells) == {16: 5e-3, 64: 7e-3, 256: 1e-2}
    assert len(chosen.cells) == 12


def test_a_batch_size_with_a_schedule_of_its_own_is_no_point_of_a_panel(writer):
    writer.batch_panel({16: 30.0, 256: 40.0}, {16: 30.0, 256: 40.0})
    constant = Adam(learning_rate=5e-3, warmup_percent=5.0, schedule="constant")
    writer.batch_panel({64: 20.0}, {64: 20.0}, optimizer=constant)
    chosen = panel(writer)
    assert set(chosen.cells["batch_size"]) == {16, 256}
    assert chosen.notes == ("4 cells of other configurations left out (other optimizer.schedule)",)


def test_cells_with_a_queue_are_no_budget_of_a_panel(writer):
    """They end at equal FLOPs after other numbers of examples, where nothing else does."""
    writer.batch_panel({16: 30.0, 256: 40.0}, {16: 30.0, 256: 40.0})
    queue = Sigmoid(queue_examples=240)
    writer.done(writer.cell(16, loss=queue, budget=Budget(examples=160_000)), 60.0)
    panels = by_budget(cells(writer.root, writer.study), image="cached")
    assert set(panels) == {300_000}


def test_a_learning_rate_sweep_falls_back_to_the_widest_fixed_rate(writer):
    writer.batch_panel(FLAT, FLAT, optimizer=Adam(learning_rate=5e-3))
    for rate in (1e-3, 1e-2):
        writer.batch_panel({64: 30.0}, {64: 30.0}, optimizer=Adam(learning_rate=rate))
    assert rates(panel(writer).cells) == dict.fromkeys(FLAT, 5e-3)


def test_unfinished_configurations_do_not_hide_finished_ones(writer):
    writer.batch_panel({16: 30.0}, {16: 30.0})
    for size in (16, 64, 256):
        writer.begin(writer.cell(size, budget=Budget(examples=10_000_000))).close()
    assert set(panel(writer).done["budget.examples"]) == {300_000}


def test_missing_names_failed_cells_and_holes(writer):
    writer.batch_panel({16: 30.0, 64: 35.0}, {16: 30.0})
    failed = writer.failed(writer.cell(64, "softmax", 0), "out of memory")
    assert panel(writer).missing() == [
        f"{failed.id} (failed: out of memory)",
        "no record of b64 softmax seed 1",
    ]


def test_the_reference_of_masked_cells_needs_no_softmax_beside_it(writer):
    writer.batch_panel({16: 30.0}, {16: 30.0}, seeds=1)
    writer.done(writer.cell(512), 31.0)
    assert panel(writer).missing() == ["no record of b512 softmax seed 0"]
    writer.done(writer.cell(512, keep="hard", ratio=8.0), 30.0)
    assert panel(writer).missing() == []


def test_with_a_plan_only_planned_cells_are_missed(writer):
    writer.batch_panel({16: 30.0, 64: 35.0}, {16: 30.0}, seeds=1)
    planned = [writer.cell(16), writer.cell(64), writer.cell(16, "softmax"), writer.cell(256)]
    plan = [writer.about(cell) for cell in planned]
    assert panel(writer, planned=plan).missing() == [f"{planned[-1].id} (not started)"]


def test_composition_finds_the_unmasked_cells_equal_in_all_else(writer):
    writer.done(writer.cell(512, keep="hard", ratio=8.0), 30.0)
    same = writer.done(writer.cell(512), 31.0)
    writer.done(writer.cell(256), 99.0)
    writer.done(writer.cell(512, budget=Budget(examples=900_000)), 99.0)
    writer.done(writer.cell(512, optimizer=Adam(learning_rate=0.1)), 99.0)
    chosen = compositions(cells(writer.root, writer.study))
    unmasked = chosen.cells[chosen.cells["loss.pairs.keep"] == "all"]
    assert unmasked["id"].tolist() == [same.id]
    assert chosen.missing() == []


def test_composition_without_its_reference_says_so(writer):
    writer.done(writer.cell(512, keep="random", ratio=8.0), 30.0)
    missing = compositions(cells(writer.root, writer.study)).missing()
    assert missing == ["no record of the unmasked cell, seed 0"]


@pytest.mark.parametrize("image", ["cached", "vit"])
def test_a_study_without_such_cells_is_an_empty_panel(writer, image):
    writer.failed(writer.cell(16))
    (writer.folder(writer.cell(16)) / "cell.json").unlink()
    assert len(panel(writer, image).cells) == 0
    assert len(compositions(cells(writer.root, writer.study)).cells) == 0


def test_a_square_root_rule_is_named_as_one(writer):
    for size in (16, 64, 256):
        rate = 1e-2 * (size / 256) ** 0.5
        writer.batch_panel({size: 30.0}, {size: 30.0}, optimizer=Adam(learning_rate=rate))
    assert "learning rate 0.01 · sqrt(B / 256)" in title(panel(writer))


def test_the_seed_of_a_search_for_the_rate_leaves_the_rule_whole(writer):
    rule = {size: 1e-2 * (min(size, 256) / 256) ** 0.5 for size in (16, 64, 256, 1024)}
    searched = (2.5e-3, 5e-3, 1e-2, 2e-2)
    for size, own in rule.items():
        for seed, tried in ((0, (own,)), (1, (own,)), (100, {own, *searched})):
            for rate in tried:
                for loss in (Sigmoid(), Softmax()):
                    same = Adam(learning_rate=rate)
                    writer.done(writer.cell(size, seed=seed, loss=loss, optimizer=same), 30.0)
    chosen = panel(writer)
    assert rates(chosen.cells) == rule
    assert set(chosen.cells["seed"]) == {0, 1}
    assert "learning rate 0.01 · sqrt(min(B, 256) / 256)" in title(chosen)


def test_each_loss_may_have_its_own_rate(writer):
    rate = {"sigmoid": 1e-2, "softmax": 5e-3}
    for size in (16, 64):
        for cell in (writer.cell(size), writer.cell(size, loss=Softmax())):
            own = Adam(learning_rate=rate[cell.loss.kind])
            writer.done(dataclasses.replace(cell, optimizer=own), 30.0)
    chosen = panel(writer)
    assert len(chosen.cells) == 4
    assert "of sigmoid 0.01 throughout; of softmax 0.005 throughout" in title(chosen)


@pytest.mark.parametrize("unit", ["examples", "pairs"])
def test_matched_pairs_are_found_by_the_pairs_that_they_meet(writer, unit):
    base = writer.cell(512, budget=Budget(examples=512 * 40))
    hard = writer.cell(512, keep="hard", ratio=127.0, budget=base.budget)
    longer = dataclasses.replace(hard, budget=Budget(examples=512 * 160))
    if unit == "pairs":
        longer = dataclasses.replace(hard, budget=Budget(pairs=base.pairs_per_step * base.steps))
    assert longer.steps == 160
    other = dataclasses.replace(hard, budget=Budget(examples=512 * 80))
    fewer = writer.cell(512, keep="hard", ratio=31.0, budget=base.budget)
    for cell in (base, hard, fewer, longer, other):
        writer.done(cell, 30.0)
    table = cells(writer.root, writer.study)
    assert matched_pairs(table, compositions(table)).cells["id"].tolist() == [longer.id]


def test_rates_that_one_batch_size_was_tried_with_leave_the_rule_whole(writer):
    rule = {size: 1e-2 * (size / 256) ** 0.5 for size in (16, 64, 256, 1024)}
    for size, own in rule.items():
        for rate in (own, *((0.5 * own, 2 * own) if size == 256 else ())):
            for seed in (0, 1):
                for loss in (Sigmoid(), Softmax()):
                    same = Adam(learning_rate=rate)
                    writer.done(writer.cell(size, seed=seed, loss=loss, optimizer=same), 30.0)
    assert rates(panel(writer).cells) == rule
