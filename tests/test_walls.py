"""The walls between packages: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "study": {"ray", "sweeps", "analysis"},
    "analysis": {"jax", "flax", "optax", "orbax", "grain", "ray", "sweeps", "study"},
}
GROUND = (
    *("cell", "durations", "fields", "hardware", "host", "measures", "model", "mounts", "pairs"),
    *("places", "recipe", "records", "rows", "secrets", "vocabulary"),
)


def imported(path: Path) -> set[str]:
    """Top-level names of all imports of a file, lazy ones too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_their_side(package):
    files = list((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & FORBIDDEN[package], path


def test_the_ground_floor_stands_on_nothing_of_ours():
    ground = {f"study.{name}" for name in GROUND}
    for name in GROUND:
        ours = {n for n in imported(ROOT / "study" / f"{name}.py") if n.startswith("study")}
        assert ours <= ground, name


def test_the_data_room_needs_no_jax():
    for path in (ROOT / "study" / "data").glob("*.py"):
        assert not any(n.split(".")[0] in ("jax", "flax") for n in imported(path)), path


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_analysis_loads_without_jax_or_ray():
    run(
        "import sys, importlib, pkgutil, analysis\n"
        "for m in pkgutil.walk_packages(analysis.__path__, 'analysis.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = {'jax', 'flax', 'ray', 'study', 'sweeps'} & set(sys.modules)\n"
        "assert not bad, bad"
    )


def test_the_command_line_starts_without_jax_ray_or_pandas():
    run(
        "import sys, sweeps.cli\n"
        "bad = {'jax', 'ray', 'pandas', 'matplotlib', 'wandb'} & set(sys.modules)\n"
        "assert not bad, bad"
    )


@pytest.mark.parametrize("package", ["study", "sweeps", "analysis", "tests"])
def test_no_file_outgrows_one_idea(package):
    for path in (ROOT / package).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.name not in ("utils.py", "helpers.py"), path
