"""The table of ratios: rows are appended with the commit that they measure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.bench import history
from sweeps.cli.bench import app
from sweeps.study import StudyError

HEAD = "| bench | case |\n|---|---|\n"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with an empty table and one file of code."""
    table = tmp_path / history.TABLE
    table.parent.mkdir(parents=True)
    table.write_text(HEAD)
    (tmp_path / "code.py").write_text("fast = False\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def append(checkout: Path, ratio: str) -> list[str]:
    """Appends one row; returns the cells of the last."""
    row = history.Measurement("loss", "a | b", "naive / ours", ratio)
    path = history.append([row], machine="slow, 2 cores", checkout=checkout)
    return path.read_text().splitlines()[-1].strip("| ").split(" | ")


def test_rows_are_appended_and_uncommitted_code_is_marked(checkout):
    first = append(checkout, "3.1")
    commit = first[5]
    assert first[:4] == ["loss", "a \\| b", "naive / ours", "3.1"]
    assert history.git(checkout, "rev-parse", "HEAD").startswith(commit) and len(commit) >= 7
    assert first[6] == "slow, 2 cores"
    before = (checkout / history.TABLE).read_text()
    assert append(checkout, "3.2")[5] == commit  # the table itself is not code
    (checkout / "code.py").write_text("fast = True\n")
    assert append(checkout, "3.3")[5] == f"{commit}-dirty"
    assert (checkout / history.TABLE).read_text().startswith(before)


def test_without_a_checkout_nothing_is_measured(tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="is not a git checkout"):
        history.describe_commit(tmp_path)

    def refuse():
        raise StudyError("no checkout")

    monkeypatch.setattr(history, "describe_commit", refuse)
    for bench in ("loss", "step", "data", "sweep", "claims"):
        error = CliRunner().invoke(app, [bench, "--record"]).exception
        assert isinstance(error, StudyError) and str(error) == "no checkout", bench


def test_a_bench_and_a_command_append_rows(checkout, monkeypatch):
    monkeypatch.setattr(history.append, "__kwdefaults__", {"machine": None, "checkout": checkout})
    small = ["--cells", "4", "--workers", "2", "--record"]
    assert CliRunner().invoke(app, ["claims", *small]).exit_code == 0
    by_hand = ["record", "make demo", "all", "seconds / before", "0.61", "--machine", "v5e-8"]
    assert CliRunner().invoke(app, by_hand).exit_code == 0
    claims, demo = (checkout / history.TABLE).read_text().removeprefix(HEAD).splitlines()
    assert claims.startswith("| claims | 4 cells of 10 min, 2 workers | time / least possible | 1")
    assert demo.startswith("| make demo | all | seconds / before | 0.61 |")
    assert demo.endswith("| v5e-8 |")
