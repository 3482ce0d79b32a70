"""The time left: from what cells took, and held against whole runs played again from records."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import json
from collections import defaultdict
from pathlib import Path

import pytest

from analysis.records.frame import open_records
from study.config import Budget, Cell, Execution
from study.records.metrics_log import CellProgress, _rate
from sweeps.cli.recorded import held_cells
from sweeps.registry import load_study
from sweeps.runner.cell_status import CellStatus
from sweeps.runner.claims import in_order, ranks
from sweeps.runner.remaining import Left, Observed, Remaining, seconds_left
from sweeps.study import Study

SNAPSHOT = "results/glyphs/snapshot"
WORKERS = 2


# --- what one answer rests on ---------------------------------------------------------------------


def left(estimate: float, kind: str = "a", **more) -> Left:
    return Left(kind=kind, estimate=estimate, **more)


def took(estimate: float, train: float, kind: str = "a", **more) -> Observed:
    """A cell that ended, and all but trained."""
    return Observed(
        kind=kind, estimate=estimate, train=train, **{"rest": 0.0, "settled": True} | more
    )


def test_nothing_is_said_without_evidence():
    assert seconds_left([left(10)], [], workers=2) is None
    assert seconds_left([left(10)], [took(10, 5)], workers=0) is None
    assert seconds_left([], [], workers=2) == 0


def test_the_first_cells_of_all_workers_are_no_evidence_unless_they_mostly_trained():
    """They start up and compile for all that follow."""
    first = [took(10, 5, compile=9.0, rest=30.0, end=k, settled=False) for k in range(2)]
    assert seconds_left([left(10)], first, workers=2) is None
    third = took(10, 5, compile=1.0, rest=2.0, end=2.0, settled=False)
    assert seconds_left([left(10)], [third, *first], workers=2) == 5 + 2
    running = Observed(kind="b", estimate=100, train=50, settled=True)
    assert seconds_left([left(10)], [running], workers=2) == 5


def test_runs_whose_batch_size_grows_have_an_estimate():
    """The schedule of each part spans the whole run, and may not end before the part does."""
    study = load_study("batch-warmup")
    cell = next(cell for cell in study.cells if cell.branch)
    pending = CellStatus(
        cell=cell, folder=Path(), state="pending", progress=CellProgress(), done={}
    )
    assert Remaining(study).seconds([pending]) is None


def test_an_estimate_is_scaled_by_what_its_kind_took():
    observed = [took(10, 5), took(10, 40, "b")]
    assert seconds_left([left(20), left(20, "b")], observed, workers=1) == 10 + 80
    assert seconds_left([left(20, "c")], observed, workers=1) == 20 * (45 / 20)


def test_a_kind_is_compiled_once():
    observed = [took(10, 10, compile=8.0, end=0.0), took(10, 10, compile=1.0, end=1.0)]
    assert seconds_left([left(10)] * 2, observed, workers=1) == 10 + 10
    assert seconds_left([left(10, "b")] * 2, observed, workers=1) == 10 + 8 + 10
    paced = left(10, "b", seconds=4.0)
    assert seconds_left([left(10, "b"), paced], observed, workers=1) == 10 + 4


def test_one_cell_that_stalled_speaks_neither_for_its_kind_nor_for_others():
    observed = [took(10, 5), took(10, 600), took(10, 5)]
    assert seconds_left([left(20)], observed, workers=1) == 10
    assert seconds_left([left(20, "b")], observed, workers=1) == 10


def test_workers_share_the_cells_but_not_the_longest():
    observed = [took(1, 1)]
    assert seconds_left([left(4)] * 6, observed, workers=3) == 8
    assert seconds_left([left(40), left(4)], observed, workers=3) == 40


def test_a_running_cell_is_judged_by_its_own_pace_else_by_what_it_has_spent():
    observed = [took(1, 2)]
    assert seconds_left([left(10, seconds=3.0)], observed, workers=1) == 3
    assert seconds_left([left(10, spent=5.0)], observed, workers=1) == 15
    assert seconds_left([left(10, spent=50.0)], observed, workers=1) == 0


def test_a_running_cell_has_the_evaluation_ahead_of_it_that_others_had():
    first = took(10, 10, rest=30.0, open=24.0)  # which wrote the data set
    running = left(10, seconds=3.0, trained=7.0, spent=8.0)
    assert seconds_left([running], [first], workers=1) == 3 + (6 - 1)
    late = dataclasses.replace(running, spent=20.0)
    assert seconds_left([late, left(10)], [first], workers=1) == 3 + 10 + 6


def entry(
    cell: Cell, state: str, *, seen: int = 0, rate: float | None = None, **more
) -> CellStatus:
    progress = CellProgress(
        examples_seen=seen, attempts=more.pop("attempts", 1), examples_per_second=rate
    )
    total = more.pop("total", None)
    done = {} if total is None else {"seconds": {"total": total, "train": total}}
    return CellStatus(cell=cell, folder=Path(), state=state, progress=progress, done=done, **more)


def cells(*steps: int, batch_size: int = 16) -> list[Cell]:
    return [
        Cell(batch_size=batch_size, seed=i, budget=Budget(steps=n)) for i, n in enumerate(steps)
    ]


def study(*cells: Cell, **more) -> Study:
    return Study(name="s", question="?", cells=cells, seconds=lambda c: float(c.steps), **more)


def test_a_finished_cell_scales_those_that_wait():
    one, two, three = cells(100, 300, 200)
    of = Remaining(study(one, two, three))
    entries = [
        entry(one, "done", total=50.0),
        entry(two, "interrupted", seen=100 * 16),
        entry(three, "pending"),
    ]
    assert of.seconds(entries, workers={"local": 1}) == 100 + 100
    assert of.seconds(entries) is None  # nobody works


def test_a_long_running_cell_tells_its_kind_before_any_has_ended():
    one, two = cells(100, 100)
    of = Remaining(study(one, two))
    entries = [entry(one, "running", seen=50 * 16, rate=16.0), entry(two, "pending")]
    assert of.seconds(entries, spent={one.id: 60.0}) == 50 + 100  # 50 s of these it trained
    assert of.seconds(entries, spent={one.id: 70.0}) is None
    assert of.seconds(entries) == 50 + 100  # where nobody knows when it began


def test_what_ended_in_a_second_try_or_failed_is_no_evidence_and_failures_are_not_waited_for():
    one, two, three, four = cells(100, 100, 100, 100)
    of = Remaining(study(one, two, three, four))
    entries = [
        entry(one, "done", total=1.0, attempts=2),
        entry(two, "diverged", total=1.0),
        entry(three, "failed"),
        entry(four, "pending"),
    ]
    assert of.seconds(entries, workers={"local": 1}) is None
    entries[0] = entry(one, "done", total=50.0)
    assert of.seconds(entries, workers={"local": 1}) == 50


def test_each_kind_of_machine_has_its_own_pace_and_workers():
    here, fast, slow = cells(10, 100, 400)
    on = {fast.id: "v4-8", slow.id: "v4-8"}
    of = Remaining(study(here, fast, slow, execution=lambda c: Execution(slice=on.get(c.id))))
    entries = [
        entry(here, "running", seen=16, rate=16.0),
        entry(fast, "done", total=7.0),
        entry(slow, "pending"),
    ]
    assert of.seconds(entries, workers={"local": 1, "v4-8": 1}) == pytest.approx(28)
    assert of.seconds(entries, workers={"local": 1}) is None  # no slice is up


# --- whole runs, played again ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """What one cell took: `seconds` as DONE.json has them, examples by seconds since it began."""

    seconds: dict[str, float]
    rows: list[tuple[float, int]]

    def later(self, seconds: float) -> Recorded:
        """The same cell, whose program took so much longer to compile."""
        longer = {k: self.seconds[k] + seconds for k in ("total", "compile")}
        rows = [(at + seconds, seen) for at, seen in self.rows]
        return Recorded(seconds=self.seconds | longer, rows=rows)


class Run:
    """A run of a study: what its driver sees at any moment."""

    def __init__(self, of: Study, taken: dict[str, Recorded], begin: dict[str, float]):
        self.study, self._taken, self._begin = of, taken, begin
        self.seconds = max(begin[k] + r.seconds["total"] for k, r in taken.items())

    def hold_to_30_percent(self) -> None:
        """From a tenth of it on; later nothing is late, for little is left."""
        of = Remaining(self.study)
        for percent in range(10, 80, 5):
            now = self.seconds * percent / 100
            entries = [self._entry(cell, now) for cell in self.study.cells]
            running = [e.cell.id for e in entries if e.state == "running"]
            spent = {cell_id: now - self._begin[cell_id] for cell_id in running}
            said = of.seconds(entries, workers={"local": WORKERS}, spent=spent)
            if said is None:
                assert sum(e.finished for e in entries) <= WORKERS
            else:
                assert said == pytest.approx(self.seconds - now, rel=0.3), f"at {percent} %"

    def _entry(self, cell: Cell, now: float) -> CellStatus:
        begin, taken = self._begin[cell.id], self._taken[cell.id]
        end = begin + taken.seconds["total"]
        if now >= end:
            progress = CellProgress(examples_seen=cell.examples, attempts=1, time=end)
            done = {"seconds": taken.seconds}
            return CellStatus(cell=cell, folder=Path(), state="done", progress=progress, done=done)
        if now < begin:
            return entry(cell, "pending", attempts=0)
        rows = [{"time": at, "examples_seen": seen} for at, seen in taken.rows if at <= now - begin]
        return entry(
            cell, "running", seen=rows[-1]["examples_seen"] if rows else 0, rate=_rate(rows)
        )


def test_a_run_of_the_demo_as_it_was():
    """26 cells by two workers of a machine that had much other work; the clock is its own."""
    recorded = json.loads(Path(__file__).with_name("demo_run.json").read_text())
    taken = {
        cell_id: Recorded(
            seconds=one["seconds"], rows=[(at - one["begin"], n) for at, n in one["rows"]]
        )
        for cell_id, one in recorded.items()
    }
    demo = load_study("demo")
    chosen = tuple(c for c in demo.cells if c.id in recorded)
    assert len(chosen) == len(recorded)
    begin = {cell_id: one["begin"] for cell_id, one in recorded.items()}
    Run(dataclasses.replace(demo, cells=chosen), taken, begin).hold_to_30_percent()


@functools.cache
def snapshot() -> dict[str, Recorded]:
    """The recorded cells of our study, by id."""
    found = {}
    for record in open_records(SNAPSHOT).records("glyphs"):
        seconds = record.done["seconds"]
        began = record.done["time"] - seconds["total"]
        rows = [(row["time"] - began, row["examples_seen"]) for row in record.read_rows()]
        found[record.id] = Recorded(seconds=seconds, rows=rows)
    return found


def replay(name: str) -> Run:
    """A study run again by two workers in simulated time, each cell as it was recorded.

    Records were made while the machine had other work, and cells that differ in their seed alone
    took up to several times as long. Each takes what the median of them took, but compiles for as
    long as itself did: so the run is one of a machine at a steady speed.
    """
    known = load_study(name)
    held = held_cells(known, SNAPSHOT)
    recorded = tuple(held.values())
    known = dataclasses.replace(known, cells=recorded, matched=())
    twins = defaultdict(list)
    for cell in recorded:
        twins[dataclasses.replace(cell, seed=0)].append(snapshot()[cell.id])
    taken = {}
    for cell in recorded:
        alike = sorted(twins[dataclasses.replace(cell, seed=0)], key=_without_compiling)
        median = alike[(len(alike) - 1) // 2]
        own = snapshot()[cell.id].seconds["compile"]
        taken[cell.id] = median.later(own - median.seconds["compile"])
    begin, free = {}, [0.0] * WORKERS
    for waiting in in_order([entry(cell, "pending") for cell in recorded], ranks(known)):
        begin[waiting.cell.id] = heapq.heappop(free)
        heapq.heappush(free, begin[waiting.cell.id] + taken[waiting.cell.id].seconds["total"])
    return Run(known, taken, begin)


def _without_compiling(recorded: Recorded) -> float:
    return recorded.seconds["total"] - recorded.seconds["compile"]


@pytest.mark.parametrize(
    "name",
    [
        "glyphs",
        "glyphs-batch-size",
        "glyphs-beta2",
        "glyphs-bias",
        "glyphs-composition",
        "glyphs-examples-vs-pairs",
        "glyphs-lr",
        "glyphs-noise",
        "glyphs-noise-causes",
        "glyphs-pretrained",
        "glyphs-scratch",
    ],
)
def test_a_run_of_our_study_at_a_steady_speed(name):
    replay(name).hold_to_30_percent()
