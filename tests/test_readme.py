"""What the README states. `test_installed` runs its commands and its grid."""

from __future__ import annotations

import re
from pathlib import Path

from sweeps.registry import load_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0].endswith("/study")]


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
