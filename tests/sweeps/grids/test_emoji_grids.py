"""The studies on emoji-36."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from study.config import CachedImage, MultilingualRetrieval, ViT, replace
from study.data.emoji.write import ARTIST_OF, IMAGES_OF
from sweeps.grids.emoji import vocabulary
from sweeps.grids.emoji.all import STUDIES
from sweeps.grids.emoji.recipe import LONG
from sweeps.registry import builtin_studies, load_study

CELLS = {name: load_study(name).cells for name in STUDIES}
IN_36_LANGUAGES = [name for name in STUDIES if name not in ("emoji-lr", "emoji-same-caption")]


@pytest.mark.parametrize("name", IN_36_LANGUAGES)
def test_all_cells_of_a_budget_see_equally_many_examples_of_splits_that_exist(name):
    for cell in CELLS[name]:
        assert cell.steps * cell.batch_size == cell.budget.examples
        assert cell.data.split in IMAGES_OF
        splits = {e.split for e in cell.evals if isinstance(e, MultilingualRetrieval)}
        assert splits == {"test_artist", "shift_artist", "test_emoji"} <= {*ARTIST_OF, "test_emoji"}


def test_languages_are_compared_at_equal_batches_and_seeds():
    by_split = Counter(
        (cell.data.split, cell.batch_size, cell.seed)
        for cell in CELLS["emoji-multilingual"]
        if cell.budget.examples == LONG and cell.batch_size <= 4096
    )
    assert set(by_split.values()) == {1} and len(by_split) == 3 * 3 * 3
    assert {c for c in CELLS["emoji-multilingual"] if c.data.split == "train"} <= {
        *CELLS["emoji-batch-size"]
    }


def test_cells_that_have_been_recorded_keep_their_ids():
    ids = {cell.id for cell in CELLS["emoji-batch-size"]}
    assert {"b16384-sigmoid-s0-2eb43c26", "b16384-softmax-s0-ba44b811"} <= ids


@pytest.mark.parametrize(
    ("name", "field"),
    [("emoji-bottleneck", "model.text.bottleneck"), ("emoji-vocabulary", "data.tokenizer")],
)
def test_one_field_differs_and_one_cell_of_each_seed_is_in_the_study_of_batch_sizes(name, field):
    shared = {cell.id for cell in CELLS["emoji-batch-size"]}
    alike = defaultdict(list)
    for cell in CELLS[name]:
        alike[replace(cell, field, None)].append(cell)
    assert len(alike) == len({cell.seed for cell in CELLS[name]}) == 3
    for plain, cells in alike.items():
        assert plain.id in shared and plain in cells
        assert [cell.id in shared for cell in cells].count(True) == 1 < len(cells)


def test_the_tokenizers_that_cells_name_are_those_that_prepare_trains(monkeypatch):
    from study.interop import emoji

    trained = []
    monkeypatch.setattr(emoji, "prepare", lambda root, progress: root)
    monkeypatch.setattr(
        vocabulary, "train_tokenizers", lambda _, sizes, progress: trained.extend(sizes)
    )
    vocabulary.prepare("data")
    named = {cell.data.tokenizer for cell in load_study("emoji").cells} - {None}
    assert named == {vocabulary.file_name(size) for size in trained}


def test_a_fixed_temperature_differs_in_its_start_and_its_freezing_alone():
    learned, fixed = (
        [c for c in CELLS["emoji-temperature"] if c.optimizer.loss_scalars.frozen is frozen]
        for frozen in (False, True)
    )
    assert {c.id for c in learned if c.data.tokenizer is None} < {
        c.id for c in CELLS["emoji-batch-size"]
    }
    free = [replace(cell, "optimizer.loss_scalars.frozen", False) for cell in fixed]
    assert {replace(cell, "loss.t_init", 10.0) for cell in free} == set(learned)
    assert len(fixed) == len(learned) == 3 * 2 * 2


def test_each_cell_from_scratch_has_one_with_the_frozen_tower_beside_it():
    towers = defaultdict(set)
    for cell in CELLS["emoji-scratch"]:
        frozen = isinstance(cell.model.image, CachedImage)
        towers[cell.data.split, cell.batch_size, cell.seed, cell.examples].add(frozen)
    assert set(map(frozenset, towers.values())) == {frozenset({True, False})}
    recorded = {cell.id for cell in CELLS["emoji-multilingual"]}
    assert {
        isinstance(c.model.image, CachedImage) == (c.id in recorded) for c in CELLS["emoji-scratch"]
    } == {True}


def test_a_tower_from_scratch_is_estimated_to_take_longer():
    study = load_study("emoji-scratch")
    times = {(isinstance(c.model.image, ViT), c.batch_size): study.seconds(c) for c in study.cells}
    for scratch, batch_size in times:
        assert not scratch or times[True, batch_size] > times[False, batch_size] + 30


def test_emoji_has_all_cells_of_its_grids_each_once():
    assert {name for name in builtin_studies() if name.startswith("emoji-")} == set(STUDIES)
    study = load_study("emoji")
    assert {cell.id for cell in study.cells} == {c.id for cells in CELLS.values() for c in cells}
    assert study.prepare == "sweeps.grids.emoji.vocabulary:prepare"
    assert {load_study(name).group for name in STUDIES} == {study.group}


def test_false_negatives_are_compared_at_equal_batches_seeds_and_examples():
    cells = load_study("emoji-same-caption").cells
    multilingual = {cell.id for cell in load_study("emoji-multilingual").cells}
    ways = Counter((c.loss.same_caption, c.loss.same_by, c.id in multilingual) for c in cells)
    assert ways == {
        ("negative", "caption", True): 9,
        ("masked", "caption", False): 9,
        ("positive", "caption", False): 9,
        ("masked", "class", False): 9,
    }
    assert len({(c.batch_size, c.seed, c.loss) for c in cells}) == len(cells)
    assert all(any(e.kind == "zero_shot" for e in cell.evals) for cell in cells)
