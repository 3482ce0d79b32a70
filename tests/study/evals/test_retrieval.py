"""Recall: ranks by hand, several texts for an image, ties, and no number."""

from __future__ import annotations

import numpy as np
import pytest

from study.evals import retrieval
from study.evals.retrieval import hits, ranks


def test_ranks_by_hand():
    """Image 0 prefers text 1; of its own texts 0 and 2 the better is 2, in third place."""
    zimg = np.array([[1.0, 0.0], [0.0, 1.0]])
    ztxt = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.2], [0.7, 0.0]])
    image = np.array([0, 1, 0, 1])
    # similarities of image 0: .1 .9 .5 .7; of image 1: .9 .1 .2 .0
    np.testing.assert_array_equal(ranks(zimg, ztxt, np.arange(2), image), [2, 2])
    # each text: whether its own image is the nearer one
    np.testing.assert_array_equal(ranks(ztxt, zimg, image, np.arange(2)), [1, 1, 0, 1])
    got = hits(zimg, ztxt, image)
    assert {key: float(found.mean()) for key, found in got.items()} == {
        "image_to_text_r1": 0,
        "image_to_text_r5": 1,
        "image_to_text_r10": 1,
        "text_to_image_r1": 0.25,
        "text_to_image_r5": 1,
        "text_to_image_r10": 1,
    }


def test_ranks_are_places_in_the_sorted_list(monkeypatch):
    rng = np.random.default_rng(0)
    zimg, ztxt = rng.normal(size=(40, 8)), rng.normal(size=(97, 8))
    image = np.concatenate([np.arange(40), rng.integers(0, 40, 57)])
    order = np.argsort(-(zimg @ ztxt.T), axis=1, kind="stable")
    want = [(image[order[n]] == n).argmax() for n in range(40)]
    np.testing.assert_array_equal(ranks(zimg, ztxt, np.arange(40), image), want)
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    np.testing.assert_array_equal(ranks(zimg, ztxt, np.arange(40), image), want)


def test_equal_embeddings_find_only_what_stands_first():
    """A collapsed model is no good: of twelve equal texts image k meets its own in place k."""
    ones = np.ones((12, 3))
    np.testing.assert_array_equal(ranks(ones, ones, np.arange(12), np.arange(12)), np.arange(12))
    assert hits(ones, ones, np.arange(12))["image_to_text_r10"].sum() == 10


@pytest.mark.parametrize("which", [0, 1])
def test_no_number_finds_nothing(which):
    z = [np.eye(12), np.eye(12)]
    z[which] = np.full((12, 12), np.nan)
    assert not any(found.any() for found in hits(*z, np.arange(12)).values())


def test_an_image_without_a_text_is_in_the_gallery_and_no_query():
    zimg = np.eye(3)
    ztxt = np.array([[0.1, 0.0, 0.9], [0.0, 1.0, 0.0]])  # of images 0 and 1
    found = hits(zimg, ztxt, np.array([0, 1]))
    assert found["image_to_text_r1"].tolist() == [True, True]
    assert found["text_to_image_r1"].tolist() == [False, True]  # image 2 is nearer to text 0
