"""What a process can still take of its host: free memory, and the limits of control groups."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from study import host_memory
from study.hardware import GIB


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """64 GiB are free on the machine."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))


def group(folder, limit, used, cache, *, version):
    """Writes one control group as the kernel shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    (folder / f"memory.{names[0]}").write_text(f"{limit}\n")
    (folder / f"memory.{names[1]}").write_text(f"{used}\n")
    total = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"anon 7\n{total}inactive_file {cache}\n")


def available(tmp_path, membership: str) -> int:
    (tmp_path / "self").write_text(membership)
    return host_memory.available_memory(tmp_path, tmp_path / "self")


def test_on_this_machine_no_more_is_available_than_there_is(monkeypatch):
    monkeypatch.undo()
    assert 0 < host_memory.available_memory() <= psutil.virtual_memory().total


def test_the_limit_of_a_group_holds_and_its_file_cache_can_be_dropped(tmp_path):
    group(tmp_path / "job/step", 8 * GIB, 3 * GIB, GIB, version=2)
    assert available(tmp_path, "0::/job/step\n") == 6 * GIB


def test_the_limit_of_a_parent_holds(tmp_path):
    group(tmp_path / "job/step", 8 * GIB, 3 * GIB, GIB, version=2)
    group(tmp_path / "job", 5 * GIB, 3 * GIB, 0, version=2)
    assert available(tmp_path, "0::/job/step\n") == 2 * GIB


def test_version_1_of_control_groups_is_read(tmp_path):
    group(tmp_path / "memory/job", 4 * GIB, 3 * GIB, GIB, version=1)
    assert available(tmp_path, "5:cpuset:/x\n4:cpu,memory:/job\n0::/\n") == 2 * GIB


def test_a_container_sees_its_own_group_at_the_mount(tmp_path):
    """Its path is the host's, which it cannot see."""
    group(tmp_path, 2 * GIB, GIB, 0, version=2)
    assert available(tmp_path, "0::/kubepods/pod1/c1\n") == GIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_without_a_limit_free_memory_counts(tmp_path, limit):
    group(tmp_path, limit, GIB, 0, version=2)
    assert available(tmp_path, "0::/\n") == 64 * GIB


def test_a_group_above_its_limit_leaves_nothing(tmp_path):
    group(tmp_path, GIB, 2 * GIB, 0, version=2)
    assert available(tmp_path, "0::/\n") == 0


def test_a_system_without_control_groups_has_its_free_memory(tmp_path):
    assert host_memory.available_memory(tmp_path, tmp_path / "none") == 64 * GIB
