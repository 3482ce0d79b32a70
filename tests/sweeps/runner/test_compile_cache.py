"""Compiled programs: torn entries go, whole ones stay, and a folder of no use is told of."""

import os
import zlib

import pytest

from study.records.storage import RecordError, listdir
from sweeps.ray_cluster import compile_cache as compiled
from sweeps.ray_cluster.env import environment

WHOLE = zlib.compress(bytes(range(256)) * 64)


def entries(folder):
    return {path.name for path in folder.glob("*-cache")}


def test_torn_entries_go_and_whole_ones_stay(tmp_path):
    for name, content in {
        "whole": WHOLE,
        "cut": WHOLE[:-8],
        "half": WHOLE[: len(WHOLE) // 2],
        "damaged": WHOLE[:20] + b"\xff" * 20,
        "empty": b"",
        "other": b"\x28\xb5\x2f\xfd of another kind",
    }.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    compiled.remove_corrupt(tmp_path)
    assert entries(tmp_path) == {"whole-cache", "other-cache"}
    (tmp_path / "later-cache").write_bytes(b"")
    compiled.remove_corrupt(tmp_path)
    assert entries(tmp_path) == {"whole-cache", "other-cache"}


def test_an_entry_is_read_once(tmp_path):
    entry = tmp_path / "old-cache"
    entry.write_bytes(WHOLE)
    compiled.remove_corrupt(tmp_path)
    entry.write_bytes(b"")
    os.utime(entry, (0, 0))
    compiled.remove_corrupt(tmp_path)
    assert entries(tmp_path) == {"old-cache"}


def test_a_folder_of_no_use_is_told_of_in_one_line(tmp_path, monkeypatch):
    assert compiled.find_problem(tmp_path / "not" / "yet") is None
    (tmp_path / "file").write_text("")
    compiled.remove_corrupt(tmp_path / "file")  # raises nothing
    assert "cannot be written" in compiled.find_problem(tmp_path / "file")
    monkeypatch.setattr(compiled, "LEAST", 10**30)
    said = compiled.find_problem(tmp_path)
    assert "MiB left" in said
    assert "JAX_COMPILATION_CACHE_DIR" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"JAX_COMPILATION_CACHE_DIR": "/c"},
        {"JAX_COMPILATION_CACHE_DIR": "gs://lab/jax-cache"},
    ],
)
def test_cells_and_the_check_mean_the_same_folder(environ):
    found = environment(environ)["JAX_COMPILATION_CACHE_DIR"]
    assert found == str(compiled.folder(environ))


PROGRAM = """
import sys
import jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda name, **more: events.append(name))
jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits") > 0)
"""


def test_programs_are_kept_in_a_bucket_and_found_by_the_next_process(gcs, start, tmp_path):
    name = gcs.bucket()
    environ = environment({"JAX_COMPILATION_CACHE_DIR": f"gs://{name}/jax-cache"})
    folder = compiled.folder(environ)
    compiled.remove_corrupt(folder)
    assert compiled.find_problem(folder) is None
    environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    found = [start("-c", PROGRAM, **environ).communicate(timeout=90)[0] for _ in range(2)]
    assert [text.split()[-1] for text in found] == ["False", "True"]
    assert any(path.name.endswith("-cache") for path in listdir(folder))
    assert not any(tmp_path.iterdir())  # no folder called "gs:"


def test_a_bucket_of_no_use_is_named_in_one_line(gcs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = compiled.folder({"JAX_COMPILATION_CACHE_DIR": "gs://no-such-bucket/jax"})
    compiled.remove_corrupt(missing)
    said = compiled.find_problem(missing)
    assert said.startswith("cannot reach gs://no-such-bucket/jax")
    assert "\n" not in said
    with pytest.raises(RecordError, match=r"^JAX_COMPILATION_CACHE_DIR: s3://lab/jax: "):
        compiled.folder({"JAX_COMPILATION_CACHE_DIR": "s3://lab/jax"})
    assert not any(tmp_path.iterdir())
