"""What this host lets us use: the machine's own figures, or the limits of control groups."""

from __future__ import annotations

import os
from collections import namedtuple

import psutil
import pytest

from study.config import host

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files below the mount of control groups; `own` is this process's own list."""
    Memory = namedtuple("Memory", "total available free")
    # Free memory is low on a machine that has read files; what is available is not.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * GIB, 23 * GIB, GIB))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(host, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(host, "_OWN", tmp_path / "own")

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_a_limit_the_machines_own_figures_stand(groups):
    groups("0::/user.slice\n", **{"user.slice/memory.max": "max", "user.slice/cpu.max": "max 100"})
    assert host.total_memory() == 64 * GIB
    assert host.available_memory() == 23 * GIB
    assert host.cores() == 16


def test_without_control_groups_too(groups):
    assert (host.total_memory(), host.available_memory()) == (64 * GIB, 23 * GIB)
    assert host.cores() == 16


def test_the_limit_of_any_group_above_holds(groups):
    """An outer group that is nearly full leaves less than an inner one with a lower limit."""
    groups(
        "0::/outer/inner\n",
        **{
            "outer/inner/memory.max": f"{8 * GIB}",
            "outer/inner/memory.current": f"{GIB}",
            "outer/memory.max": f"{16 * GIB}",
            "outer/memory.current": f"{15 * GIB}",
            "outer/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            "outer/cpu.max": "250000 100000",
        },
    )
    assert host.total_memory() == 8 * GIB
    assert host.available_memory() == 3 * GIB  # the page cache can be reclaimed
    assert host.cores() == 3


def test_a_container_that_shows_the_hosts_path_has_its_limit_at_the_mount(groups):
    """With control groups of version 1, which know their own controllers by name."""
    groups(
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        **{
            "memory/memory.limit_in_bytes": f"{4 * GIB}",
            "memory/memory.usage_in_bytes": f"{5 * GIB}",
            "memory/memory.stat": "total_inactive_file 0\n",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert host.total_memory() == 4 * GIB
    assert host.available_memory() == 0
    assert host.cores() == 16


def test_the_kernels_word_for_no_limit_in_version_1_limits_nothing(groups):
    groups(
        "5:memory:/\n",
        **{
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": f"{60 * GIB}",
        },
    )
    assert host.total_memory() == 64 * GIB
    assert host.available_memory() == 23 * GIB


def test_on_this_machine_what_is_available_is_real():
    assert 0 < host.available_memory() < host.total_memory() <= psutil.virtual_memory().total
    assert 1 <= host.cores() <= (os.cpu_count() or 1)
