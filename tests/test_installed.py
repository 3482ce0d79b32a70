"""The packages as a wheel, installed elsewhere and used from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("study", "sweeps", "analysis")
GRID = '''"""study run tiny.py"""

from pathlib import Path

from study import Adam, Budget, CachedImage, Cell, Model, Sigmoid, Softmax, MeanPoolText, ZeroShot
from study.data.glyphs import hog_lda
from study.data.glyphs.write import write_glyphs
from sweeps import Study

cached = CachedImage(embeddings="hog-lda-16", dim=16)
siglit = Model(image=cached, text=MeanPoolText(), embed_dim=16)


def prepare(data_root, progress=None):
    dataset = write_glyphs(Path(data_root) / "glyphs", workers=1, views=1, limit_characters=120)
    hog_lda.embed(dataset, dim=16, workers=1)


def study():
    cells = [
        Cell(
            model=siglit,
            batch_size=batch_size,
            loss=loss,
            optimizer=Adam(learning_rate=5e-3, warmup_percent=5),
            budget=Budget(examples=1024),
            evals=(ZeroShot(split="test_font"),),
        )
        for batch_size in (16, 64)
        for loss in (Sigmoid(), Softmax())
    ]
    return Study(name="tiny", question="Does it run?", cells=tuple(cells), prepare=prepare)
'''


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


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """`run(words...)` gives the output of Python in an empty folder, with the installed package."""
    empty = tmp_path_factory.mktemp("empty")
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "STUDY_", "WANDB_"))
    }
    env = inherited | {"PYTHONPATH": str(installed), "WANDB_MODE": "disabled"}

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=empty,
            env=env,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    command.folder = empty
    return command


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
def test_every_verb_works_away_from_the_checkout(run, installed):
    code = f"import {', '.join(PACKAGES)}\nfor p in {', '.join(PACKAGES)}: print(p.__file__)"
    files = run("-P", "-c", code).split()
    assert len(files) == len(PACKAGES)
    assert all(Path(file).is_relative_to(installed) for file in files)

    def study(*words: str) -> str:
        return run("-P", str(installed / "bin" / "study"), *words)

    assert "table-8" in study("list")
    assert "chip" in study("plan", "table-1", "--no-compile").lower()

    study("figures", "--paper", "--out", "paper")
    drawn = {path.name for path in (run.folder / "paper").iterdir()}
    assert {"fig_1.png", "fig_2.png", "fig_8.csv", "table_9.txt"} <= drawn
    paper = json.loads(study("claims", "--paper", "--json"))
    assert any(one["verdict"] == "reproduced" for one in paper["verdicts"])
    assert any(not one["agrees"] for one in paper["checks"])

    (run.folder / "tiny.py").write_text(GRID)
    study("run", "tiny.py")
    records = list((run.folder / "runs" / "tiny").glob("*/DONE.json"))
    assert len(records) == 4
    study("figures", "tiny.py")
    assert (run.folder / "figures" / "tiny-fig_2.png").is_file()
    assert "sigmoid ahead at small batch" in study("claims", "tiny.py")
    study("report", "tiny.py")
    assert "tiny" in (run.folder / "tiny-report.html").read_text()
