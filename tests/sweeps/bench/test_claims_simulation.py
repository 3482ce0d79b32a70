"""Simulated workers share a study by the claim code itself, in virtual time."""

from __future__ import annotations

import pytest

from study.config import Budget, Cell
from sweeps.bench.claims_simulation import LATENCY_S, RESTART_S, MemoryStore, simulate
from sweeps.bench.timeline import Timeline
from sweeps.runner.claims import Rank
from sweeps.study import StudyError

CELLS = [Cell(batch_size=16, seed=seed, budget=Budget(examples=64)) for seed in range(12)]
SECONDS = {cell.id: 100.0 * (1 + cell.seed % 3) for cell in CELLS}
RANKS = {id: Rank(seconds=seconds) for id, seconds in SECONDS.items()}
MACHINES = dict.fromkeys(SECONDS, "v4-32")


def test_functions_take_turns_in_virtual_time():
    timeline = Timeline()
    events: list[tuple[float, str]] = []

    def tick(name: str, every: float) -> None:
        for _ in range(2):
            timeline.sleep(every)
            events.append((timeline.now, name))

    timeline.run([lambda: tick("a", 2.0), lambda: tick("b", 3.0)])
    assert events == [(2.0, "a"), (3.0, "b"), (4.0, "a"), (6.0, "b")]


def test_an_error_ends_the_simulation():
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Timeline().run([fail])


def test_of_two_that_swap_the_same_version_one_succeeds():
    timeline = Timeline()
    store, swapped = MemoryStore(timeline), []

    def take(content: bytes) -> None:
        swapped.append(store.swap("cell", "lease.json", content, None))

    timeline.run([lambda: take(b"a"), lambda: take(b"b")])
    assert [version is None for version in swapped] == [False, True]
    assert store.read_many([]) == {} and store.lost_claims == 1
    assert store.requests["write"] == 2


def test_workers_finish_all_cells_close_to_the_bound():
    result = simulate(CELLS, SECONDS, RANKS, MACHINES, {"v4-32": 4})
    assert result.bound == 600.0
    assert 600.0 < result.seconds < 600.0 + 300 * LATENCY_S
    assert result.taken_twice == result.deaths == 0
    assert sum(result.cells_per_worker) <= 12 and result.cells_per_worker[0] >= 2
    assert result == simulate(CELLS, SECONDS, RANKS, MACHINES, {"v4-32": 4})


def test_cells_of_dead_workers_are_taken_over_and_none_is_trained_twice():
    result = simulate(CELLS, SECONDS, RANKS, MACHINES, {"v4-32": 4}, lifetime_s=1500.0)
    assert result.deaths > 0
    assert result.taken_twice == result.failed == 0
    assert result.seconds > result.bound + RESTART_S


def test_a_cell_without_workers_is_bad_input():
    with pytest.raises(StudyError, match="the pool has no v4-32"):
        simulate(CELLS, SECONDS, RANKS, MACHINES, {"v4-8": 1})
