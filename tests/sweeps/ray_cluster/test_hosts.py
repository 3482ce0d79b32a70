"""Studies on hosts with addresses, disks and PIDs of their own, and records in a real bucket."""

from __future__ import annotations

import sys

import pytest

from study.records.metrics_log import parse, read_rows
from study.records.record import read_json
from sweeps.bench import cells as bench_cells
from sweeps.bench.compare import compare_rows
from sweeps.selection import select
from tests.hosts_cluster import (
    RAY,
    SLICE,
    STUDY,
    host_environment,
    log,
    options,
    start_study,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray]

CELLS = bench_cells.__file__
# The example of the README, with one of its two cells.
ONLY = ("seed=0", "batch_size=256", "loss.kind=sigmoid")
SET = (f"execution.slice={SLICE}", "budget.examples=10000")
EXAMPLE = (CELLS, *options("--only", ONLY), *options("--set", SET))
JOIN = """
import sys
from sweeps.ray_cluster.connect import find_address, join
with join(find_address(sys.argv[1] or None)) as cluster:
    print(*sorted(node["NodeManagerAddress"] for node in cluster.ray.nodes()))
"""


@pytest.fixture(scope="module")
def cell():
    (cell,) = select(bench_cells.study(), only=ONLY, settings=SET).cells
    return cell


def rows_of(storage, root, cell):
    return read_rows(storage.records(root, "bench") / cell.id)


def test_work_on_two_hosts_is_one_worker(net, storage, cell):
    """With one lease and one record, equal to that of one process with all devices."""
    two, one = storage.bucket(), storage.bucket()
    many = ("--coordinator", f"{net[2].name}:9000", "--process-count", "2", "--process-id")
    work = ("work", *EXAMPLE, "--machine", SLICE, "--root", two, *many)
    train = ("train", CELLS, cell.id, *options("--set", SET), "--root", one)
    eight = {"XLA_FLAGS": host_environment(0)["XLA_FLAGS"].replace("count=4", "count=8")}
    processes = [
        start_study(net[1], storage, *train, env=eight),
        start_study(net[2], storage, *work, "0", env=host_environment(0)),
        start_study(net[3], storage, *work, "1", env=host_environment(1)),
    ]
    for process, host in zip(processes, net[1:], strict=True):
        assert process.wait(timeout=300) == 0, log(host)
    ((name, (attempt,)),) = storage.attempts(two, "bench").items()
    assert (name, attempt.host, attempt.outcome) == (cell.id, "h2", "done")
    record = storage.records(two, "bench") / cell.id
    assert (record / "lease.json").read_bytes() == b""
    assert read_json(record / "cell.json")["devices"] == {"kind": "cpu", "count": 8, "processes": 2}
    rows, expected_rows = (parse(rows_of(storage, root, cell)).rows for root in (two, one))
    assert len(rows) == len(expected_rows) > 30
    for row, expected in zip(rows, expected_rows, strict=True):
        losses = {key: row[key] for key in row if "loss" in key}
        assert losses == {key: pytest.approx(expected[key], rel=1e-5) for key in losses}


def test_workers_on_two_hosts_share_a_study(net, storage):
    root = storage.bucket()
    only = options("--only", ("seed=0,1", "batch_size=1024"))
    work = ("work", CELLS, *only, "--set", "budget.examples=20000", "--root", root)
    workers = [start_study(host, storage, *work) for host in net[2:]]
    for worker, host in zip(workers, net[2:], strict=True):
        assert worker.wait(timeout=300) == 0, log(host)
    attempts = storage.attempts(root, "bench")
    assert [len(of_cell) for of_cell in attempts.values()] == [1] * 4
    assert {attempt.outcome for (attempt,) in attempts.values()} == {"done"}
    assert {attempt.host for (attempt,) in attempts.values()} == {"h2", "h3"}


@pytest.mark.parametrize("form", ["auto", "127.0.0.1:6379", "h1:6379", ""])
def test_a_cluster_is_joined_from_its_head(net, address, form):
    env = {} if form else {"RAY_ADDRESS": address}
    done = net[1].run([sys.executable, "-c", JOIN, form], env=env)
    assert done.stdout.splitlines()[-1].split() == [host.address for host in net[1:]]


def test_a_machine_that_is_no_node_is_told_to_submit_a_job(net, storage, address):
    run = ("run", *EXAMPLE, "--root", storage.bucket(), "--address", address)
    assert start_study(net[0], storage, *run).wait(timeout=120) == 2
    line = log(net[0]).splitlines()[-1]
    assert line.startswith(f"study: this machine is not a node of the cluster at {address}: ")
    assert "ray job submit --address http://HEAD:8265" in line


@pytest.fixture(scope="module")
def undisturbed(net, storage, address):
    """The root of a run of the example from the head."""
    root = storage.bucket()
    run = start_study(net[1], storage, "run", *EXAMPLE, "--root", root, "--address", address)
    assert run.wait(timeout=300) == 0, log(net[1])
    return root


def test_run_from_the_head(undisturbed, storage, cell):
    ((name, (attempt,)),) = storage.attempts(undisturbed, "bench").items()
    assert (name, attempt.outcome) == (cell.id, "done")
    record = storage.records(undisturbed, "bench") / cell.id
    assert read_json(record / "cell.json")["devices"] == {"kind": "cpu", "count": 8, "processes": 2}


def test_run_in_a_job(net, storage, cell, undisturbed):
    """Submitted from a machine that is no node."""
    root = storage.bucket()
    submit = [RAY, "job", "submit", "--address", f"http://{net[1].address}:8265", "--"]
    done = net[0].run([*submit, *STUDY, "run", *EXAMPLE, "--root", root], timeout=300)
    assert "bench: 1 done; 1 cell in" in done.stdout
    assert compare_rows(rows_of(storage, undisturbed, cell), rows_of(storage, root, cell)) == []
