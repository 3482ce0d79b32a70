"""The notebook runs from top to bottom on records, and is committed without outputs."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "demo.ipynb"

TRUTH = {
    (None, None): (30.0, -10.0, 0.0, -10.0),
    ("random", 32.0): (22.0, -9.0, 2.0, -9.0),
    ("hard", 32.0): (29.0, -10.0, 0.0, -10.0),
}


def read():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_holds_no_outputs():
    for cell in read().cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn, not ours
def test_the_notebook_runs_and_shows_figures_and_verdicts(writer, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    writer.batch_panel({16: 34.0, 256: 44.0}, {16: 30.0, 256: 43.5}, sd=0.1)
    writer.composition_panel(TRUTH, sd=0.1)
    monkeypatch.setenv("STUDY_ROOT", str(writer.root))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    images = [out for out in outputs if "image/png" in out.get("data", {})]
    printed = "".join(out.get("text", "") for out in outputs)
    assert len(images) == 2
    assert "sigmoid ahead at small batch" in printed
    assert "reproduced" in printed
