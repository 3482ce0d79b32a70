"""Compare-and-swap on the files of records: of all who contend exactly one wins."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from study.records.record import CELL, DONE
from study.records.storage import RecordError, is_bucket
from sweeps.runner import store as stores
from sweeps.runner.store import ATTEMPTS, LEASE, STATE_FILES, FolderStore, Version, open_store
from tests.gate import LOST

CONTENDERS, ROUNDS = 4, 300
# Each contender adds 1 to a counter by compare-and-swap until it has reached the last round.
COUNT = """
import json, sys
from study.records.storage import resolve
from sweeps.runner.store import LEASE, open_store
store, rounds = open_store(resolve(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
wins = []
while True:
    version = store.list("x").get("x", {}).get(LEASE)
    content = store.read("x", LEASE)
    number = int(content.split()[0]) if content else 0
    if number >= rounds:
        break
    mine = f"{number + 1} {sys.argv[3]}".encode()
    # The content may be newer than the version, and then the swap fails.
    if version is not None and store.swap("x", LEASE, mine, version) is not None:
        wins.append(number + 1)
print(json.dumps(wins))
"""
# Each contender takes a lease that is free, makes sure that it is alone, and frees it.
EXCLUDE = """
import json, os, sys
from study.records.storage import resolve
from sweeps.runner.store import LEASE, open_store
store, rounds, me, inside = open_store(resolve(sys.argv[1])), *sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
wins = 0
while wins < int(rounds):
    version = store.list("x").get("x", {}).get(LEASE)
    if version is not None and version.size:
        continue
    held = store.swap("x", LEASE, me.encode(), version)
    if held is None:
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    held = store.touch("x", LEASE, me.encode(), held)
    os.unlink(inside)
    assert store.swap("x", LEASE, b"", held) is not None
    wins += 1
print(json.dumps(wins))
"""
CREATE = """
import json, sys
from study.records.storage import resolve
from sweeps.runner.store import LEASE, open_store
store, rounds, me = open_store(resolve(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([n for n in range(rounds) if store.swap(str(n), LEASE, me.encode(), None)]))
"""


def contend(code: str, folder, rounds: int, *args: str) -> list:
    """What each contender printed; all of them start together."""
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(rounds), str(k), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for k in range(CONTENDERS)
    ]
    for contender in contenders:
        assert contender.stdout.readline() == "ready\n"
    for contender in contenders:
        contender.stdin.write("go\n")
        contender.stdin.flush()
    results = [json.loads(contender.communicate()[0]) for contender in contenders]
    assert [contender.returncode for contender in contenders] == [0] * CONTENDERS
    return results


def test_of_processes_that_replace_one_version_exactly_one_wins(folder):
    open_store(folder).swap("x", LEASE, b"0", None)
    results = contend(COUNT, folder, ROUNDS)
    assert sorted(number for wins in results for number in wins) == [*range(1, ROUNDS + 1)]


def test_of_processes_that_create_one_file_exactly_one_wins(folder):
    results = contend(CREATE, folder, ROUNDS // 3)
    assert sorted(number for wins in results for number in wins) == [*range(ROUNDS // 3)]


def test_no_two_processes_hold_a_file_that_each_takes_and_frees(folder, tmp_path):
    rounds = 50
    assert contend(EXCLUDE, folder, rounds, str(tmp_path / "inside")) == [rounds] * CONTENDERS
    assert not list(tmp_path.rglob(".*lease*"))  # nothing is left behind


def test_a_file_is_created_replaced_touched_and_freed(folder):
    store = open_store(folder)
    assert store.list() == {} and store.read("x", LEASE) is None
    first = store.swap("x", LEASE, b"a", None)
    assert store.swap("x", LEASE, b"b", None) is None
    assert store.list()["x"] == store.list("x")["x"] == {LEASE: first}
    second = store.swap("x", LEASE, b"bb", first)
    assert second.token != first.token and second.size == 2
    assert store.swap("x", LEASE, b"c", first) is None
    assert store.touch("x", LEASE, b"a", first) is None
    third = store.touch("x", LEASE, b"bb", second)
    assert third.token != second.token and store.read("x", LEASE) == b"bb"
    assert store.list("x")["x"] == {LEASE: third}
    assert store.swap("x", LEASE, b"", second) is None
    assert store.swap("x", LEASE, b"", third) is not None
    assert not store.read("x", LEASE)
    free = store.list("x")["x"].get(LEASE)
    assert free is None or free.size == 0
    assert store.touch("x", LEASE, b"bb", third) is None
    assert store.swap("x", LEASE, b"d", third) is None
    assert store.swap("x", LEASE, b"d", free) is not None


def test_a_listing_has_the_state_files_of_all_cells_and_nothing_else(folder):
    store = open_store(folder)
    for cell in ("x", "y"):
        for name in (CELL, DONE, ATTEMPTS):
            store.write(cell, name, {"cell": cell})
    store.write(".stop", "r1", {})
    store.write("x", "checkpoints/5/_METADATA", {}) if is_bucket(folder) else None
    store.write("x", "FAILED.txt", {})
    listing = {cell: set(files) for cell, files in store.list().items() if files}
    assert listing == {"x": {CELL, DONE, ATTEMPTS}, "y": {CELL, DONE, ATTEMPTS}}
    assert set(listing["x"]) < set(STATE_FILES)
    contents = store.read_many([("x", CELL), ("y", DONE), ("y", "absent"), ("z", CELL)])
    assert {key: json.loads(content) for key, content in contents.items()} == {
        ("x", CELL): {"cell": "x"},
        ("y", DONE): {"cell": "y"},
    }
    assert store.read(".stop", "r1") is not None and store.read(".stop", "r2") is None
    assert store.read_many([]) == {}


def test_a_listing_of_several_pages_is_whole(folder, monkeypatch):
    monkeypatch.setattr(stores, "_PAGE", 3)
    store = open_store(folder)
    for n in range(8):
        store.swap(str(n), LEASE, b"a", None)
    assert sorted(store.list()) == [*"01234567"]


# --- a bucket that loses and refuses -------------------------------------------------------------


def test_a_swap_whose_response_is_lost_is_repeated_and_succeeds(gate):
    store = open_store(gate.root / "s")
    gate.faults = [LOST]
    first = store.swap("x", LEASE, b"a", None)
    assert store.list("x")["x"] == {LEASE: first}
    gate.faults = [LOST, LOST]
    second = store.swap("x", LEASE, b"b", first)
    gate.faults = [LOST]
    third = store.touch("x", LEASE, b"b", second)
    assert store.list("x")["x"] == {LEASE: third}
    assert gate.faults == []


def test_a_lost_response_does_not_hide_who_took_the_file_over(gate, gcs, monkeypatch):
    store = open_store(gate.root / "s")
    held = store.swap("x", LEASE, b"a", None)
    store.swap("x", LEASE, b"other", held)
    gate.faults = [LOST]
    assert store.touch("x", LEASE, b"a", held) is None
    assert store.read("x", LEASE) == b"other"


@pytest.mark.parametrize("fault", [503, 429])
def test_a_bucket_that_refuses_for_a_while_is_asked_again(gate, fault):
    store = open_store(gate.root / "s")
    gate.faults = [fault] * 3
    held = store.swap("x", LEASE, b"a", None)
    for call in (store.list, lambda: store.read("x", LEASE)):
        gate.faults = [fault] * 3
        assert call()
    gate.always = fault
    with pytest.raises(RecordError, match=r"^cannot write gs://"):
        store.touch("x", LEASE, b"a", held)
    with pytest.raises(RecordError, match=r"^cannot read gs://"):
        store.list()


# --- file systems that are not like a local disk -------------------------------------------------


@pytest.fixture
def store(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "s")


def test_a_link_that_nfs_repeats_after_a_lost_response_counts(store, monkeypatch):
    link = os.link

    def link_twice(part, path):
        link(part, path)
        link(part, path)

    monkeypatch.setattr(os, "link", link_twice)
    held = store.swap("x", LEASE, b"a", None)
    assert held == store.list("x")["x"][LEASE]
    assert store.swap("x", LEASE, b"b", None) is None


def test_a_file_system_without_links_creates_exclusively(store, monkeypatch):
    def link(part, path):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    held = store.swap("x", LEASE, b"a", None)
    assert held == store.list("x")["x"][LEASE] and store.read("x", LEASE) == b"a"
    assert store.swap("x", LEASE, b"b", None) is None


def test_without_locks_the_last_of_two_that_replace_a_file_has_it(store, tmp_path, monkeypatch):
    def flock(fd, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(stores.fcntl, "flock", flock)
    stale = store.swap("x", LEASE, b"stale", None)
    winners: list[Version | None] = []
    monkeypatch.setattr(  # the other one has seen the same version, and replaces it meanwhile
        stores.time, "sleep", lambda s: (tmp_path / "s/x" / LEASE).write_bytes(b"other")
    )
    winners.append(store.swap("x", LEASE, b"mine", stale))
    monkeypatch.setattr(stores.time, "sleep", lambda s: None)
    winners.append(store.swap("x", LEASE, b"mine", store.list("x")["x"][LEASE]))
    assert winners[0] is None and winners[1] is not None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_error_of_a_lock_is_no_lock(store, monkeypatch, number):
    held = store.swap("x", LEASE, b"a", None)

    def flock(fd, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stores.fcntl, "flock", flock)
    with pytest.raises(OSError, match=os.strerror(number)):
        store.swap("x", LEASE, b"b", held)
    assert store.read("x", LEASE) == b"a"


def test_a_lock_that_is_kept_is_waited_for_but_not_for_ever(store, tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(stores, "_LOCK_S", 0.05)
    held = store.swap("x", LEASE, b"a", None)
    with (tmp_path / "s/x" / LEASE).open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            store.swap("x", LEASE, b"b", held)
    assert store.swap("x", LEASE, b"b", held) is not None


def test_a_full_disk_leaves_the_old_file_and_no_part(store, tmp_path, monkeypatch):
    held = store.swap("x", LEASE, b"a", None)

    def write_bytes(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space"):
        store.swap("x", LEASE, b"b", held)
    assert [f.name for f in (tmp_path / "s/x").iterdir()] == [LEASE]
    assert store.touch("x", LEASE, b"a", held) is not None  # a heartbeat needs no space
