"""`study train`: what it refuses before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("file", "--profile file: cannot write there (File exists); give a folder"),
        ("gs://b/p", "--profile': gs://b/p is not on this machine"),
    ],
)
def test_a_profile_needs_a_local_folder(profile, reason, study):
    Path("file").touch()
    code, out, err = study("train", "demo", "b512-sigmoid-s0", "--profile", profile)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
