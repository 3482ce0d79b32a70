"""`import analysis` is fast: its parts, and the libraries that they need, load when first used."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code", ["import analysis", "import analysis; analysis.frame.studies('.')"]
)
def test_these_load_no_library(code):
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert not loaded & {"pandas", "numpy", "matplotlib", "scipy", "pyarrow"}
