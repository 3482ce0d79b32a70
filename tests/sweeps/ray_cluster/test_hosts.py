"""Studies on hosts with addresses, disks and PIDs of their own, and records in a real bucket."""

from __future__ import annotations

import pytest

from study.records.metrics_log import parse, read_rows
from study.records.record import read_json
from sweeps.bench import cells as bench_cells
from sweeps.runner.attempts import Attempts
from sweeps.selection import select
from tests import hosts
from tests.hosts_cluster import STUDY, Storage, copy_data, slice_environment


def options(name, values):
    return tuple(word for value in values for word in (name, value))


pytestmark = [pytest.mark.slow, pytest.mark.ray]

SLICE = "v4-16"  # of two hosts
# The example of the README, with one of its two cells.
ONLY = ("seed=0", "batch_size=256", "loss.kind=sigmoid")
SET = (f"execution.slice={SLICE}", "budget.examples=10000")
EXAMPLE = (bench_cells.__file__, *options("--only", ONLY), *options("--set", SET))
FAST_COMPILE = "--xla_backend_optimization_level=0"  # as `tests/conftest.py` says


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "data"
    bench_cells.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def net(data):
    """h0 keeps the records and is no node of a cluster; h1 is a head, h2 and h3 a slice."""
    if reason := hosts.refusal():
        pytest.skip(reason)
    with hosts.network(4) as net:
        for host in net[1:]:
            copy_data(data, host)
        yield net


@pytest.fixture(scope="module")
def storage(net):
    return Storage(net[0])


def start(host, storage, *arguments, rank=None, devices=1):
    """Starts `study` on a host; with `rank` as on a host of a slice."""
    env = {"JAX_PLATFORMS": "cpu"} if rank is None else slice_environment(SLICE, rank)
    flags = env.get("XLA_FLAGS", f"--xla_force_host_platform_device_count={devices}")
    env["XLA_FLAGS"] = f"{flags} {FAST_COMPILE}"
    return host.start([*STUDY, *arguments], env=env | storage.environment)


def log(host):
    return host.path("/tmp/home/log").read_text()


def attempts(records):
    """The attempts at each cell."""
    found = records.glob("*/attempts.json")
    return {path.parent.name: Attempts.parse(path.read_bytes()).all for path in found}


def test_work_on_two_hosts_is_one_worker(net, storage):
    """With one lease and one record, equal to that of one process with all devices."""
    (cell,) = select(bench_cells.study(), only=ONLY, settings=SET).cells
    two, one = storage.bucket(), storage.bucket()
    many = ("--coordinator", f"{net[2].name}:9000", "--process-count", "2")
    work = ("work", *EXAMPLE, "--machine", SLICE, "--root", two, *many)
    train = ("train", bench_cells.__file__, cell.id, *options("--set", SET), "--root", one)
    processes = [
        start(net[1], storage, *train, devices=8),
        start(net[2], storage, *work, "--process-id", "0", rank=0),
        start(net[3], storage, *work, "--process-id", "1", rank=1),
    ]
    for process, host in zip(processes, net[1:], strict=True):
        assert process.wait(timeout=300) == 0, log(host)
    records, alone = (storage.records(root, "bench") for root in (two, one))
    ((name, (attempt,)),) = attempts(records).items()
    assert (name, attempt.host, attempt.outcome) == (cell.id, "h2", "done")
    assert (records / cell.id / "lease.json").read_bytes() == b""
    values, expected = (parse(read_rows(r / cell.id)).rows for r in (records, alone))
    assert read_json(records / cell.id / "cell.json")["devices"]["processes"] == 2
    assert len(values) == len(expected) > 30
    for row, expected_row in zip(values, expected, strict=True):
        losses = {key: row[key] for key in row if "loss" in key}
        assert losses == {key: pytest.approx(expected_row[key], rel=1e-5) for key in losses}


def test_workers_on_two_hosts_share_a_study(net, storage):
    root = storage.bucket()
    study = (bench_cells.__file__, "--only", "seed=0,1", "--only", "batch_size=1024")
    work = ("work", *study, "--set", "budget.examples=20000", "--root", root)
    workers = [start(host, storage, *work) for host in net[2:]]
    for worker, host in zip(workers, net[2:], strict=True):
        assert worker.wait(timeout=300) == 0, log(host)
    tries = attempts(storage.records(root, "bench"))
    assert [len(of_cell) for of_cell in tries.values()] == [1] * 4
    assert {attempt.outcome for (attempt,) in tries.values()} == {"done"}
    assert {attempt.host for (attempt,) in tries.values()} == {"h2", "h3"}
