"""Hosts in namespaces share nothing but a network, and end with the process that made them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hosts
from tests.hosts_cluster import wait_for

CONNECT = "import socket; socket.create_connection(('h1', 22), timeout=2)"


@pytest.fixture(scope="module")
def net():
    if reason := hosts.refusal():
        pytest.skip(reason)
    with hosts.network(3) as net:
        yield net


def test_a_host_has_its_own_name_address_and_pids(net):
    for number, host in enumerate(net):
        assert host.run(["hostname"]).stdout == f"h{number}\n"
        assert f"{host.address}/24" in host.run(["ip", "-brief", "address"]).stdout
        pids = host.run(["ls", "/proc"]).stdout.split()
        assert str(os.getpid()) not in pids
    assert net[0].run(["getent", "hosts", "h2"]).stdout.split() == [net[2].address, "h2"]


def test_a_host_has_its_own_disk(net):
    net[0].path("/tmp/x").write_text("h0")
    assert net[0].run(["cat", "/tmp/x"]).stdout == "h0"
    for folder in ("/tmp", "/dev/shm"):
        assert "x" not in net[1].run(["ls", folder]).stdout.split()
    write = net[1].run(["touch", str(hosts.ROOT / "x")], check=False)
    assert "Read-only file system" in write.stdout


def test_a_host_reaches_the_others_and_not_the_internet(net):
    refused = net[0].run([sys.executable, "-c", CONNECT], check=False)
    assert "Connection refused" in refused.stdout
    outside = [sys.executable, "-c", CONNECT.replace("h1", "8.8.8.8")]
    assert "No route to host" in net[0].run(outside, check=False).stdout


def test_a_host_that_is_cut_off_and_one_without_power(net):
    def is_reachable() -> bool:
        output = net[0].run([sys.executable, "-c", CONNECT], check=False).stdout
        return "Connection refused" in output

    net[1].cut()
    assert not is_reachable()
    net[1].restore()
    wait_for(is_reachable)
    process = net[1].start(["sleep", "1000"])
    net[1].path("/tmp/mark").write_text("")
    net[1].kill()
    assert process.wait(timeout=60)
    assert not is_reachable()
    net.replace(net[1])
    wait_for(is_reachable)
    assert "mark" not in net[1].run(["ls", "/tmp"]).stdout.split()


def test_nothing_is_left_of_a_test_that_was_killed(net):
    program = """
import time
from tests.hosts import network
with network(2) as net:
    net[1].start(["sleep", "98765"])
    print(*(h._namespaces.pid for h in net), net._switch.pid, flush=True)
    time.sleep(1000)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=hosts.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        pids = process.stdout.readline().split()
    assert len(pids) == 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True).stdout
    assert not re.search(r"^(port\d|switch)\b", links, re.M)


def test_a_machine_without_the_tools_says_which(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert hosts.refusal.__wrapped__() == (
        "hosts in namespaces need ip, unshare, nsenter (iproute2 and util-linux)"
    )


def test_a_machine_that_allows_no_namespaces_says_so(monkeypatch, tmp_path):
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    reason = "no permission for hosts in namespaces: unshare failed: Operation not permitted"
    assert hosts.refusal.__wrapped__() == reason
