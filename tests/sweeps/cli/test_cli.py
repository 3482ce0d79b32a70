"""The command line: quick, helpful, and one line with exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from study.config import Budget, Cell, to_dict
from study.records.record import Progress, Record, write_failure
from sweeps.cli.options import complete_cell, complete_study
from sweeps.registry import load_study
from sweeps.runner.display import Lines
from sweeps.runner.lease import Lease
from sweeps.runner.store import LEASE, open_store

GRID = '''"""study run own.py"""
from study.config import Budget, Cell
from sweeps.study import Study
def study():
    cells = tuple(Cell(batch_size=16, seed=s, budget=Budget(steps=10)) for s in range(3))
    return Study(name="own", question="Q?", cells=cells)
'''
CELLS = [Cell(batch_size=16, seed=s, budget=Budget(steps=10)) for s in range(3)]


@pytest.fixture
def study(study):
    """The command line, in a folder with two grid files."""
    Path("own.py").write_text(GRID)
    Path("exits.py").write_text("import sys\nsys.exit(3)\n")
    before = dict(os.environ)
    yield study
    os.environ.clear()  # `train` sets what JAX finds
    os.environ.update(before)


def end(cell: Cell, status: str = "done") -> None:
    record = Record(Path("runs/own") / cell.id)
    about = {"id": cell.id, "hash": cell.hash, "cell": to_dict(cell), "steps": cell.steps}
    record.begin(about, seen=Progress(0, 0, 0))
    summary = {"eval/zero_shot/val_font/top1": 12.5}
    record.finish(Progress(10, 160, 2560), status=status, summary=summary, seconds={"train": 1.0})


def held(cell: Cell) -> Lease:
    """The lease of this process."""
    store = open_store(Path("runs/own"))
    return Lease.take(store, cell.id, "", store.list(cell.id)[cell.id].get(LEASE))


def modules_after(*args: str, cwd: Path) -> set[str]:
    """What a command of its own process has imported."""
    code = (
        "import sys, atexit; from sweeps.cli import app; sys.argv[0] = 'study';"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); app.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_studies_and_cells_are_completed():
    assert complete_study("table-8") == ["table-8"]
    context = types.SimpleNamespace(params={"name": "table-8"})
    assert set(complete_cell(context, "b512-")) == {
        cell.id for cell in load_study("table-8").cells if cell.batch_size == 512
    }
    context.params["name"] = "nothing"
    assert complete_cell(context, "") == []


def test_version(study):
    code, out, _ = study("--version")
    assert code == 0
    assert out.startswith("study ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rum", "own.py"], "Did you mean"),
        (["run", "own.py", "--onyl", "b16"], "--only"),
        (["run", "own.py", "--parallel", "0"], "--parallel"),
        (["run"], "STUDY"),
        (["run", "nothing"], "no study 'nothing'"),
        (["run", "nothing.py"], "no grid file"),
        (
            ["run", "own.py", "--root", "s3://b/r"],
            "s3://b/r: records are kept in a folder or in gs://",
        ),
        (["run", "own.py", "--only", "b17"], "--only b17"),
        (["run", "own.py", "--set", "optimizer.b2=7"], "--set optimizer.b2=7"),
        (["train", "own.py", "b17"], "no cell 'b17'"),
        (["status", "own.py", "--only", "seed=9"], "seed is one of: 0, 1, 2"),
        (["figures", "own"], "no study 'own'"),
        (["figures", "own.py"], "runs"),
        (["claims", "own.py"], "runs"),
        (["figures", "--root", "."], "no records in ."),
        (["figures", "--paper", "--figure", "fig_9"], "no figure fig_9; choose from "),
        (["run", "exits.py"], "exits.py:2: SystemExit: 3"),
        (["data", "import", "nowhere", "--out", "here"], "nowhere does not exist"),
        (["data", "inspect", "nowhere"], "nowhere"),
        (["data", "index", "nowhere"], "no folder nowhere"),
        (["data", "index", ".", "--split", "train"], "NAME=PATTERN"),
        (["data", "embed", "nowhere", "--out", "x"], "nowhere"),
        (["bench", "data", "--images", "4"], "less than a batch"),
        (["run", "own.py", "--data", "s3://b/d"], "data are read from a folder or from gs://"),
        (["doctor", "--data", "s3://b/d"], "data are read from a folder or from gs://"),
        (["run", "own.py", "--set", "execution.data_root=s3://b/d"], "data sets are read from"),
        (["run", "own.py", "--execution", "gs://b/e"], "--execution': gs://b/e is not on this"),
        (
            ["plan", "own.py", "--save-execution", "gs://b/e"],
            "--save-execution': gs://b/e is not on this machine",
        ),
        (["plan", "own.py", "--calibrate", "gs://b/r"], "--calibrate': gs://b/r is not on this"),
        (["figures", "--paper", "--out", "gs://b/f"], "--out': gs://b/f is not on this machine"),
        (["data", "glyphs", "--out", "gs://b/g"], "--out': gs://b/g is not on this machine"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(study, args, said):
    code, out, err = study(*args)
    assert (code, out) == (2, "")
    assert err.startswith("study: ")
    assert err.count("\n") == 1
    assert said in err
    assert not Path("gs:").exists()


def test_a_benchmark_is_brought_in(study):
    for name in ("cat", "dog"):
        Path("pets/test", name).mkdir(parents=True)
        Path("pets/test", name, "a.jpg").write_bytes(b"copied as it is")
    code, out, err = study("data", "import", "pets", "--out", "data/pets", "--split", "test")
    assert (code, out, err) == (0, "data/pets: 2 test; 2 classes\n", "")
    code, _, err = study("data", "import", "pets", "--out", "data/pets")
    assert (code, err.count("\n")) == (2, 1)


def test_a_record_of_another_cell_is_one_line(study, monkeypatch):
    from sweeps.runner import worker

    def train(cell, execution, *, folder, **_):
        Record(folder).check(cell.hash, None)

    folder = Path("runs/own") / CELLS[0].id
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text('{"hash": "0123456789"}')
    monkeypatch.setattr(worker, "import_entry", lambda entry: train)
    code, _, err = study("train", "own.py", CELLS[0].id)
    assert (code, err.count("\n")) == (2, 1)
    assert "another cell" in err


def test_a_root_that_cannot_be_written_is_one_line(study):
    Path("file").write_text("")
    code, _, err = study("run", "own.py", "--root", "file")
    assert (code, err.count("\n")) == (2, 1)
    assert "--root" in err


def test_a_root_on_a_mounted_bucket_is_refused(study, tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"44 27 0:43 / {tmp_path}/mnt rw,relatime - fuse.gcsfuse lab rw,user_id=0\n")
    monkeypatch.setattr("study.records.mounts.MOUNTS", mounts)
    for args in (("run", "own.py"), ("train", "own.py", CELLS[0].id)):
        code, out, err = study(*args, "--root", "mnt/runs")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "mnt/runs" in err and "is a bucket mounted as a folder, fuse.gcsfuse (lab)" in err
    code, out, _ = study("doctor", "--root", "mnt/runs", "--json")
    (disk,) = [check for check in json.loads(out) if check["name"] == "disk of records"]
    assert (code, disk["verdict"]) == (1, "fail")
    assert "is a bucket mounted as a folder" in disk["text"]
    assert not Path("mnt").exists()


def test_an_unexpected_error_is_one_line_that_says_where_the_rest_is(study, monkeypatch):
    import sweeps.registry

    def broken(name):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sweeps.registry, "load_study", broken)
    code, out, err = study("run", "own.py")
    assert (code, out, err.count("\n")) == (70, "", 1)
    trace = Path(err.split()[-1])
    assert "ZeroDivisionError: a bug" in trace.read_text()
    trace.unlink()


def test_status_says_where_cells_stand_and_its_exit_code_too(study):
    assert study("status", "own.py")[0] == 3
    end(CELLS[0])
    end(CELLS[1], "diverged")
    with held(CELLS[2]):
        code, out, _ = study("status", "own.py")
        assert code == 3
        assert "1 done, 1 diverged, 1 running" in out
        assert "zero-shot val_font 12.5 %" in out
    write_failure(Path("runs/own") / CELLS[2].id, error="no luck")
    code, out, _ = study("status", "own.py")
    assert code == 1
    assert "no luck" in out
    end(CELLS[2])
    assert study("status", "own.py")[0] == 0
    assert study("status", "own.py", "--watch")[0] == 0


def test_status_as_json_has_every_cell(study):
    end(CELLS[0])
    code, out, _ = study("status", "own.py", "--json")
    told = json.loads(out)
    assert code == 3
    assert told["states"] == {"done": 1, "pending": 2}
    assert [cell["id"] for cell in told["cells"]] == [cell.id for cell in CELLS]
    assert told["cells"][0]["summary"] == {"eval/zero_shot/val_font/top1": 12.5}


def test_a_dry_run_lists_what_would_run_and_writes_nothing(study):
    end(CELLS[0])
    before = sorted(Path().rglob("*"))
    code, out, _ = study("run", "own.py", "--dry-run")
    assert code == 0
    assert "2 cells to run, 1 finished" in out
    assert CELLS[0].id not in out
    told = json.loads(study("run", "own.py", "--dry-run", "--json")[1])
    assert [cell["id"] for cell in told["to_run"]] == [cell.id for cell in CELLS[1:]]
    assert sorted(Path().rglob("*")) == before


def test_cells_that_are_done_in_a_snapshot_are_left_out(study):
    assert study("run", "own.py", "--dry-run", "--skip-done-in", "snap")[0] == 2
    end(CELLS[0])
    assert study("pull", "own", "--out", "snap")[0] == 0
    shutil.rmtree("runs")
    code, out, _ = study("run", "own.py", "--dry-run", "--skip-done-in", "snap")
    assert (code, "2 cells to run, 0 finished" in out) == (0, True)
    for cell in CELLS[1:]:
        end(cell)
    assert study("pull", "own", "--merge-from", "snap", "--out", "snap")[0] == 0
    shutil.rmtree("runs")
    code, out, _ = study("run", "own.py", "--skip-done-in", "snap")
    assert (code, out) == (0, "own: all 3 cells are done in snap\n")


def test_a_run_of_a_study_that_is_over_imports_neither_ray_nor_jax(study, tmp_path):
    for cell in CELLS:
        end(cell)
    loaded = modules_after("run", "own.py", cwd=tmp_path)
    assert "sweeps.runner.run" in loaded
    assert not loaded & {"ray", "jax", "pandas", "matplotlib", "wandb"}
    code, out, _ = study("run", "own.py")
    assert (code, out) == (0, "own: nothing to run: 3 done\n")
    assert json.loads(study("run", "own.py", "--json")[1])["states"] == {"done": 3}


@pytest.mark.parametrize("args", [["--help"], ["list"]])
def test_the_start_of_the_command_line_is_light(args, tmp_path):
    heavy = {"ray", "jax", "flax", "pandas", "matplotlib", "scipy", "wandb"}
    assert not modules_after(*args, cwd=tmp_path) & heavy


def test_figures_and_claims_take_the_metric_that_a_study_has(study):
    """A study need not evaluate on the split that the built-in ones take for quality."""
    from analysis.claims import CLAIMS

    end(CELLS[0])
    key = "eval/zero_shot/val_font/top1"
    one = ("figures", "own.py", "--figure", "from_scratch")
    code, _, err = study(*one, "--metric", "eval/zero_shot/test_font/top1")
    assert code == 2 and "has ended with eval/zero_shot/test_font/top1" in err
    assert f"metrics that they have: {key}" in err
    code, out, _ = study(*one, "--metric", key, "--json")
    drawn = {one["figure"]: one for one in json.loads(out)}
    assert code == 0
    suffixes = [Path(file).suffix for file in drawn["from_scratch"]["files"]]
    assert suffixes == [".png", ".pdf", ".md", ".tex", ".csv"]
    for args in (("--only", "seed=1"), ("--set", "budget.steps=20")):
        assert "none of its cells has ended" in study(*one, *args)[1]
    code, out, _ = study("figures", "own.py", "--only", "seed=1")
    assert code == 0
    assert len(out.splitlines()) == 1  # none is drawn
    assert out.startswith("own: drew nothing: ")
    code, out, _ = study("claims", "own.py", "--metric", key, "--json")
    assert code == 0
    assert len(json.loads(out)) == len(CLAIMS)
    assert study("claims", "own.py", "--json")[1] == out  # the only evaluation there is


def test_train_runs_one_cell_in_this_process_and_not_twice(study, monkeypatch):
    from sweeps.runner import worker

    entered = []

    def train(cell, execution, *, folder, group, should_stop, **_):
        entered.append((cell, execution.data_root, execution.decode_workers, group))
        end(cell)
        return {"status": "done"}

    monkeypatch.setattr(worker, "import_entry", lambda entry: train)
    args = ("train", "own.py", CELLS[1].id[:-2], "--data", "elsewhere", "--decode-workers", "3")
    assert study(*args)[0] == 0
    code, out, _ = study(*args)
    assert code == 0
    assert "is done" in out
    assert entered == [(CELLS[1], str(Path("elsewhere").absolute()), 3, "own")]


def test_a_train_that_is_asked_to_stop_says_at_once_that_it_heard(study, monkeypatch):
    """What it compiles it compiles to the end, and silence would look like a hang."""
    from sweeps.runner import worker

    def train(cell, execution, *, folder, group, should_stop, **_):
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.wait(60)
        raise Stopped

    class Stopped(Exception):
        pass

    heard = threading.Event()
    line = Lines.line
    monkeypatch.setattr(
        Lines,
        "line",
        lambda self, text: (line(self, text), "stopping" in text and heard.set()),
    )
    monkeypatch.setattr(worker, "import_entry", lambda entry: train)
    code, out, _ = study("train", "own.py", CELLS[0].id)
    assert code == 130
    assert out.index("stopping: the cell saves") < out.index("to continue: study train own.py")


def test_a_cell_that_fails_in_train_says_where_the_traceback_is(study, monkeypatch):
    from sweeps.runner import worker

    def train(*args, **more):
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(worker, "import_entry", lambda entry: train)
    code, out, err = study("train", "own.py", CELLS[0].id)
    assert code == 1
    assert "ZeroDivisionError: no luck" in out
    assert json.loads(Path(err.split()[-1]).read_text())["trace"]


def test_doctor_has_a_verdict_on_everything_and_never_shows_a_key(study, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-secret")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    Path("data/broken").mkdir(parents=True)
    Path("data/broken/dataset.json").write_text("{")
    Path("runs/own/x").mkdir(parents=True)
    Path("runs/own/x/lease.json").write_text("{}")
    os.utime("runs/own/x/lease.json", (0, 0))
    code, out, _ = study("doctor", "--json")
    found = {check["name"]: check for check in json.loads(out)}
    assert code == 1
    assert found["data set"]["verdict"] == "fail"
    assert "10.0.0.1:6379" in found["ray"]["text"]
    assert found["leases"]["verdict"] == "warn"
    assert found["jax"]["verdict"] == "ok"
    assert "cpu" in found["jax"]["text"]
    assert "secret" not in out
