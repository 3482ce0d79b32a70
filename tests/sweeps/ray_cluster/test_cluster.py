"""What surrounds Ray: its environment, its temporary folder, and the silence."""

from __future__ import annotations

import collections
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sweeps.ray_cluster import connect, env, temporary
from sweeps.study import StudyError


@pytest.fixture
def base(monkeypatch):
    """A temporary folder with a path as short as a socket needs it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_cell_gets_one_thread_and_a_cache():
    found = env.environment({})
    assert found["OMP_NUM_THREADS"] == found["NPROC"] == "1"
    assert "--xla_cpu_multi_thread_eigen=false" in found["XLA_FLAGS"]
    assert found["JAX_COMPILATION_CACHE_DIR"].endswith("batch-size-study/jax")
    assert found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_a_cell_gets_a_device_for_each_core_it_asks_for():
    one, three = env.environment({}), env.environment({}, cores=3)
    assert three["NPROC"] == "4"
    assert "device_count" not in one["XLA_FLAGS"]
    command = "import jax; print(jax.device_count())"  # an unknown flag ends the process
    said = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, **three}, capture_output=True, text=True
    )
    assert said.stdout == "3\n", said


def test_what_the_user_set_is_kept_but_a_key_is_not_passed_on():
    mine = {
        "XLA_FLAGS": "--xla_a=1",
        "JAX_COMPILATION_CACHE_DIR": "/c",
        "JAX_PLATFORMS": "cuda",
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": "secret",
    }
    found = env.environment(mine)
    assert found["XLA_FLAGS"].startswith("--xla_a=1 ")
    assert found["JAX_COMPILATION_CACHE_DIR"] == "/c"
    assert found["JAX_PLATFORMS"] == "cuda"
    assert found["WANDB_MODE"] == "offline"
    assert "secret" not in found.values()
    assert env.environment(found)["XLA_FLAGS"] == found["XLA_FLAGS"]


def test_without_an_accelerator_jax_looks_for_none(monkeypatch):
    monkeypatch.setattr(env, "gpus", lambda environ: 0)
    monkeypatch.setattr(env, "has_tpu", lambda: False)
    assert env.environment({})["JAX_PLATFORMS"] == "cpu"
    monkeypatch.setattr(env, "gpus", lambda environ: 2)
    assert "JAX_PLATFORMS" not in env.environment({})


def test_no_more_cells_at_a_time_than_accelerators(monkeypatch):
    monkeypatch.setattr(env, "has_tpu", lambda: False)
    monkeypatch.setattr(env, "gpus", lambda: 0)
    assert env.local_workers(8) == 8
    monkeypatch.setattr(env, "gpus", lambda: 3)
    assert env.local_workers(8) == 3
    assert env.local_workers(2) == 2
    monkeypatch.setattr(env, "has_tpu", lambda: True)
    assert env.local_workers(8) == 1


def test_the_temporary_folder_goes_and_with_it_those_of_dead_drivers_only(base):
    dead, live, other = base / "study-deaddead", base / "study-livelive", base / "study-othother"
    for folder in (dead, live, other):
        folder.mkdir()  # the last is somebody else's, that only looks like ours
    lock = f"from filelock import FileLock; import os; FileLock({str(dead / 'lock')!r}).acquire()"
    subprocess.run([sys.executable, "-c", f"{lock}; os._exit(9)"], check=False)
    assert (dead / temporary.LOCK).exists()
    with FileLock(live / temporary.LOCK):
        with temporary.temporary() as temp:
            assert temp.parent == base
            assert not dead.exists()
        assert sorted(base.iterdir()) == [live, other]


def test_what_ray_wrote_after_its_driver_left_goes_too(base):
    for name, age in (("study-silentxx", 3600), ("study-recently", 0)):
        (base / name / "session_1").mkdir(parents=True)
        (base / name / "session_latest").symlink_to(base / name / "session_1")
        os.utime(base / name, (time.time() - age,) * 2)
    with temporary.temporary():
        assert not (base / "study-silentxx").exists()
        assert (base / "study-recently").exists()


def test_workers_leave_their_temporary_files_where_they_are_removed(tmp_path):
    (name, folder), *more = connect._scratch(tmp_path).items()
    assert (name, more) == ("TMPDIR", [])
    assert Path(folder).is_dir()
    assert Path(folder).parent == tmp_path


def test_a_full_temporary_disk_is_one_line_that_says_what_to_do(base, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    with pytest.raises(StudyError, match="TMPDIR") as caught, temporary.temporary():
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("somewhere", "give HOST:PORT"),
        ("localhost:", "give HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
        ("ray://head:10001", "ray job submit"),
    ],
)
def test_an_address_that_cannot_be_joined_is_one_line(address, message):
    with pytest.raises(StudyError, match=message) as caught:
        connect.find_address(address)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match=message):
        connect.find_address(None, {"RAY_ADDRESS": address})


def test_without_an_address_a_cluster_is_started(monkeypatch):
    assert connect.find_address(None, {}) is None
    assert connect.find_address("local", {"RAY_ADDRESS": "127.0.0.1:1"}) is None


def test_what_answers_and_is_no_ray_is_one_line(monkeypatch):
    monkeypatch.setattr(connect, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert connect.find_address(address) == address
        with pytest.raises(StudyError, match="not a Ray cluster of this version"):
            connect.check_member(address)


def test_what_libraries_and_children_print_goes_to_the_log(tmp_path):
    code = """
import os, subprocess, sys
from pathlib import Path
from sweeps.ray_cluster.temporary import quiet
with quiet(Path(sys.argv[1])) as terminal:
    print("noise")
    os.write(2, b"noise\\n")
    subprocess.run(["sh", "-c", "echo noise; echo noise >&2"])
    print("said", file=terminal, flush=True)
print("after")
"""
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", code, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert done.stdout == "said\nafter\n"
    assert log.read_text().count("noise") == 4


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_an_end_without_a_word_is_told_on_the_terminal_all_the_same(end, tmp_path):
    """Ray's C++ part ends the driver so; the process itself cannot say anything any more."""
    code = f"""
import os, sys
from pathlib import Path
from sweeps.ray_cluster.temporary import quiet
with quiet(Path(sys.argv[1])):
    {end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "run the same again" in done.stderr
    assert str(tmp_path / "log") in done.stderr


def test_the_reaper_kills_what_it_was_given_once_its_parent_is_gone(wait_for):
    code = """
import os, subprocess, sys
from sweeps.ray_cluster.connect import _reaper
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
reaper = _reaper([child.pid])
print(child.pid, reaper.pid, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child, reaper = (int(pid) for pid in parent.stdout.readline().split())
    assert alive(child) and alive(reaper)
    parent.communicate("\n")
    wait_for(lambda: not alive(child) and not alive(reaper), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_environment_is_that_of_this_process_by_default(monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_PROJECT", "mine")
    assert env.environment()["WANDB_PROJECT"] == "mine"
