"""A network of hosts: a storage server on h0, a Ray cluster of head h1 and the slice h2, h3."""

from __future__ import annotations

import pytest

from sweeps.bench import cells as bench_cells
from tests import hosts
from tests.hosts_cluster import Storage, copy_data, join_as_slice, start_head


@pytest.fixture(scope="session")
def bench_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "data"
    bench_cells.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def net(bench_data):
    """Four hosts; all but h0 have the data of the bench study."""
    if reason := hosts.refusal():
        pytest.skip(reason)
    with hosts.network(4) as net:
        for host in net[1:]:
            copy_data(bench_data, host)
        yield net


@pytest.fixture(scope="module")
def storage(net):
    return Storage(net[0])


@pytest.fixture(scope="module")
def address(net, storage):
    """The address of a running Ray cluster."""
    address = start_head(net[1], "--dashboard-host=0.0.0.0", env=storage.environment)
    join_as_slice(net[2:], address, "slice-0", env=storage.environment)
    return address
