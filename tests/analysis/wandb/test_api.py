"""Runs from a server that limits the rate, breaks off, and has runs that are none of ours."""

from collections import Counter

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.records.frame import cells, rows
from analysis.records.record import RecordRoot
from analysis.wandb import api as wandb_api

TOP1 = "eval/zero_shot/test_font/top1"


class Response:
    def __init__(self, status):
        self.status_code = status


class Refused(Exception):
    def __init__(self, status):
        super().__init__("401 of https://secret@host")
        self.response = Response(status)


class Wrapped(Exception):
    """As wandb's CommError holds what it met."""

    def __init__(self, exc):
        super().__init__("wrapped")
        self.exc = exc


class FakeRun:
    """`scan_history` as wandb has it: rows from `min_step` with all of `keys`; fails as told.

    Its `history_keys` tell how often each key was logged, as a server does; see `untold`.
    """

    def __init__(self, run_id, group, config, history, state="finished"):
        self.id, self.group, self.config, self.state = run_id, group, config, state
        self.history, self.fails, self.scans = history, [], 0
        self.lastHistoryStep = len(history) - 1
        self.groups = []  # of keys, in the order that they were asked for
        counts = Counter(key for row in history for key in row)
        kinds = {key: {"typeCounts": [{"type": "number", "count": n}]} for key, n in counts.items()}
        self.history_keys = {"keys": kinds, "lastStep": self.lastHistoryStep}

    def untold(self):
        """As of a server that keeps no counts."""
        del self.history_keys
        return self

    def scan_history(self, keys=None, page_size=1000, min_step=0, max_step=None):
        self.scans += 1
        self.groups.append(keys and {key for key in keys if "/" in key})
        for row in self.history:
            if row["_step"] < min_step or (keys and not set(keys) <= set(row)):
                continue
            if self.fails and row["_step"] >= self.fails[0][0]:
                raise self.fails.pop(0)[1]
            yield {key: row[key] for key in keys or row}


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
def waits():
    return []


@pytest.fixture
def fetch(tmp_path, waits):
    def fetch(api, **more):
        return wandb_api.fetch(api, "lab/project", tmp_path / "pulled", sleep=waits.append, **more)

    return fetch


def test_what_is_fetched_equals_the_record(writer, fetch, tmp_path, waits):
    cell = writer.cell(16)
    api = FakeApi(make_run(writer, cell), FakeRun("other", "s", {"lr": 1}, []))
    done = fetch(api)
    assert (done.new, done.skipped) == ((cell.id,), ("other",))
    same_rows(writer.root, tmp_path / "pulled")
    assert cells(tmp_path / "pulled")["status"].tolist() == ["done"]
    assert waits == []


def same_rows(ours, theirs):
    ours, theirs = (rows(root).drop(columns="time") for root in (ours, theirs))
    pd.testing.assert_frame_equal(ours[sorted(ours)], theirs[sorted(theirs)])


def test_a_group_of_keys_is_a_scan_and_its_rows_are_merged_by_step(writer, fetch, tmp_path):
    run = make_run(writer, writer.cell(16))
    fetch(FakeApi(run))
    assert run.groups == [{"train/loss", "train/t"}, {TOP1}]
    same_rows(writer.root, tmp_path / "pulled")


@pytest.mark.parametrize("told", [True, False])
def test_rows_that_lack_keys_of_their_group_are_not_lost(writer, fetch, tmp_path, told):
    """Two metrics of one beginning, each logged as often as the other and seldom together; the
    first has a line of its own, and one is in a line with what is evaluated."""
    cell = writer.cell(16)
    record, history = writer.begin(cell), []
    lines = [{"train/a": 1.0}, {"train/b": 2.0}, {"train/a": 3.0, "train/b": 4.0}, {TOP1: 5.0}]
    lines += [{"train/a": 6.0, TOP1: 7.0}, {"train/b": 8.0, "train/late": 9.0}]
    for step, values in enumerate(lines, start=1):
        record.row(writer.seen(cell, step), **values)
        counts = {"global_step": step, "examples_seen": step * cell.batch_size, "attempt": 1}
        row = {**counts, "pairs_seen": float(step * cell.pairs_per_step), **values}
        history.append({**row, "_step": len(history), "_timestamp": 1e9 + step})
    record.close()
    run = FakeRun(cell.id, writer.study, writer.about(cell), history)
    fetch(FakeApi(run if told else run.untold()))
    assert (None in run.groups) and (run.scans == 1) == (not told)
    same_rows(writer.root, tmp_path / "pulled")


def test_a_limit_in_the_middle_of_a_groups_scan_costs_that_scans_rest(writer, fetch, tmp_path):
    run = make_run(writer, writer.cell(16))
    run.fails = [(20, Refused(429)), (30, Refused(429))]
    fetch(FakeApi(run))
    train, evaluated = {"train/loss", "train/t"}, {TOP1}
    assert run.groups in ([train] * 3 + [evaluated], [train] * 2 + [evaluated] * 2)
    same_rows(writer.root, tmp_path / "pulled")


def test_a_pull_that_gave_up_in_mid_scan_goes_on_when_it_is_run_again(writer, fetch, tmp_path):
    runs = [make_run(writer, writer.cell(16, seed=seed)) for seed in range(2)]
    runs[1].fails = [(20, Refused(429))] * 8
    with pytest.raises(AnalysisError, match="run the same again later"):
        fetch(FakeApi(*runs))
    done = fetch(FakeApi(*runs))
    assert (done.kept, done.new) == ((runs[0].id,), (runs[1].id,))
    same_rows(writer.root, tmp_path / "pulled")


@pytest.mark.parametrize(
    "error", [Refused(429), Refused(503), Wrapped(Refused(502)), ConnectionError(), TimeoutError()]
)
def test_a_scan_that_breaks_off_goes_on_with_patience(writer, fetch, tmp_path, waits, error):
    run = make_run(writer, writer.cell(16))
    api = FakeApi(run)
    api.fails = [error]
    run.fails = [(7, error), (7, error), (20, error)]
    fetch(api)
    table = rows(tmp_path / "pulled")
    assert len(table) == len(run.history)
    assert not table.duplicated(["step", "train/loss", TOP1]).any()
    assert len(waits) == 4


def test_patience_grows_with_jitter_and_ends(writer, fetch, waits):
    api = FakeApi(make_run(writer, writer.cell(16)))
    api.fails = [Refused(429)] * 100
    with pytest.raises(AnalysisError, match=r"limits the rate 8 times; run the same again later"):
        fetch(api)
    means = [min(60.0, 2.0**n) for n in range(8)]
    assert all(0.5 * m <= wait <= 1.5 * m for wait, m in zip(waits, means, strict=True))
    assert len({wait / m for wait, m in zip(waits, means, strict=True)}) > 4


@pytest.mark.parametrize("error", [Refused(401), Refused(404), ValueError("key 0123456789abcdef")])
def test_a_refusal_is_one_line_without_a_word_of_the_server(writer, fetch, waits, error):
    api = FakeApi()
    api.fails = [error]
    with pytest.raises(AnalysisError, match="check the name of the project") as caught:
        fetch(api)
    assert "secret" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)
    assert waits == []


def test_what_was_fetched_whole_is_not_fetched_again(writer, fetch, tmp_path):
    runs = [make_run(writer, writer.cell(16, seed=seed)) for seed in range(3)]
    runs[2].fails = [(0, Refused(403))]
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
    run.state = "crashed"
    fetch(FakeApi(run))
    assert cells(tmp_path / "pulled")["status"].tolist() == ["failed"]


def test_only_the_studies_that_were_asked_for_are_fetched(writer, fetch):
    api = FakeApi(make_run(writer, writer.cell(16)))
    assert fetch(api, studies=["another"]).new == ()
    assert len(fetch(api, studies=[writer.study]).new) == 1
    assert api.asked[0] == ("lab/project", {"group": {"$in": ["another"]}})
