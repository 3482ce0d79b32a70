"""Counts of false negatives, against a count pair by pair."""

import numpy as np
import pytest

from study.data.false_negatives import count_false_negatives, format_page
from study.data.formats.dataset import DataError
from study.data.formats.open_split import open_split
from study.data.order import indices
from study.data.sources import load_labels


def test_counts_are_those_of_all_pairs(small):
    reader, class_N = open_split(small, "train"), load_labels(small, "train")
    index_N = indices(np.arange(600), size=len(reader), seed=3)
    text_N = np.array([reader.text(i) for i in index_N.tolist()])
    same_class = same_caption = either = affected = 0
    for batch in (slice(0, 300), slice(300, 600)):
        is_other_BxB = ~np.eye(300, dtype=bool)
        classes_BxB = np.equal.outer(*[class_N[index_N[batch]]] * 2) & is_other_BxB
        captions_BxB = np.equal.outer(*[text_N[batch]] * 2) & is_other_BxB
        same_class += classes_BxB.sum()
        same_caption += captions_BxB.sum()
        either += (classes_BxB | captions_BxB).sum()
        affected += (classes_BxB | captions_BxB).any(1).sum()
    assert same_caption and same_class > same_caption
    (count,) = count_false_negatives(small, "train", [300], examples=600, seed=3)
    assert count.batches == 2
    np.testing.assert_allclose(
        [count.same_class, count.same_caption, count.either, count.affected, count.share],
        np.array([same_class, same_caption, either, affected, either / 299]) / 600,
    )


def test_a_batch_above_the_split_is_refused(small):
    with pytest.raises(DataError, match="fewer than a batch of 1000000"):
        count_false_negatives(small, "train", [1_000_000], examples=2)


def test_a_page_names_its_command_and_has_a_row_for_each_split_and_size(small):
    counts = {
        split: count_false_negatives(small, split, [8, 16], examples=64)
        for split in ("train", "val_font")
    }
    page = format_page(small.name, counts, examples=64, seed=0)
    assert f"study data false-negatives data/{small.name} --split train --split val_font" in page
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")]
    assert [row[0] for row in rows] == ["| batch size", "| 8", "| 16"] * 2
    assert rows[1][3] == f"{counts['train'][0].either:.3g}"
