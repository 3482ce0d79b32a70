"""The studies on emoji-36."""

from __future__ import annotations

from collections import Counter

import pytest

from study.config import MultilingualRetrieval
from study.data.emoji.write import ARTIST_OF, IMAGES_OF
from sweeps.registry import load_study


@pytest.mark.parametrize("name", ["emoji-batch-size", "emoji-multilingual"])
def test_all_cells_of_a_budget_see_equally_many_examples_of_splits_that_exist(name):
    study = load_study(name)
    for cell in study.cells:
        assert cell.steps * cell.batch_size == cell.budget.examples
        assert cell.data.split in IMAGES_OF
        splits = {e.split for e in cell.evals if isinstance(e, MultilingualRetrieval)}
        assert splits == {"test_artist", "shift_artist", "test_emoji"} <= {*ARTIST_OF, "test_emoji"}


def test_languages_are_compared_at_equal_batches_and_seeds():
    cells = load_study("emoji-multilingual").cells
    by_split = Counter((cell.data.split, cell.batch_size, cell.seed) for cell in cells)
    assert set(by_split.values()) == {1} and len(by_split) == 3 * 4 * 3
