"""What the README states: its commands run, its grid trains, its numbers are the code's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.registry import load_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
STUDY = Path(sys.executable).with_name("study")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0].endswith("/study")]


def run(*arguments: str, cwd: Path, ok: tuple[int, ...] = (0,)) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "STUDY_", "WANDB_"))}
    done = subprocess.run(
        [STUDY, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=550
    )
    assert done.returncode in ok, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_the_make_targets_run_the_commands_it_lists():
    makefile = (ROOT / "Makefile").read_text()
    match = re.search(r"It is `(study run demo && .*?)`", README)
    assert match
    for command in match.group(1).split(" && "):
        assert f"$(BIN)/{command}\n" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_its_numbers_are_the_codes():
    assert f"trains {len(load_study('demo').cells)} cells" in README


def test_every_folder_of_the_table_exists():
    folders = re.findall(r"^\| `(\w+)/`", README, re.MULTILINE)
    assert len(folders) == 6
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_verb_it_names_exists(words, tmp_path):
    assert "Example" in run(words[0], "--help", cwd=tmp_path)


@pytest.mark.slow
def test_its_commands_and_its_grid_run(tmp_path):
    """In an empty folder: the data set is written, cells train on Ray."""
    (grid,) = blocks("python")
    (tmp_path / "my_grid.py").write_text(grid)
    assert "8" in run("run", "my_grid.py", "--dry-run", cwd=tmp_path)
    run("run", "my_grid.py", cwd=tmp_path)
    assert len(list((tmp_path / "runs" / "bias").glob("*/DONE.json"))) == 8
    study_of = dict.fromkeys(("figures", "claims", "report", "pull"), "bias")
    for words in commands():
        verb, *rest = words
        rest = [study_of.get(verb, w) if w == "demo" else w for w in rest]
        allowed = {"status": (0, 3), "doctor": (0, 1)}.get(verb, (0,))
        assert run(verb, *rest, cwd=tmp_path, ok=allowed).strip()
