"""The walls between packages and the order of their rooms: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "study": {"ray", "sweeps", "analysis"},
    "analysis": {"jax", "flax", "optax", "orbax", "grain", "ray", "sweeps"},
}
# From the ground up. A module imports from its own room and from those below, never from a room
# above or on the same floor.
FLOORS = {
    "study": [
        {"errors"},
        {"config", "rng"},
        {"records"},
        {"losses", "models", "data"},
        {"evals"},
        {"interop"},
        {"training"},
        {"planning"},
        {"bench"},
    ],
    "sweeps": [
        {"study"},
        {"registry"},
        {"selection"},
        {"grids", "wandb_workspace"},
        {"planning"},
        {"ray_cluster"},
        {"runner"},
        {"bench", "doctor"},
        {"cli"},
    ],
    "analysis": [
        {"errors"},
        {"records"},
        {"wandb", "select", "stats"},
        {"paper"},
        {"advice", "claims"},
        {"figures"},
        {"report", "studies"},
        {"publish"},
    ],
}
NO_JAX = ("study/config", "study/records", "study/data", "sweeps/grids")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, lazy imports too; a name imported from one counts with it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def upward(root: Path, package: str) -> Iterator[tuple[str, str]]:
    """The imports of a package that go up or across, as (module, what it imports)."""
    floor = {room: k for k, rooms in enumerate(FLOORS[package]) for room in rooms}
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        own = [*module.split("."), ""][1]
        if not own:  # the package's own names, which load when first used
            continue
        for name in sorted(imported(path)):
            package_of, room = [*name.split("."), ""][:2]
            if package_of != package or room in ("", own) or room not in floor:
                continue
            if floor[room] >= floor[own]:
                yield module, name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_their_side(package):
    files = list((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        names = imported(path)
        assert not {name.split(".")[0] for name in names} & FORBIDDEN[package], path
        if package == "analysis":  # it shares what a run leaves with `study`, and nothing else
            of_study = {name for name in names if name.split(".")[0] == "study"}
            assert all(n.startswith(("study.records", "study.errors")) for n in of_study), path


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_is_in_a_room(package):
    rooms = set().union(*FLOORS[package])
    there = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert there - {"__init__"} == rooms
    loose = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert len(loose) <= 4


@pytest.mark.parametrize("package", FLOORS)
def test_no_room_imports_from_above(package):
    assert list(upward(ROOT, package)) == []


def test_a_planted_upward_import_is_found(tmp_path):
    (tmp_path / "study" / "losses").mkdir(parents=True)
    ring = tmp_path / "study" / "losses" / "ring.py"
    ring.write_text("from study.config.cell import Cell\n")
    assert list(upward(tmp_path, "study")) == []
    ring.write_text("def f():\n    from study.training import loop\n")
    assert ("study.losses.ring", "study.training.loop") in list(upward(tmp_path, "study"))


@pytest.mark.parametrize("room", NO_JAX)
def test_these_rooms_need_no_jax(room):
    paths = list((ROOT / room).rglob("*.py"))
    assert paths
    for path in paths:
        assert not any(n.split(".")[0] in ("jax", "flax") for n in imported(path)), path


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_analysis_loads_without_jax_or_ray():
    run(
        "import sys, importlib, pkgutil, analysis\n"
        "for m in pkgutil.walk_packages(analysis.__path__, 'analysis.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = {'jax', 'jaxlib', 'flax', 'optax', 'ray', 'sweeps', 'torch'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('study.')}\n"
        "assert rooms == {'records', 'errors'}, rooms"
    )


def test_the_command_line_starts_without_jax_ray_or_pandas():
    run(
        "import sys, sweeps.cli.app\n"
        "bad = {'jax', 'ray', 'pandas', 'matplotlib', 'wandb'} & set(sys.modules)\n"
        "assert not bad, bad"
    )


@pytest.mark.parametrize("package", ["study", "sweeps", "analysis"])
def test_every_public_name_of_a_package_loads(package):
    run(
        f"import {package}\n"
        f"assert dir({package}) == {package}.__all__\n"
        f"for name in {package}.__all__:\n"
        f"    getattr({package}, name)"
    )


@pytest.mark.parametrize("package", ["study", "sweeps", "analysis", "tests"])
def test_no_file_outgrows_one_idea(package):
    for path in (ROOT / package).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.name not in ("utils.py", "helpers.py"), path
