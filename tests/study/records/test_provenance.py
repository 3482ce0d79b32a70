"""The commit that a record names is that of this code, and of no repository around it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import study
from study.records.provenance import describe_version

VERSION = importlib.metadata.version("batch-size-study")
INSTALLED = f"{VERSION} (not a checkout)"


def git(folder: Path, *args: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *name, *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path) -> Path:
    """Somebody else's, with one commit."""
    git(tmp_path, "init", "--initial-branch=main")
    (tmp_path / "README.md").write_text("another project")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=one")
    return tmp_path


def installed(place: Path) -> Path:
    place.mkdir(parents=True)
    source = Path(study.__file__).parent
    return shutil.copytree(source, place / "study", ignore=shutil.ignore_patterns("__pycache__"))


def test_an_own_checkout_is_named_by_its_commit(repository, monkeypatch):
    package = installed(repository / "x").rename(repository / "study")
    git(repository, "add", "study")
    git(repository, "commit", "--message=two")
    assert re.fullmatch(rf"{re.escape(VERSION)}\+[0-9a-f]{{7,}}", describe_version(package))
    (package / "config" / "cell.py").write_text("")
    assert re.fullmatch(rf"{re.escape(VERSION)}\+[0-9a-f]{{7,}}-dirty", describe_version(package))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert describe_version(package).endswith("-dirty")


@pytest.mark.parametrize("ignored", [True, False])
def test_a_copy_inside_another_repository_is_named_by_its_version(repository, ignored):
    name = ".venv" if ignored else "venv"
    package = installed(repository / name / "lib" / "site-packages")
    assert describe_version(package) == INSTALLED
    code = "from study.records.provenance import code_version; print(code_version())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package.parent,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == INSTALLED, done.stderr


def test_a_copy_beside_the_sources_of_a_repository_is_not_taken_for_its_own(repository):
    """At the top of the repository, and not tracked."""
    assert describe_version(installed(repository / "x").rename(repository / "study")) == INSTALLED


def test_a_copy_tracked_below_the_top_of_a_repository_is_not_taken_for_its_own(repository):
    package = installed(repository / "third_party")
    git(repository, "add", ".")
    git(repository, "commit", "--message=two")
    assert describe_version(package) == INSTALLED


def test_without_git_the_version_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_version(installed(tmp_path / "lib")) == INSTALLED
