"""How many requests to a bucket a look costs, as a real server counts them."""

from __future__ import annotations

from tests.count_requests import CELLS, looks


def test_a_look_costs_no_more_requests_than_it_needs(gcs):
    costs = looks(gcs)
    assert costs["a worker looks for a mark"] == {"read": 1}
    assert costs["a lease is renewed"] == {"write": 1}
    assert costs["a lease is released"] == {"write": 2}
    for reader in ("`status`", "a worker"):
        assert costs[f"{reader} looks at {CELLS} cells that wait"] == {"list": 1}
        for name in ("wait", "are done"):
            again = costs[f"{reader} looks at {CELLS} cells that {name}, again"]
            assert again == {"list": 1}
    assert costs[f"a worker looks at {CELLS} cells that are done"] == {"list": 1}
    assert costs[f"a worker looks at {CELLS} cells that run"] == {"list": 1}
    assert costs[f"a worker looks at {CELLS} cells that run, again"] == {"list": 1}
    assert costs[f"`status` looks at {CELLS} cells that are done"] == {"list": 1, "read": CELLS}
    # Who trains a cell, and the list and content of its rows.
    assert costs[f"`status` looks at {CELLS} cells that run"].total() <= 5 * CELLS + 1
    claim = costs["a worker looks and claims a cell"]
    assert claim["list"] == 1 and claim["write"] == 2 and claim["read"] == 4
