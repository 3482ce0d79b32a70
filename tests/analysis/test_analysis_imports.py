"""The wall round `analysis`: records alone, without what trained them."""

import json
import subprocess
import sys

FORBIDDEN = ("jax", "jaxlib", "flax", "optax", "ray", "sweeps", "study", "torch")


def modules_after(code):
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_no_submodule_imports_what_trains():
    loaded = modules_after(
        "import importlib, pkgutil, analysis\n"
        "for m in pkgutil.walk_packages(analysis.__path__, 'analysis.'):\n"
        "    importlib.import_module(m.name)"
    )
    assert {"analysis.claims", "analysis.figures.extra.batch_size"} <= loaded
    assert not loaded & set(FORBIDDEN)


def test_import_analysis_loads_no_library():
    loaded = modules_after("import analysis")
    assert not loaded & {"pandas", "numpy", "matplotlib", "scipy", "pyarrow"}


def test_studies_and_progress_load_no_library(tmp_path):
    loaded = modules_after(
        "import analysis\n"
        f"analysis.frame.studies({str(tmp_path)!r})\n"
        f"analysis.frame.training_progress({str(tmp_path)!r})"
    )
    assert not loaded & {"pandas", "numpy", "matplotlib", "scipy", "pyarrow"}


def test_parts_are_reached_by_name():
    modules_after(
        "import analysis\n"
        "analysis.figures.draw_all, analysis.claims.judge_study, analysis.claims.format_verdicts\n"
        "analysis.frame.cells, analysis.frame.rows, analysis.AnalysisError"
    )
