"""Our own study: what its sub-studies hold, what they share, and that they fit four hours."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict

import pytest

from study.config import CachedImage, Cell, Groups, Negatives, Sigmoid, ViT
from study.data.glyphs import scenes
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs import scaling_rules, scratch
from sweeps.grids.glyphs.all import STUDIES
from sweeps.grids.glyphs.data import SCENES, SCENES_DIM, SCENES_TOWER
from sweeps.grids.glyphs.examples_vs_pairs import STEPS
from sweeps.grids.glyphs.recipe import (
    LONG,
    LONGEST,
    LOSSES,
    MIDDLE,
    SEEDS,
    SHORT,
    glyphs_cell,
    tuned_rate,
)
from sweeps.registry import builtin_studies, load_study

CORES, HOURS = 2, 4


@pytest.fixture(scope="module")
def studies():
    return {name: load_study(name) for name in STUDIES}


def without_seed(cell: Cell) -> Cell:
    return dataclasses.replace(cell, seed=0)


def test_the_umbrella_is_every_sub_study_once(studies):
    whole = load_study("glyphs")
    assert {c.id for c in whole.cells} == {c.id for s in studies.values() for c in s.cells}
    assert set(STUDIES) == {n for n in builtin_studies() if n.startswith("glyphs-")}
    assert {s.group for s in studies.values()} == {whole.group} == {"glyphs"}
    assert len(whole.cells) < sum(len(s.cells) for s in studies.values())


def test_all_of_it_fits_four_hours_on_two_cores():
    whole = load_study("glyphs")
    assert sum(map(whole.seconds, whole.cells)) < CORES * HOURS * 3600


def test_every_cell_has_three_seeds_but_those_that_tune(studies):
    for name, study in studies.items():
        seeds = defaultdict(set)
        for cell in study.cells:
            seeds[without_seed(cell).id].add(cell.seed)
        expected = {glyphs.TUNING_SEED} if name.endswith("-lr") else set(SEEDS)
        assert set(map(frozenset, seeds.values())) == {frozenset(expected)}, name


def test_batch_size_crosses_losses_and_budgets_and_both_losses_see_the_same(studies):
    cells = studies["glyphs-batch-size"].cells
    points = Counter((c.batch_size, c.examples, c.loss.kind) for c in cells)
    for examples in (SHORT, MIDDLE, LONG, LONGEST):
        sizes = {b for b, n, _ in points if n == examples}
        assert sizes == {4**k for k in range(2, 7 if examples == LONGEST else 8)}
    assert {(b, n) for b, n, kind in points if kind == "sigmoid"} == {
        (b, n) for b, n, kind in points if kind == "softmax"
    }
    assert all(c.steps * c.batch_size == c.budget.examples for c in cells)  # nothing is cut off


def test_the_rate_is_the_tuned_one_in_every_study_but_those_that_vary_it(studies):
    vary = (
        "glyphs-lr",
        "glyphs-scratch-lr",
        "glyphs-pairs-lr",
        "glyphs-constant-rate",
        "glyphs-beta2",
        "glyphs-noise-causes",
    )
    for name, study in studies.items():
        if name not in vary:
            for cell in study.cells:
                if isinstance(cell.model.image, CachedImage):
                    tuned = tuned_rate(cell.batch_size, cell.loss, cell.examples)
                else:
                    tuned = scratch.RATES[cell.loss.kind][cell.batch_size]
                assert cell.optimizer.learning_rate == tuned


def test_each_tuned_rate_was_tried_and_lies_between_others(studies):
    tried = defaultdict(set)
    for cell in studies["glyphs-lr"].cells:
        tried[cell.loss, cell.batch_size, cell.examples].add(cell.optimizer.learning_rate)
    for (loss, batch_size, examples), rates in tried.items():
        assert len(rates) >= 3
        if batch_size in glyphs.RATES[examples][loss.kind].values:
            rate = tuned_rate(batch_size, loss, examples)
            assert rate in rates and min(rates) < rate < max(rates)


def test_from_scratch_each_rate_lies_between_others_that_were_tried(studies):
    tried = defaultdict(set)
    for c in studies["glyphs-scratch-lr"].cells:
        tried[c.loss.kind, c.batch_size].add(c.optimizer.learning_rate)
    for c in studies["glyphs-scratch"].cells:
        rates, own = tried[c.loss.kind, c.batch_size], c.optimizer.learning_rate
        assert own in rates and min(rates) < own < max(rates)
        assert c.steps >= 500


def test_one_rate_at_all_batch_sizes_beside_the_tuned_ones(studies):
    tuned = {c.id for c in studies["glyphs-batch-size"].cells}
    cells = studies["glyphs-constant-rate"].cells
    for loss in LOSSES:
        own = [c for c in cells if c.loss == loss]
        assert {c.optimizer.learning_rate for c in own} == {tuned_rate(256, loss)}
        assert {c.id for c in own if c.batch_size == 256} <= tuned


def test_rules_carry_settings_from_256_to_sizes_at_which_the_rate_was_tuned_too(studies):
    cells = [c for c in load_study("scaling-rules").cells if c.seed in SEEDS]
    batch = {c.id for c in studies["glyphs-batch-size"].cells}
    for (size, examples), loss in itertools.product(scaling_rules.POINTS, LOSSES):
        own = [c for c in cells if (c.batch_size, c.examples, c.loss) == (size, examples, loss)]
        plain = [c for c in own if c.optimizer.b2_half_life_examples is None]
        rates = {c.optimizer.learning_rate for c in plain}
        assert {tuned_rate(b, loss, examples=examples) for b in (size, 256)} <= rates
        assert {c.id for c in own} & batch
        at = dataclasses.replace(own[-1], batch_size=256)
        assert (at.b2, at.weight_decay) == pytest.approx((0.95, 1e-4), rel=1e-3)


def test_masks_have_five_ratios_and_matched_pairs_their_unmasked_reference(studies):
    cells = [c for c in studies["glyphs-composition"].cells if c.seed == 0]
    whole = {c.examples: c for c in cells if c.pairs.kind == "all"}
    masked = [c for c in cells if isinstance(c.pairs, Negatives)]
    base = whole[MIDDLE]
    ratios = {base.batch_size - 1} | {c.pairs.per_positive for c in masked}
    assert len(ratios) == 5
    longer = [c for c in masked if c.examples > MIDDLE]
    assert len(longer) == 1
    for cell in longer:
        assert cell.examples in whole
        pairs = cell.steps * cell.pairs.negatives(cell.batch_size)
        assert pairs == pytest.approx(base.steps * base.pairs.negatives(base.batch_size), rel=0.01)
    assert {c.pairs.keep for c in masked} == {"random", "hard", "easy"}


def test_noise_is_alike_for_both_losses_and_of_five_kinds_at_every_batch_size(studies):
    by_loss = defaultdict(set)
    shares = defaultdict(set)
    for cell in studies["glyphs-noise"].cells:
        c = cell.data.corruption
        by_loss[cell.loss.kind].add((cell.batch_size, c))
        if not c.is_identity:
            shares[cell.batch_size, c.resample_each_epoch].add((c.image, c.text, c.alignment))
            assert (c.window == cell.batch_size) == c.resample_each_epoch
    assert by_loss["sigmoid"] == by_loss["softmax"]
    fixed = {size: own for (size, redrawn), own in shares.items() if not redrawn}
    assert set(fixed) == {256, 1024, 4096}
    for own in fixed.values():
        assert len({tuple(bool(share) for share in one) for one in own}) == 5
    assert max(map(max, fixed[1024])) == 0.4 and len(fixed[1024]) == 15
    assert shares[256, True] < fixed[256]


def test_scenes_are_corrupted_as_glyphs_are_and_found_under_the_names_they_have(studies):
    assert (SCENES, SCENES_TOWER, SCENES_DIM) == (scenes.NAME, scenes.TOWER, scenes.DIM)
    cells = studies["glyphs-noise-scenes"].cells
    glyph = {c.data.corruption for c in studies["glyphs-noise-causes"].cells}
    for loss in LOSSES:
        own = [c for c in cells if c.loss == loss]
        assert {c.data.corruption for c in own} == glyph
        assert len(own) == len(glyph) * len(SEEDS)


def test_causes_of_noise_differ_from_its_cells_in_the_data_set_or_the_rate_alone(studies):
    ids = {c.id for c in studies["glyphs-noise"].cells}
    rates = Counter()
    for cell in studies["glyphs-noise-causes"].cells:
        times = cell.optimizer.learning_rate / tuned_rate(cell.batch_size, cell.loss)
        data = dataclasses.replace(cell.data, dataset="glyphs")
        same = glyphs_cell(batch_size=cell.batch_size, loss=cell.loss, seed=cell.seed, data=data)
        assert same.id in ids
        assert times == 1 or cell.data.dataset == "glyphs"
        resampled = cell.data.corruption.resample_each_epoch
        rates[cell.data.dataset, round(times, 6), cell.loss.kind, resampled] += 1
    assert all(n == rates[(*key[:2], "softmax", key[3])] for key, n in rates.items())
    assert {times for _, times, _, _ in rates} == {0.5, 1.0, 2.0}
    assert {dataset for dataset, _, _, _ in rates} == {"glyphs", "glyphs-1view"}


def test_the_map_has_two_arms_from_both_starts(studies):
    cells = [c for c in studies["glyphs-examples-vs-pairs"].cells if c.seed == 0]
    arms = {"examples": LONG, "steps": STEPS}
    for (total, value), start in itertools.product(arms.items(), (-10.0, "prior")):
        of_arm = [c for c in cells if getattr(c, total) == value and c.loss.b_init == start]
        points = {
            (c.batch_size, c.pairs.size if isinstance(c.pairs, Groups) else c.batch_size)
            for c in of_arm
        }
        assert len(points) == len(of_arm)
        sizes = {size for size, _ in points}
        assert max(sizes) == 4 ** (5 if total == "examples" else 6)
        # A slope along either axis takes two points.
        assert all(len({g for b, g in points if b == size}) > 1 for size in sizes)
        assert sum(len({b for b, g in points if g == group}) > 1 for group in (16, 64, 256)) == 3
    assert all(c.steps >= 1000 for c in cells)


def test_rates_of_groups_are_searched_off_the_diagonal_and_on_it(studies):
    cells = studies["glyphs-pairs-lr"].cells
    points = {(c.batch_size, getattr(c.pairs, "size", c.batch_size)) for c in cells}
    assert {b == g for b, g in points} == {True, False}
    rates = defaultdict(set)
    for c in cells:
        rates[c.batch_size, c.pairs, c.loss.b_init].add(c.optimizer.learning_rate)
    assert len(rates) == 2 * len(points) and min(map(len, rates.values())) >= 4


def test_bias_has_the_papers_rows_and_the_prior(studies):
    starts = {(c.loss.b_init, c.loss.t_init) for c in studies["glyphs-bias"].cells}
    table_4 = {(c.loss.b_init, c.loss.t_init) for c in load_study("table-4").cells}
    assert starts == table_4 | {("prior", 10.0)}


def test_the_pretrained_tower_differs_in_its_start_and_its_decay_alone(studies):
    cells = [c for c in studies["glyphs-pretrained"].cells if c.seed == 0]
    scratch, tuned, undecayed = cells
    assert scratch.model.init is None and tuned.model == undecayed.model
    assert tuned.optimizer.image.wd_mult == 1 and undecayed.optimizer.image.wd_mult == 0
    assert {e.kind for e in scratch.evals} >= {"zero_shot", "few_shot"}
    assert isinstance(scratch.model.image, ViT)


def test_beta2_differs_in_beta2_alone_with_and_without_a_change_of_the_data(studies):
    pairs = defaultdict(set)
    changes = defaultdict(set)
    for cell in studies["glyphs-beta2"].cells:
        assert cell.optimizer.clip_norm is None and cell.optimizer.warmup_percent is None
        same = dataclasses.replace(cell.optimizer, b2=0.95)
        pairs[dataclasses.replace(cell, optimizer=same).id].add(cell.optimizer.b2)
        until = cell.data.corruption.until_examples
        arm = (cell.loss.kind, cell.optimizer.kind, cell.batch_size)
        changes[arm].add(until and until / cell.examples)
    assert set(map(frozenset, pairs.values())) == {frozenset({0.95, 0.999})}
    assert {kinds[:2] for kinds in changes} == {
        (loss, optimizer) for loss in ("sigmoid", "softmax") for optimizer in ("adam", "adafactor")
    }
    assert len({size for *_, size in changes}) == 4
    for (loss, _, size), own in changes.items():
        assert own == ({None, 0.5} if loss == "sigmoid" and size in (32, 128) else {0.5})


def test_more_examples_pairs_or_blocks_are_estimated_to_take_longer():
    base = glyphs_cell(batch_size=256)
    small = glyphs_cell(batch_size=16)
    groups = glyphs_cell(batch_size=4096, loss=Sigmoid(pairs=Groups(size=16)))
    assert glyphs.seconds(glyphs_cell(batch_size=256, examples=LONG)) > glyphs.seconds(base)
    assert glyphs.seconds(glyphs_cell(batch_size=4096)) > glyphs.seconds(groups)
    assert glyphs.seconds(small) > glyphs.seconds(base)  # each step has its price
    assert glyphs.seconds(glyphs_cell(batch_size=256, model=scratch.SIGLIP)) > glyphs.seconds(base)
