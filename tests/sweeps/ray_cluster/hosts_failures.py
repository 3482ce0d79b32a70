"""What `study run` survives on hosts of their own: lost power, a lost network, a drain, kills.

Takes ten minutes and more, most of them waiting for leases and heartbeats of dead hosts to run out,
so it is collected only by name: `pytest -s tests/sweeps/ray_cluster/hosts_failures.py`. Each run
ends with the rows of an undisturbed one, bit for bit.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time

import pytest

from study.records.metrics_log import parse, read_rows
from study.records.record import DONE
from sweeps.bench import cells as bench_cells
from sweeps.bench.compare import compare_rows
from sweeps.selection import select
from tests.hosts import end
from tests.hosts_cluster import (
    RAY,
    SLICE,
    copy_data,
    join_as_slice,
    log,
    options,
    start_study,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]

ONLY = ("seed=0", "batch_size=256", "loss.kind=sigmoid")
SET = (f"execution.slice={SLICE}", "budget.examples=30000")
SET = (*SET, "execution.checkpoint_every_minutes=0.05")
PATIENCE = 600  # seconds
NODES = """
import ray, json
ray.init("auto", logging_level=40)
print(json.dumps([[n["NodeManagerAddress"], n["NodeID"]] for n in ray.nodes() if n["Alive"]]))
"""


@pytest.fixture(scope="module")
def cell():
    (cell,) = select(bench_cells.study(), only=ONLY, settings=SET).cells
    return cell


class Run:
    """`study run` on the head, with records of its own."""

    def __init__(self, net, storage, address, cell):
        self.net, self.storage, self.cell = net, storage, cell
        self.root = storage.bucket()
        options_ = (*options("--only", ONLY), *options("--set", SET))
        self._command = ("run", bench_cells.__file__, *options_)
        self._command = (*self._command, "--root", self.root, "--address", address)
        self.start()

    def start(self):
        self.process = start_study(self.net[1], self.storage, *self._command)

    def rows(self):
        return read_rows(self.storage.records(self.root, "bench") / self.cell.id)

    def step(self):
        rows = parse(self.rows()).rows
        return rows[-1]["step"] if rows else 0

    def wait_for_step(self, step):
        wait_for(lambda: self.step() > step or self.process.poll() is not None, PATIENCE)
        assert self.process.poll() is None, log(self.net[1])

    def finish(self):
        """Waits for the end; returns the rows and the outcome of each attempt."""
        assert self.process.wait(timeout=PATIENCE) == 0, log(self.net[1])
        (attempts,) = self.storage.attempts(self.root, "bench").values()
        for attempt in attempts:
            print(attempt)
        return self.rows(), [attempt.outcome for attempt in attempts]


class Timer:
    """Prints when something happened, in seconds."""

    def __init__(self):
        self._start = time.monotonic()

    def __call__(self, what):
        print(f"{time.monotonic() - self._start:6.1f} s  {what}", flush=True)


@pytest.fixture(scope="module")
def undisturbed(net, storage, address, cell):
    rows, outcomes = Run(net, storage, address, cell).finish()
    assert outcomes == ["done"]
    return rows


@pytest.fixture
def run(net, storage, address, cell, undisturbed):
    """A run that is past its first rows."""
    net[1].path("/tmp/home/log").write_text("")
    nodes = alive(net)
    run = Run(net, storage, address, cell)
    run.nodes = nodes
    # The run's own lines: reading the records takes longer than some steps.
    wait_for(lambda: re.search(r" running \S+ [1-9]\d*%", log(net[1])), PATIENCE)
    yield run
    print(log(net[1]))


def alive(net):
    """Node ids of the cluster by address."""
    output = net[1].run([sys.executable, "-c", NODES]).stdout
    return dict(json.loads(output.splitlines()[-1]))


def of_cell(run):
    """The attempts at the cell so far."""
    return run.storage.attempts(run.root, "bench").get(run.cell.id, ())


def replace_slice(net, storage, address, bench_data, name):
    """Ends what is left of the slice, as whoever rents it out does, and starts another."""
    for host in net[2:]:
        if host.alive:
            host.kill()
        copy_data(bench_data, net.replace(host))
    join_as_slice(net[2:], address, name, env=storage.environment)


def check_goes_on(run, undisturbed, step, outcome, say):
    """The first attempt ended with `outcome`, and the second one, from `step`, with all rows."""
    run.wait_for_step(step)
    say(f"trains again from step {step}")
    rows, outcomes = run.finish()
    assert compare_rows(undisturbed, rows) == []
    assert outcomes == [outcome, "done"]


def test_a_host_without_power(net, run, storage, address, bench_data, undisturbed):
    """The one that holds the lease."""
    say = Timer()
    net[2].kill()
    step = run.step()
    replace_slice(net, storage, address, bench_data, "slice-replaced")
    say("replaced")
    check_goes_on(run, undisturbed, step, "lost", say)


def test_a_drained_host(net, run, storage, address, bench_data, undisturbed):
    say = Timer()
    why = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
    node = ("--node-id", run.nodes[net[3].address])
    drain = [RAY, "drain-node", "--address", address, *node, *why]
    net[1].run([*drain, "--deadline-remaining-seconds", "60"])
    saved = "preempted"
    wait_for(lambda: [a.outcome for a in of_cell(run)] == [saved], PATIENCE)
    step = run.step()
    say(f"saved at step {step}")
    replace_slice(net, storage, address, bench_data, "slice-drained")
    check_goes_on(run, undisturbed, step, saved, say)


def test_a_killed_driver(run, undisturbed):
    say = Timer()
    end(run.process, signal.SIGKILL)
    run.process.wait()
    assert not (run.storage.records(run.root, "bench") / run.cell.id / DONE).exists()
    step = run.step()
    run.start()
    check_goes_on(run, undisturbed, step, "lost", say)


def test_a_killed_raylet(net, run, storage, address, bench_data, undisturbed):
    say = Timer()
    (pid,) = net[3].run(["pgrep", "-x", "raylet"]).stdout.split()
    net[3].run(["kill", "-KILL", pid])
    step = run.step()
    wait_for(lambda: net[3].address not in alive(net), PATIENCE)
    say("the node is dead")
    replace_slice(net, storage, address, bench_data, "slice-raylet")
    check_goes_on(run, undisturbed, step, "lost", say)


def test_a_network_that_is_down_for_30_seconds(net, run, storage, address, bench_data, undisturbed):
    say = Timer()
    net[3].cut()
    time.sleep(30)
    net[3].restore()
    step = run.step()
    say(f"restored; nodes {sorted(alive(net))}")
    for _ in range(12):
        if run.step() > step or run.process.poll() is not None:
            break
        time.sleep(10)
        say(f"nodes {sorted(alive(net))}, step {run.step()}")
    else:  # its raylet has ended, and nobody started it again
        replace_slice(net, storage, address, bench_data, "slice-network")
        say("replaced")
    rows, outcomes = run.finish()
    assert compare_rows(undisturbed, rows) == []
    assert outcomes[-1] == "done"
