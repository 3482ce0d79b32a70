"""Compiled programs: torn entries go, whole ones stay, and a folder of no use is told of."""

import os
import zlib

import pytest

from sweeps import compiled

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
    compiled.mend(tmp_path)
    assert entries(tmp_path) == {"whole-cache", "other-cache"}
    (tmp_path / "later-cache").write_bytes(b"")
    compiled.mend(tmp_path)
    assert entries(tmp_path) == {"whole-cache", "other-cache"}


def test_an_entry_is_read_once(tmp_path):
    entry = tmp_path / "old-cache"
    entry.write_bytes(WHOLE)
    compiled.mend(tmp_path)
    entry.write_bytes(b"")
    os.utime(entry, (0, 0))
    compiled.mend(tmp_path)
    assert entries(tmp_path) == {"old-cache"}


def test_a_folder_of_no_use_is_told_of_in_one_line(tmp_path, monkeypatch):
    assert compiled.trouble(tmp_path / "not" / "yet") is None
    (tmp_path / "file").write_text("")
    compiled.mend(tmp_path / "file")  # raises nothing
    assert "cannot be written" in compiled.trouble(tmp_path / "file")
    monkeypatch.setattr(compiled, "LEAST", 10**30)
    said = compiled.trouble(tmp_path)
    assert "MiB left" in said
    assert "JAX_COMPILATION_CACHE_DIR" in said
    assert "\n" not in said


@pytest.mark.parametrize("environ", [{}, {"JAX_COMPILATION_CACHE_DIR": "/c"}])
def test_cells_and_the_check_mean_the_same_folder(environ):
    from sweeps.cluster import environment

    found = environment(environ)["JAX_COMPILATION_CACHE_DIR"]
    assert found == str(compiled.folder(environ))
