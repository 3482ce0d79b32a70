"""The packages as a wheel, installed elsewhere: the README runs from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.test_readme import blocks, commands

ROOT = Path(__file__).parents[1]
PACKAGES = ("study", "sweeps", "analysis")
PREPARE = "study.data.glyphs.write:prepare"
# The whole data set takes a minute of CPU time, and `make demo` writes it.
FEW_CHARACTERS = """
from pathlib import Path
from study.data.glyphs import hog_lda
from study.data.glyphs.write import write_glyphs

def prepare(data_root):
    hog_lda.embed(write_glyphs(Path(data_root) / "glyphs", views=1, limit_characters=400))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that no earlier `build/` gets into it."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the installed packages and the `study` command, without dependencies."""
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(target), str(wheel))
    return target


def pip(verb: str, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", verb, "--quiet", "--no-deps", "--no-index", *words],
        check=True,
        timeout=300,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"},
    )


@pytest.mark.slow
def test_the_wheel_holds_what_the_packages_read(wheel):
    """Every file of the packages, data files included, and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    assert names == {str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts}


@pytest.mark.slow
def test_the_readmes_commands_and_grid_run_away_from_the_checkout(installed, tmp_path):
    """A data set of few characters is written, and cells train on Ray, as for a user."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "STUDY_", "WANDB_"))
    }
    env = inherited | {"PYTHONPATH": f"{installed}:{tmp_path}", "WANDB_MODE": "disabled"}

    def python(*words: str, ok: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=550,
        )
        assert done.returncode in ok, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def study(*words: str, ok: tuple[int, ...] = (0,)) -> str:
        return python(str(installed / "bin" / "study"), *words, ok=ok)

    code = f"import {', '.join(PACKAGES)}\nfor p in {', '.join(PACKAGES)}: print(p.__file__)"
    files = python("-c", code).split()
    assert len(files) == len(PACKAGES)
    assert all(Path(file).is_relative_to(installed) for file in files)

    grid, notebook = blocks("python")
    assert PREPARE in grid
    (tmp_path / "my_grid.py").write_text(grid.replace(PREPARE, "few_characters:prepare"))
    (tmp_path / "few_characters.py").write_text(FEW_CHARACTERS)
    assert "8" in study("run", "my_grid.py", "--dry-run")
    study("run", "my_grid.py")
    assert len(list((tmp_path / "runs" / "bias").glob("*/DONE.json"))) == 8
    assert "256" in python("-c", notebook)
    of_records = ("figures", "claims", "best", "report", "pull")
    for verb, *rest in commands():
        words = ["bias" if word == "demo" and verb in of_records else word for word in rest]
        allowed = {"status": (0, 3), "doctor": (0, 1)}.get(verb, (0,))
        assert study(verb, *words, ok=allowed).strip()
    assert any((tmp_path / "figures").glob("bias-*.png"))
    assert "bias" in (tmp_path / "bias-report.html").read_text()

    names = ("fig_1", "fig_8", "table_9")  # from files that the packages hold
    study("figures", "--paper", "--out", "paper", *(w for n in names for w in ("--figure", n)))
    drawn = {path.name for path in (tmp_path / "paper").iterdir()}
    assert {"fig_1.png", "fig_8.csv", "table_9.txt"} <= drawn
    paper = json.loads(study("claims", "--paper", "--json"))
    assert any(one["verdict"] == "reproduced" for one in paper["verdicts"])
    assert any(not one["agrees"] for one in paper["checks"])
