"""The notebooks run from top to bottom, and the outputs that they are kept with are the code's."""

from __future__ import annotations

import ast
import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)  # a claim's test is a lambda


def read(path):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    """Of each code cell what it printed or gave, as text, and its images as pixels."""
    found = []
    for cell in code(notebook):
        data = [out.get("data", {}) for out in cell.outputs]
        images = [d["image/png"] for d in data if "image/png" in d]
        said = "".join(out.get("text", "") for out in cell.outputs)
        said += "".join(d.get("text/plain", "") for d in data if "image/png" not in d)
        found.append((said, [pixels(image) for image in images]))
    return found


def pixels(image):
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return np.asarray(opened.convert("L"), dtype=float)


def named(path):
    return path.stem


def test_there_are_some():
    assert {
        "read_a_study",
        "paper_figures",
        "plan_a_tpu_sweep",
        "examples_against_pairs",
        "what_holds_on_glyphs",
    } <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_they_define_nothing_and_import_analysis_alone_of_ours(path):
    for cell in code(read(path)):
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            assert not isinstance(node, DEFINITIONS), cell.source
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            tops = {name.split(".")[0] for name in (*names, getattr(node, "module", None) or "")}
            assert not tops & {"jax", "ray", "study", "sweeps"}, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_they_are_small_prose_and_no_path_of_a_machine(path):
    text = path.read_text()
    assert path.stat().st_size < 400_000
    assert not re.search(r"(?<![\w./:])/(home|root|tmp|work|usr|opt|Users)/", text)
    prose = [cell for cell in read(path).cells if cell.cell_type == "markdown"]
    assert prose[0].source.startswith("# ")
    assert all(len(cell.source) < 700 for cell in prose)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_outputs_kept_are_those_of_the_code(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in ("STUDY_ROOT", "STUDY_NAME"):
        monkeypatch.delenv(name, raising=False)
    notebook = read(path)
    kept = outputs(notebook)
    where = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    again = outputs(notebook)
    assert [said for said, _ in again] == [said for said, _ in kept]
    assert any(images for _, images in kept)
    for (_, ours), (_, theirs) in zip(again, kept, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape
            assert np.abs(one - other).mean() < 1  # of 255: letters may differ by a shade
