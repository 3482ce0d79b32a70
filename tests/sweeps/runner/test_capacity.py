"""What may start where: whole slices only, each kind for itself, and no slice twice."""

from __future__ import annotations

import dataclasses

import pytest

from study.config import Budget, Cell, Data, Execution
from study.config.hardware import HardwareError, get_slice
from sweeps.doctor.ray import check_placement
from sweeps.planning.plan import estimate_seconds
from sweeps.registry import load_study
from sweeps.runner import cell_status as ledger
from sweeps.runner.autoscale import bundles, short
from sweeps.runner.capacity import LOCAL, Pool, census, kind_of, steady
from sweeps.runner.job_queue import Queue, admitted, in_order, priorities
from sweeps.runner.placing import caps, kinds
from sweeps.runner.simulate import _nodes, simulate
from sweeps.selection import select
from sweeps.study import Study, StudyError


def study(machines: list[str | None], **more) -> Study:
    """A cell for each machine, the later the longer."""
    cells = tuple(
        Cell(batch_size=16, seed=0, budget=Budget(steps=10 + i)) for i in range(len(machines))
    )
    by_id = {c.id: m for c, m in zip(cells, machines, strict=True)}
    return Study(
        name="s",
        question="?",
        cells=cells,
        execution=lambda cell: Execution(slice=by_id[cell.id], **more),
    )


def test_a_slice_counts_when_all_its_hosts_are_there_idle_and_staying():
    nodes = _nodes("v4-16", 2) + _nodes("v4-8", 1)
    assert census("v4-16", nodes, {}).whole == 2
    busy = {nodes[1]["NodeID"]: {"CPU": 1.0}}
    assert vars(census("v4-16", nodes, busy)) == {"whole": 2, "idle": 1}
    assert census("v4-16", nodes, {}, draining={nodes[0]["NodeID"]}).whole == 1
    assert census("v4-16", nodes[1:], {}).whole == 1
    assert census("v4-16x2", nodes, {}).whole == 1
    assert census("v4-8", nodes, {}).whole == 1  # not the hosts of larger slices


def test_gpus_count_by_the_host():
    resources = {"GPU": 8.0, "accelerator_type:H100": 1.0}
    nodes = [{"NodeID": str(i), "Alive": True, "Resources": resources} for i in range(2)]
    taken = {"0": {"GPU": 3.0}}
    assert vars(census("gpu:h100", nodes, taken)) == {"whole": 16, "idle": 11}
    assert vars(census("gpu:h100x8", nodes, taken)) == {"whole": 2, "idle": 1}
    assert census("gpu:h200", nodes, {}).whole == 0


def test_hosts_of_cpus_are_those_without_accelerators_and_are_taken_whole():
    host = {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {}}
    nodes = [host | {"NodeID": str(i)} for i in range(4)]
    others = [
        *_nodes("v4-16", 1),
        {"NodeID": "g", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"NodeID": "head", "Alive": True, "Resources": {}, "Labels": {}},
    ]
    assert vars(census("cpux2", nodes + others, {})) == {"whole": 2, "idle": 2}
    assert vars(census("cpux2", nodes, {"0": {"CPU": 3.0}})) == {"whole": 2, "idle": 1}
    assert census("cpux5", nodes + others, {}).whole == 0
    assert (kind_of("cpux2"), kind_of("cpux1"), kind_of("cpu")) == ("cpux2", LOCAL, LOCAL)
    with pytest.raises(HardwareError, match="hosts of CPUs as in cpux2"):
        kind_of("cpu:2")


def test_machines_are_asked_for_where_a_cell_waits_and_as_many_as_may_be_used(tmp_path):
    of = study(["v4-16", "v4-16", "v4-16x2", "v4-8", "gpu:h100", None])
    pool = Pool(local=1, caps={"v4-8": 1})
    waiting = queue(of, tmp_path)
    pool.look(set(kinds(of).values()), _nodes("v4-16", 1), {})
    assert short(waiting, pool) == {"v4-16": 1, "v4-16x2": 1, "v4-8": 1, "gpu:h100": 1}
    pool.running["v4-16"] = pool.running["v4-8"] = 1
    assert short(waiting, pool) == {"v4-16": 2, "v4-16x2": 1, "gpu:h100": 1}
    gpu = {"NodeID": "g", "Alive": True, "Resources": {"GPU": 1.0, "accelerator_type:H100": 1.0}}
    pool.look(set(kinds(of).values()), [gpu], {"g": {}})
    assert "gpu:h100" not in short(waiting, pool)  # it is taken, and whoever has it is waited for
    assert bundles("v5e-16x2") == [{"TPU-v5litepod-16-head": 1.0}] * 2
    assert bundles("cpux2") == [{"CPU": 1.0}] * 2


def test_room_counts_our_own_cells_before_ray_shows_them():
    pool = Pool(local=2, caps={"v4-16": 2}, at_once=4)
    pool.look(["v4-16", "v4-16x2"], _nodes("v4-16", 3), {})
    assert (pool.room("v4-16"), pool.room("v4-16x2"), pool.room(LOCAL)) == (2, 1, 2)
    pool.running["v4-16"] = 2
    assert (pool.room("v4-16"), pool.room("v4-16x2"), pool.room(LOCAL)) == (0, 0, 2)
    pool.running[LOCAL] = 2
    pool.running["v4-16"] = 1
    assert pool.room("v4-16") == 1
    pool.running["v4-8"] = 1
    assert pool.room("v4-16") == 0  # four at once


def queue(of: Study, tmp_path, **more) -> Queue:
    return Queue(ledger.read(of, tmp_path), backoff=0, kinds=kinds(of), **more)


def test_a_kind_that_is_taken_holds_up_no_other_and_is_not_overtaken(tmp_path):
    of = study(["v4-8", "v4-16", "v4-16x2"])  # the longest, of two slices, comes first
    pool = Pool(local=1, caps={})
    pool.look(["v4-8", "v4-16", "v4-16x2"], _nodes("v4-16", 1) + _nodes("v4-8", 1), {})
    assert [job.kind for job in admitted(queue(of, tmp_path), pool, 0.0)] == ["v4-8"]


def test_priority_goes_before_length_and_first_before_priority(tmp_path):
    of = study([None, None, None])
    entries = ledger.read(of, tmp_path)
    short, middle, long = (c.id for c in of.cells)
    assert [e.cell.id for e in in_order(entries)] == [long, middle, short]
    execution = lambda cell: Execution(priority=int(cell.id == middle))
    ranked = Study(name="s", question="?", cells=of.cells, execution=execution)
    order = in_order(entries, priorities(ranked, [short]))
    assert [e.cell.id for e in order] == [short, middle, long]


def test_machines_that_ray_cannot_reserve_are_refused_before_anything_starts():
    assert set(kinds(study([None, "cpu", "v4-32"])).values()) == {LOCAL, "v4-32"}
    with pytest.raises(StudyError, match="one-host slices"):
        kinds(study(["v4-8x2"]))
    assert kind_of("v5litepod-16") == "v5e-16"


def test_max_parallel_is_by_kind_or_of_all():
    assert caps(["v4-32=2", "local=3", "9"]) == ({"v4-32": 2, "local": 3}, 9)
    for text in ("v4-32", "v4-32=0", "v4-33=1", "=2"):
        with pytest.raises(StudyError, match="--max-parallel"):
            caps([text])


def test_a_doctor_says_which_cells_find_no_slice_and_why():
    wanted = {"a": "v4-16", "b": "v4-8", "c": "v4-16x2", "d": "v6e-16", "e": LOCAL, "f": "cpux2"}
    nodes = _nodes("v4-16", 1) + _nodes("v4-8", 1)[:1]
    said = {c.name: c.text for c in check_placement(wanted, nodes, {}, ()) if c.verdict == "fail"}
    assert sorted(said) == ["cpux2", "v4-16x2", "v6e-16"]
    assert "only 0 of 2 CPU hosts" in said["cpux2"]
    assert "1 cells will wait for one (d)" in said["v6e-16"]
    assert "1 of the 2 slices" in said["v4-16x2"]
    assert "it has v4-16, v4-8" in said["v6e-16"]
    broken = {
        c.name: c.text for c in check_placement(wanted, nodes[1:], {}, ()) if c.verdict == "fail"
    }
    assert "only 1 of 2 hosts" in broken["v4-16"]
    head = {"NodeID": "h", "Alive": True, "Resources": {"CPU": 2.0}, "Labels": {}}
    assert steady([head, *nodes]) == ["h"]


def test_a_simulated_study_takes_as_long_as_its_slices_allow(tmp_path):
    of = study(["v4-8"] * 5)
    seconds = dict(zip((c.id for c in of.cells), (3.0, 3.0, 4.0, 5.0, 5.0), strict=True))
    found = simulate(of, ledger.read(of, tmp_path), seconds, {"v4-8": 2})
    assert (found.makespan, found.bound) == (11.0, 10.0)  # longest first: 5 3 3 beside 5 4
    pair = study(["v4-16x2", "v4-16"])
    seconds = {c.id: 2.0 for c in pair.cells}
    assert simulate(pair, ledger.read(pair, tmp_path), seconds, {"v4-16": 2}).makespan == 4.0
    with pytest.raises(StudyError, match="no v4-8"):
        simulate(of, ledger.read(of, tmp_path), seconds, {"v4-16": 2})


def test_the_longest_cells_come_first_by_time_on_slices_of_all_seeds(tmp_path):
    twice = select(load_study("table-8"), settings=['execution.slice="v4-32"'])
    slow = min(twice.cells, key=lambda c: (-c.examples, c.batch_size))  # fewest FLOPs, most steps
    cells = tuple(dataclasses.replace(c, seed=seed) for seed in (0, 1) for c in twice.cells)
    both = dataclasses.replace(twice, cells=cells)
    took = estimate_seconds(both, {c.id for c in cells})
    order = [took[e.cell.id] for e in in_order(ledger.read(both, tmp_path), priorities(both))]
    assert order == sorted(order, reverse=True)
    assert order[2] == took[slow.id]  # after the largest batch of each seed
    for count in (8, 16, 32):
        found = simulate(both, ledger.read(both, tmp_path), took, {"v4-32": count})
        assert found.makespan <= 1.02 * found.bound


def test_without_a_word_on_one_cell_the_order_is_by_operations(tmp_path):
    odd = study(["v4-16", "v4-16"])
    unknown = dataclasses.replace(odd.cells[0], data=Data(dataset="absent", tokenizer="who"))
    mixed = dataclasses.replace(
        odd, cells=(*odd.cells, unknown), execution=lambda cell: Execution(slice="v4-16")
    )
    assert {rank.seconds for rank in priorities(mixed).values()} == {0.0}
    order = in_order(ledger.read(mixed, tmp_path), priorities(mixed), kinds(mixed))
    assert order[0].cell.steps == 11


def test_hosts_of_the_table_are_those_of_the_simulation():
    assert len(_nodes("v4-32", 3)) == 3 * get_slice("v4-32").hosts
