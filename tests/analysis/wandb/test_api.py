"""Runs from a server that limits the rate, breaks off, and has runs that are none of ours."""

from inspect import signature

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.records.frame import cells, rows
from analysis.records.record import RecordRoot
from analysis.wandb import api as wandb_api

TOP1 = "eval/zero_shot/test_font/top1"


class Refused(Exception):
    def __init__(self):
        super().__init__("401 of https://secret@host")


class FakeRun:
    """`scan_history` as wandb has it; `fails` is raised once, after 20 rows."""

    def __init__(self, run_id, group, config, history, state="finished"):
        self.id, self.group, self.config, self.state = run_id, group, config, state
        self.history, self.fails, self.scans = history, None, 0
        self.lastHistoryStep = len(history) - 1

    def scan_history(self):
        self.scans += 1
        for number, row in enumerate(self.history):
            if self.fails and number == min(20, len(self.history) - 1):
                error, self.fails = self.fails, None
                raise error
            yield row


class FakeApi:
    def __init__(self, *runs):
        self.all, self.fails, self.asked = list(runs), [], []

    def runs(self, path, filters=None):
        self.asked.append((path, filters))
        if self.fails:
            raise self.fails.pop(0)
        groups = filters["group"]["$in"] if filters else None
        return [run for run in self.all if groups is None or run.group in groups]


def make_run(writer, cell, *, steps=None, **more):
    """A run that mirrors a cell whose record `writer` writes too."""
    record = writer.begin(cell)
    history = []
    for step in range(1, (steps or 30) + 1):
        step = cell.steps * step // 30
        groups = [{"train/loss": 1.0 / step, "train/t": 10.0}]
        groups += [{TOP1: float(step)}] if step % 2 == 0 else []
        for values in groups:
            record.row(writer.seen(cell, step), **values)
            counts = {"global_step": step, "examples_seen": step * cell.batch_size, "attempt": 1}
            row = {**counts, "pairs_seen": float(step * cell.pairs_per_step), **values}
            history.append({**row, "_step": len(history), "_timestamp": 1e9 + step})
    record.close()
    about = writer.about(cell)
    return FakeRun(cell.id, writer.study, about, history, **more)


@pytest.fixture
def fetch(tmp_path):
    def fetch(api, **more):
        return wandb_api.fetch(api, "lab/project", tmp_path / "pulled", **more)

    return fetch


def test_what_is_fetched_equals_the_record(writer, fetch, tmp_path):
    cell = writer.cell(16)
    api = FakeApi(make_run(writer, cell), FakeRun("other", "s", {"lr": 1}, []))
    done = fetch(api)
    assert (done.new, done.skipped) == ((cell.id,), ("other",))
    same_rows(writer.root, tmp_path / "pulled")
    assert cells(tmp_path / "pulled")["status"].tolist() == ["done"]


def same_rows(ours, theirs):
    ours, theirs = (rows(root).drop(columns="time") for root in (ours, theirs))
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_pull_that_broke_off_goes_on_when_it_is_run_again(writer, fetch, tmp_path):
    runs = [make_run(writer, writer.cell(16, seed=seed)) for seed in range(2)]
    runs[1].fails = ConnectionError()
    with pytest.raises(AnalysisError, match="run the same again later"):
        fetch(FakeApi(*runs))
    done = fetch(FakeApi(*runs))
    assert (done.kept, done.new) == ((runs[0].id,), (runs[1].id,))
    same_rows(writer.root, tmp_path / "pulled")


@pytest.mark.parametrize("error", [Refused(), ValueError("key 0123456789abcdef")])
def test_a_refusal_is_one_line_without_a_word_of_the_server(writer, fetch, error):
    api = FakeApi()
    api.fails = [error]
    with pytest.raises(AnalysisError, match="check the name lab/project") as caught:
        fetch(api)
    assert "secret" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_what_was_fetched_whole_is_not_fetched_again(writer, fetch, tmp_path):
    runs = [make_run(writer, writer.cell(16, seed=seed)) for seed in range(3)]
    runs[2].fails = Refused()
    with pytest.raises(AnalysisError):
        fetch(FakeApi(*runs))
    scans = [run.scans for run in runs]
    done = fetch(FakeApi(*runs))
    assert done.kept == (runs[0].id, runs[1].id)
    assert done.new == (runs[2].id,)
    assert [run.scans for run in runs[:2]] == scans[:2]
    runs[0].lastHistoryStep += 1  # it was resumed since
    runs[0].history.append(runs[0].history[-1] | {"_step": len(runs[0].history), "train/t": 11.0})
    assert fetch(FakeApi(*runs)).new == (runs[0].id,)
    assert len(RecordRoot(tmp_path / "pulled").records(writer.study)) == 3


def test_a_run_that_goes_on_is_refused_unless_asked(writer, fetch, tmp_path):
    run = make_run(writer, writer.cell(16), steps=5, state="running")
    with pytest.raises(AnalysisError, match=rf"1 run is not over, such as {run.id}; .*unfinish"):
        fetch(FakeApi(run))
    fetch(FakeApi(run), unfinished=True)
    assert cells(tmp_path / "pulled")["status"].tolist() == ["running-or-interrupted"]
    scans = run.scans
    fetch(FakeApi(run), unfinished=True)
    assert run.scans == 2 * scans
    run.state = "preempted"  # its worker saved it and stopped
    with pytest.raises(AnalysisError, match="1 run is not over"):
        fetch(FakeApi(run))
    run.state = "crashed"
    fetch(FakeApi(run))
    assert cells(tmp_path / "pulled")["status"].tolist() == ["failed"]


def test_only_the_studies_that_were_asked_for_are_fetched(writer, fetch):
    api = FakeApi(make_run(writer, writer.cell(16)))
    assert fetch(api, studies=["another"]).new == ()
    assert len(fetch(api, studies=[writer.study]).new) == 1
    assert api.asked[0] == ("lab/project", {"group": {"$in": ["another"]}})


def test_the_fakes_are_shaped_like_wandb(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    from wandb.apis.public import Api, Run

    assert list(signature(FakeApi.runs).parameters) == list(signature(Api.runs).parameters)[:3]
    signature(Run.scan_history).bind(Run)  # every argument has a default
    assert isinstance(Run.lastHistoryStep, property)
    attrs = {"state": "finished", "group": "s", "config": {"cell": {"batch_size": 16}}}
    made = Run(None, "lab", "project", "run-1", attrs, lazy=False)
    assert (made.id, made.state, made.group) == ("run-1", "finished", "s")
    assert made.config == attrs["config"]
