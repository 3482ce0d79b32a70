"""`study cluster fake` replaces slices that lost a host, also if a new host does not start."""

from __future__ import annotations

import itertools

from sweeps.ray_cluster.fake_tpu import FakeSlices


class Host:
    def __init__(self):
        self.dead = False

    def dead_processes(self) -> bool:
        return self.dead


class Cluster:
    """Instead of Ray's: the `failing`-th start of a host fails, as on a machine that is busy."""

    def __init__(self, failing: int):
        self._failing, self._starts = failing, itertools.count(1)

    def add_node(self, **settings) -> Host:
        if next(self._starts) == self._failing:
            raise Exception("The current node timed out during startup.")
        return Host()

    def remove_node(self, node, allow_graceful) -> None:
        del node, allow_graceful


def test_a_slice_whose_host_does_not_start_is_replaced_at_the_next_look():
    slices = object.__new__(FakeSlices)
    slices.slices, slices._count = {}, 0
    slices._cluster = Cluster(failing=4)
    first = slices.add("v4-16")
    assert list(slices.replace()) == []
    first.hosts[0].dead = True
    assert list(slices.replace()) == []  # the second of its hosts does not start
    assert [old for old, _ in slices.replace()] == ["v4-16-1"]
    assert list(slices.slices) == ["v4-16-2"]
    assert list(slices.replace()) == []
