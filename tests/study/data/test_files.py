"""Byte ranges of a bucket's objects: equal to those of a file, whatever the network does."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gcsfs
import numpy as np
import pytest

from study.data import files, local_cache, ranges
from study.data.errors import DataError
from study.records.storage import write
from tests.gate import HANG, LOST, RESET, TRUNCATED, gate


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def uploaded(gcs, content):
    path = files.to_path(f"gs://{gcs.bucket()}/data set/a-00000.tar")
    write(path, content)
    return path


@pytest.fixture
def faulty(gcs, content, monkeypatch):
    """An object behind a gate, with waits and deadlines of tests."""
    with gate(gcs.url) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setattr(ranges, "_FIRST_WAIT", 0.001)
        monkeypatch.setattr(ranges, "_STALL", 0.3)
        gcsfs.GCSFileSystem.clear_instance_cache()
        path = files.to_path(f"gs://{gcs.bucket()}/a-00000.tar")
        write(path, content)
        yield SimpleNamespace(gate=running, path=path)
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.mark.parametrize("seed", range(4))
def test_any_ranges_are_read_as_from_a_file(uploaded, content, tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(ranges, "MAX_GAP", int(rng.integers(0, 20_000)))
    monkeypatch.setattr(ranges, "MAX_RUN", int(rng.integers(1_000, 50_000)))
    local = tmp_path / "a-00000.tar"
    local.write_bytes(content)
    start_N = rng.integers(0, len(content) + 100, 60)  # some begin or end after the end
    size_N = rng.choice([0, 1, 700, 9_000, 120_000], 60)
    assert files.read_ranges(uploaded, start_N, size_N) == files.read_ranges(local, start_N, size_N)
    assert files.read_ranges(local, [5], [10]) == [content[5:15]]
    assert files.read_ranges(uploaded, [], []) == []
    assert files.read_bytes(uploaded) == content == files.read_bytes(local)


def test_neighbours_are_read_by_one_request(uploaded, content, monkeypatch):
    monkeypatch.setattr(ranges, "MAX_GAP", 1_000)
    monkeypatch.setattr(ranges, "MAX_RUN", 100_000)
    before = ranges.counts.copy()
    start_N = [200_000, 0, 1_500, 3_000, 5_000]
    parts = files.read_ranges(uploaded, start_N, [10, 1_000, 1_000, 1_000, 150_000])
    assert parts[1] == content[:1_000]
    assert parts[4] == content[5_000:155_000]
    # [0, 4,000), [5,000, 155,000) in two pieces, and the last.
    assert ranges.counts["requests"] - before["requests"] == 4
    assert ranges.counts["bytes"] - before["bytes"] == 4_000 + 150_000 + 10


def test_each_failure_that_passes_is_healed(faulty, content):
    before = ranges.counts["retries"]
    faulty.gate.faults[:] = [429, 503, 500, RESET, LOST, TRUNCATED]
    assert files.read_ranges(faulty.path, [1_000], [5_000]) == [content[1_000:6_000]]
    assert not faulty.gate.faults
    assert ranges.counts["retries"] >= before + 5  # aiohttp repeats one RESET by itself
    faulty.gate.faults[:] = [TRUNCATED, 408]
    assert files.read_bytes(faulty.path) == content


def test_a_silent_request_is_given_up_and_made_again(faulty, content):
    faulty.gate.faults[:] = [HANG, HANG]
    assert files.read_ranges(faulty.path, [0], [100]) == [content[:100]]
    assert not faulty.gate.faults


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (503, r"gs://.*a-00000.tar, bytes 0 to 100, .*503.* tried 7 times.* run again"),
        (RESET, r"gs://.*bytes 0 to 100, .*Disconnected.* tried 7 times"),
        (403, r"gs://.*a-00000.tar cannot be read \(.*Forbidden.*\); check the bucket"),
        (404, r"gs://.*a-00000.tar: no such object"),
    ],
)
def test_a_failure_that_stays_is_one_line(faulty, fault, message):
    faulty.gate.always = fault
    with pytest.raises(DataError, match=message) as caught:
        files.read_ranges(faulty.path, [0], [100])
    assert "\n" not in str(caught.value)


def test_other_schemes_are_one_line():
    with pytest.raises(DataError, match=r"s3://lab/x: data are read from a folder or from gs://"):
        files.to_path("s3://lab/x")
    assert files.to_path("file:///data/x").as_posix() == "/data/x"


def test_names_of_a_manifest(tmp_path):
    assert files.join(tmp_path, "a.tar") == tmp_path / "a.tar"
    assert files.join(tmp_path, "/data/a.tar").as_posix() == "/data/a.tar"
    assert str(files.join(tmp_path, "gs://lab/a.tar")) == "gs://lab/a.tar"
    assert str(files.join(files.to_path("gs://lab/x"), "y/a.tar")) == "gs://lab/x/y/a.tar"


def test_a_local_copy_follows_its_object(uploaded, content, tmp_path, monkeypatch):
    monkeypatch.setenv(local_cache.FOLDER, str(tmp_path / "cache"))
    copy = files.local_copy(uploaded)
    assert copy.read_bytes() == content
    before = ranges.counts["bytes"]
    assert files.local_copy(uploaded) == copy
    assert ranges.counts["bytes"] == before
    shutil.rmtree(tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:  # one of them copies it, the others wait
        assert set(pool.map(files.local_copy, [uploaded] * 8)) == {copy}
    assert ranges.counts["bytes"] == before + len(content)
    write(uploaded, b"newer")
    assert files.local_copy(uploaded).read_bytes() == b"newer"
    assert not copy.exists()
    assert files.local_copy(copy) == copy
    with pytest.raises(DataError, match=r"gs://.*/b.tar: no such object"):
        files.local_copy(uploaded.with_name("b.tar"))
