"""Plans: counts, verdicts, times and files, without a compiler; answers come from the cache."""

from __future__ import annotations

import json
import statistics

import pytest

from analysis.records import snapshot
from analysis.records.record import RecordRoot
from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    CellError,
    Data,
    Execution,
    Model,
    Sigmoid,
    TextTransformer,
    ValLoss,
)
from study.config.hardware import get_slice, this_cpu
from study.models.flops import step_flops
from study.planning import tpu_compile
from study.planning.fits import FitReport, RunSetting
from sweeps.cli import options
from sweeps.cli import plan as plan_verb
from sweeps.planning import fit_search as search
from sweeps.planning.calibrate import compare_predictions, load_calibration
from sweeps.planning.plan import apply, execution_file, plan, sizes
from sweeps.planning.roofline import MFU, step_time
from sweeps.study import Matched, Study, StudyError

USABLE = get_slice("v4-8").chip.usable_bytes
MODEL = Model(
    image=CachedImage(embeddings="e", dim=1408),
    text=TextTransformer(variant="B"),
    embed_dim=1408,
    dtype="bfloat16",
)


def cell(batch_size=4096, examples=10_000_000, **more) -> Cell:
    data = Data(dataset="lit", tokenizer="c4_en.model")
    budget = Budget(examples=examples)
    return Cell(model=MODEL, data=data, batch_size=batch_size, budget=budget, **more)


def study(*cells: Cell, slice_name: str | None = "v4-8") -> Study:
    return Study(name="s", question="?", cells=cells, execution=Execution(slice=slice_name))


@pytest.fixture
def use_compiler(monkeypatch, tmp_path):
    """`use_compiler(report_of)` plans by the reports that it gives for a spec and a setting.

    Returns the list of (spec, setting) that are compiled, up to the first that fits.
    """
    monkeypatch.setattr(tpu_compile, "why_unavailable", lambda: None)
    monkeypatch.setenv("STUDY_PLAN_CACHE", str(tmp_path))

    def use(report_of):
        compiled = []

        def compile_settings(spec, settings):
            for setting in settings:
                compiled.append((spec, setting))
                report = FitReport(usable_bytes=USABLE, **report_of(spec, setting))
                yield setting, report
                if report.fits or report.aborted:
                    return

        monkeypatch.setattr(search, "compile_settings", compile_settings)
        return compiled

    return use


@pytest.fixture
def compiled(use_compiler):
    """Microbatches fit; from 16 chips on everything does, and nothing from 65,536 examples."""

    def report_of(spec, setting):
        small = setting.microbatch is not None and spec.cell.batch_size < 65536
        fits = small or get_slice(spec.slice).chips >= 16
        return {"step_bytes": USABLE + (not fits)}

    return use_compiler(report_of)


def test_cells_that_differ_in_schedule_alone_are_compiled_once(compiled, tmp_path):
    cells = [cell(examples=n, seed=s) for n in (10**7, 10**8) for s in (0, 1)]
    plans = plan(study(*cells), cache=tmp_path)
    assert [p.cell for p in plans] == cells
    assert all(p.fits for p in plans)
    assert len(compiled) == len(set(compiled))
    assert {spec.cell.batch_size for spec, _ in compiled} == {4096}
    compiled.clear()
    assert plan(study(*cells), cache=tmp_path) == plans
    assert compiled == []


def test_a_generation_means_its_smallest_slice_that_fits(compiled, tmp_path):
    plans = plan(study(cell(4096), cell(65536)), slice_name="v4", cache=tmp_path)
    assert [p.machine.name for p in plans] == ["v4-8", "v4-32"]
    assert all(p.fits for p in plans)


def test_only_a_refusal_of_the_smallest_setting_is_a_no(use_compiler, tmp_path):
    """No estimate is, however large the cell."""
    huge = cell(1 << 28, examples=1 << 30)
    (item,) = plan(study(huge), cache=tmp_path, no_compile=True)
    assert item.hbm_bytes > USABLE
    assert item.fits is None
    compiled = use_compiler(lambda spec, setting: {"step_bytes": USABLE + 1})
    (item,) = plan(study(huge), cache=tmp_path)
    assert item.fits is False
    smallest = RunSetting(microbatch=1, remat="nothing_saveable", fsdp_min_mib=search.FSDP_MIN_MIB)
    assert item.setting == compiled[-1][1] == smallest


def test_a_compiler_that_crashes_is_no_verdict(use_compiler, report, tmp_path, capsys):
    """The cell goes to a larger slice; without one the plan fails and writes none."""

    def report_of(spec, setting):
        if get_slice(spec.slice).chips >= 16:
            return {"step_bytes": 1}
        return {"step_bytes": USABLE + 1, "aborted": "x < y"}

    use_compiler(report_of)
    (item,) = plan(study(cell()), cache=tmp_path)
    assert (item.fits, item.fits_or_estimated) == (None, False)
    assert execution_file([item]) == {}
    (item,) = plan(study(cell()), slice_name="v4", cache=tmp_path)
    assert (item.fits, item.machine.name) == (True, "v4-32")
    assert report() == 1
    printed = capsys.readouterr().out
    assert "may not fit v4-8: the compiler crashed: x < y" in printed
    assert "0 do not fit" in printed
    assert "analytic estimate" not in printed


def test_the_evaluation_of_a_cell_that_has_one_counts(use_compiler, report, tmp_path, capsys):
    """One line names the phase that does not fit. Cells share their step."""
    compiled = use_compiler(
        lambda spec, setting: (
            {"evaluation_bytes": USABLE + 2**30}
            if spec.program == "evaluation"
            else {"step_bytes": 2**20}
        )
    )
    evaluated = cell(evals=(ValLoss(split="val"),))
    without, with_it = plan(study(cell(), evaluated), cache=tmp_path)
    assert (without.fits, with_it.fits) == (True, False)
    assert [(s.program, way) for s, way in compiled].count(("step", RunSetting())) == 1
    assert report(study(evaluated)) == 1
    line = (
        f"{evaluated.id}: does not fit v4-8: needs 31.8 of 30.8 GiB for evaluation; lower "
        "execution.eval_batch_size\n"
    )
    assert line in capsys.readouterr().out


def test_days_and_cost_follow_from_steps_and_chips(compiled, tmp_path):
    (item,) = plan(study(cell()), cache=tmp_path)
    row = item.row(price=2.0)
    assert row["days"] == pytest.approx(item.cell.steps * item.step_seconds / 86400, rel=1e-3)
    assert row["chip_hours"] == pytest.approx(24 * 4 * row["days"], rel=1e-3)
    assert row["cost"] == pytest.approx(2 * row["chip_hours"], rel=1e-2)
    assert "cost" not in item.row()
    json.dumps(row)


def test_without_libtpu_counts_and_estimates_are_still_there(monkeypatch, tmp_path):
    monkeypatch.setattr(tpu_compile, "why_unavailable", lambda: "libtpu is not installed")
    (item,) = plan(study(cell()), cache=tmp_path)
    assert (item.fits, item.verdict) == (None, "estimated")
    assert 0 < item.hbm_bytes < USABLE
    assert item.step_seconds > 0


def test_a_batch_that_does_not_divide_is_refused_compiled_or_not(tmp_path):
    with pytest.raises(CellError, match=r"batch_size: 4096 cannot be .* the 12 devices of v4-8x3"):
        plan(study(cell()), slice_name="v4-8x3", cache=tmp_path, no_compile=True)


@pytest.mark.parametrize("name", ["gpu:h100x8", "cpu", "v6e-16x2", "7x-8"])
def test_every_kind_of_machine_has_an_estimate(name, tmp_path):
    (item,) = plan(study(cell()), slice_name=name, cache=tmp_path, no_compile=True)
    assert item.step_seconds > 0
    assert item.machine.name == name


def test_an_execution_file_is_how_cells_then_run(compiled, tmp_path):
    planned = study(cell(), cell(8192))
    chosen = json.loads(json.dumps(execution_file(plan(planned, cache=tmp_path))))
    run = apply(planned, chosen, "f.json")
    for each in planned.cells:
        execution = run.execution_of(each)
        assert execution.slice == "v4-8"
        assert execution.microbatch == chosen[each.id]["microbatch"] is not None


def test_an_execution_file_of_another_study_or_with_other_fields_is_refused():
    with pytest.raises(StudyError, match=r"names no cell of s; write one with `study plan s"):
        apply(study(cell()), {"b1-x": {}}, "f.json")
    with pytest.raises(StudyError, match=r"f\.json: .*no slice 'v4-9'|f\.json: "):
        apply(study(cell()), {cell().id: {"slice": "v4-9"}}, "f.json")


def test_the_vocabulary_is_known_by_the_tokenizers_name():
    here = Execution(data_root="nowhere")
    assert sizes(cell(), here) == (32_000, (1408,))
    many = Cell(batch_size=16, data=Data(dataset="w", tokenizer="mc4.model"))
    assert sizes(many, here) == (250_112, (24, 24, 3))
    with pytest.raises(StudyError, match=r"the vocabulary of .* is unknown: .* give --data DIR"):
        sizes(Cell(batch_size=16, data=Data(dataset="w", tokenizer="own.model")), here)


def test_a_step_takes_longer_on_fewer_chips_and_never_less_than_its_operations():
    one = cell(65536, optimizer=Adam())
    flops = step_flops(one)
    times = [
        step_time(one, flops, get_slice(name), RunSetting(), 10**8) for name in ("v4-8", "v4-32")
    ]
    assert times[0].total > times[1].total
    for name, time in zip(("v4-8", "v4-32"), times, strict=True):
        machine = get_slice(name)
        assert time.total >= flops.model / (machine.chips * machine.chip.peak_flops * MFU["v4"])


def test_a_ring_that_crosses_slices_is_bound_by_the_network():
    one = cell(1 << 20)
    inside = step_time(one, step_flops(one), get_slice("v4-64"), RunSetting(), 10**8)
    across = step_time(one, step_flops(one), get_slice("v4-32x2"), RunSetting(), 10**8)
    assert across.loss >= inside.loss
    assert across.gradients > inside.gradients


def record(root, one: Cell, rates, kind="TPU v4", count=4):
    from study.config import to_dict

    folder = root / "s" / one.id
    folder.mkdir(parents=True)
    devices = {"kind": kind, "count": count}
    (folder / "cell.json").write_text(json.dumps({"cell": to_dict(one), "devices": devices}))
    rows = [
        {"step": k, "examples_seen": k, "pairs_seen": k, "attempt": 1, "time": 0.0,
         "train/examples_per_s": rate}
        for k, rate in enumerate(rates, 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_measured_speed_replaces_the_assumed_share(tmp_path):
    one, other = cell(), cell(8192)
    record(tmp_path, one, [10.0, 4096.0, 4096.0])
    calibration = load_calibration(tmp_path)
    mfu = step_flops(one).model / (4 * get_slice("v4-8").chip.peak_flops)
    assert calibration.mfu == {"v4": pytest.approx(mfu)}
    same, scaled = plan(
        study(one, other), calibration=calibration, cache=tmp_path / "cache", no_compile=True
    )
    assert same.step_seconds == pytest.approx(1.0)
    work = step_flops(other).model / step_flops(one).model
    assert scaled.step_seconds == pytest.approx(work)
    (row,) = compare_predictions(calibration)
    assert row["measured_examples_per_s"] == 4096
    assert row["predicted_examples_per_s"] > 0
    assert "calibrated_examples_per_s" not in row  # for there is no other


def test_a_measured_cell_is_predicted_by_the_others_alone(tmp_path):
    """Two of one speed and one that is twice as fast: each by the median of the other two."""
    for seed, rate in enumerate((4096.0, 4096.0, 8192.0)):
        record(tmp_path, cell(seed=seed), [10.0, rate])
    rows = compare_predictions(load_calibration(tmp_path))
    by_measured = {r["measured_examples_per_s"]: r["calibrated_examples_per_s"] for r in rows}
    assert by_measured == {4096.0: pytest.approx(6144.0), 8192.0: pytest.approx(4096.0)}


def test_a_cell_measured_twice_is_predicted_by_its_other_record(tmp_path):
    one = cell()
    for root, rate in (("a", 4096.0), ("b", 8192.0)):
        record(tmp_path / root, one, [10.0, rate])
    record(tmp_path / "c", cell(8192), [10.0, 1.0])
    calibration = load_calibration(tmp_path)
    by_measured = {
        r["measured_examples_per_s"]: r["calibrated_examples_per_s"]
        for r in compare_predictions(calibration)
    }
    assert (by_measured[4096.0], by_measured[8192.0]) == (8192.0, 4096.0)


def test_leaving_each_record_out_in_turn_equals_a_calibration_of_the_others():
    """On the records of glyphs, by the definition, which takes quadratic time."""
    calibration = load_calibration("results/glyphs/snapshot")
    rows = compare_predictions(calibration)
    assert len(rows) == len(calibration.measured) > 600
    for m, row in zip(calibration.measured, rows, strict=True):
        others = [o for o in calibration.measured if o is not m]
        assert all(o.cell.id != m.cell.id for o in others)
        share = statistics.median(o.mfu for o in others)
        seconds = step_flops(m.cell, channels=1).model / (this_cpu().peak_flops * share)
        assert row["calibrated_examples_per_s"] == float(f"{m.cell.batch_size / seconds:.5g}")


def test_a_snapshot_tells_the_speed_that_its_records_tell(tmp_path):
    for seed, rate in enumerate((4096.0, 8192.0)):
        record(tmp_path / "runs", cell(seed=seed), [10.0, rate])
    snapshot.write(RecordRoot(tmp_path / "runs"), tmp_path / "snap")
    assert load_calibration(tmp_path / "snap") == load_calibration(tmp_path / "runs")


def test_records_that_tell_nothing_are_told_in_one_line(tmp_path):
    record(tmp_path, cell(), [5.0], kind="TPU v99")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StudyError, match="no record there has a speed"):
            load_calibration(folder)


@pytest.fixture
def report(monkeypatch):
    """Runs `study plan` on a study that has no name."""

    def run(of: Study | None = None, **settings) -> int:
        monkeypatch.setattr(plan_verb, "study_of", lambda *_: of or study(cell()))
        return plan_verb.plan("s", **settings)

    return run


def test_labels_of_matching_cells_are_in_the_plan(report, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_PLAN_CACHE", str(tmp_path))
    pair = cell(4096), cell(8192, loss=Sigmoid(b_init=None))
    labelled = Study(
        name="s",
        question="?",
        cells=pair,
        execution=Execution(slice="v4-8"),
        matched=(Matched(by="examples", cells=pair),),
    )
    files = {"save_execution": str(tmp_path / "e.json"), "out": str(tmp_path / "out")}
    assert report(labelled, price=1.0, no_compile=True, as_json=True, **files) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [c["id"] for c in printed["matched"][0]["cells"]] == [c.id for c in pair]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {
        ".csv",
        ".png",
        ".pdf",
        ".md",
        ".tex",
    }
    run = options._apply_execution(labelled, str(tmp_path / "e.json"))
    assert run.execution_of(pair[0]).slice == "v4-8"
