"""How many requests to a bucket a look costs, as a real server counts them."""

from __future__ import annotations

from tests.count_requests import looks


def test_a_look_costs_no_more_requests_than_it_needs(gcs):
    costs = looks(gcs)
    assert costs["a process looks whether its cell is cancelled"] == {"read": 1}
    assert costs["`status` of a cell that is done"] == {"read": 2}
    assert costs["a lease is renewed"] == {"list": 1, "read": 1, "write": 1}
    # Where the age of an object matters, gcsfs asks for it in up to four.
    assert costs["a process looks whether a lease is live"].total() <= 6
    assert costs["`status` of a cell that waits"].total() <= 9
    assert costs["`status` of a cell that runs"].total() <= 11
