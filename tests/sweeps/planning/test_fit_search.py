"""The cheapest setting that fits: the order of trying, what is kept, and what ends a search."""

from __future__ import annotations

import json
import signal

import pytest

from study.config import Budget, CachedImage, Cell, CellError, Model, TextTransformer, ViT
from study.config.hardware import GIB, get_slice
from study.planning import tpu_compile
from study.planning.fits import FitReport, ProgramSpec, RunSetting, evaluation_of
from study.training.compile_key import memory_key
from sweeps.planning import fit_search as search
from sweeps.planning.fit_search import FitResult, SearchTask, candidates
from sweeps.planning.memory import evaluation_bytes

USABLE = get_slice("v4-8").chip.usable_bytes
SIGLIP = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)
SIGLIT = Model(
    image=CachedImage(embeddings="e", dim=1408),
    text=TextTransformer(variant="g"),
    embed_dim=1408,
    dtype="bfloat16",
)


def spec(batch_size: int = 16384, slice_name: str = "v4-8") -> ProgramSpec:
    cell = Cell(model=SIGLIP, batch_size=batch_size, budget=Budget(steps=100))
    return ProgramSpec(
        cell=memory_key(cell, 8192),
        vocabulary=32_000,
        image_shape=(224, 224, 3),
        slice=slice_name,
    )


SMALLEST = RunSetting(microbatch=1, remat="nothing_saveable", fsdp_min_mib=search.FSDP_MIN_MIB)


def fits(setting: RunSetting) -> bool:
    return setting.microbatch is not None and setting.microbatch <= 8


class Compiler:
    """Knows what fits, and what it was asked."""

    def __init__(self, fits=fits):
        self.asked: list[RunSetting] = []
        self._fits = fits

    def __call__(self, spec, settings):
        for setting in settings:
            self.asked.append(setting)
            fine = self._fits(setting)
            yield setting, FitReport(step_bytes=USABLE + (not fine), usable_bytes=USABLE)
            if fine:
                return


def find(compiler, cache, **more) -> FitResult:
    return search.search(SearchTask(step=spec(**more)), cache=cache, compile_with=compiler)


def cost(setting: RunSetting) -> tuple[bool, float, float]:
    again = (setting.microbatch is not None) + 0.8 * (setting.remat is not None)
    return setting.fsdp_min_mib is not None, again, -(setting.microbatch or 1 << 30)


@pytest.mark.parametrize("batch_size", [256, 4096, 65536])
def test_candidates_go_from_the_cheapest_to_the_smallest(batch_size):
    settings = candidates(spec(batch_size))
    assert settings[:-1] == sorted(settings[:-1], key=cost)
    assert settings[-1] == SMALLEST
    assert len(set(settings)) == len(settings)
    assert candidates(spec(64))[0] == RunSetting()
    own = RunSetting(microbatch=3)
    assert candidates(spec(batch_size), own) == [own, *settings]


def test_the_first_that_fits_ends_the_search_and_nothing_is_compiled_twice(tmp_path):
    compiler = Compiler()
    result = find(compiler, tmp_path)
    assert result.report.fits and fits(result.setting)
    assert compiler.asked[-1] == result.setting
    assert not any(fits(setting) for setting in compiler.asked[:-1])
    again = Compiler()
    assert find(again, tmp_path) == result
    assert again.asked == []
    for file in tmp_path.glob("*.json"):  # torn by a kill
        file.write_text(file.read_text()[:20])
    assert find(again, tmp_path) == result
    assert again.asked == compiler.asked


@pytest.mark.parametrize("batch_size", [64, 16384, 1 << 26])
def test_a_cell_is_too_large_only_when_the_smallest_setting_was_refused(tmp_path, batch_size):
    """A batch that is far above the memory by every estimate costs one compilation."""
    compiler = Compiler(lambda setting: False)
    result = find(compiler, tmp_path, batch_size=batch_size)
    assert not result.report.fits
    assert compiler.asked[-1] == candidates(spec(batch_size))[-1] == result.setting == SMALLEST
    assert len(compiler.asked) == len(candidates(spec(batch_size)))
    assert (len(compiler.asked) == 1) == (batch_size == 1 << 26)
    assert search.search_cached(SearchTask(step=spec(batch_size)), tmp_path) == result
    (tmp_path / f"{spec(batch_size).key(SMALLEST)}.json").unlink()
    assert search.search_cached(SearchTask(step=spec(batch_size)), tmp_path) is None


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(CellError, match=r"batch_size: 1022 cannot be spread evenly over the 4"):
        find(Compiler(), tmp_path, batch_size=1022)


class Programs:
    """Every step needs 1 GiB on top of 8 GiB of state, of which an eighth is left if it is sharded;
    an evaluation needs `evaluation_gib`."""

    def __init__(self, evaluation_gib):
        self.asked: list[tuple[str, RunSetting]] = []
        self._evaluation_gib = evaluation_gib

    def __call__(self, spec, settings):
        for setting in settings:
            self.asked.append((spec.program, setting))
            state = 8 * GIB if setting.fsdp_min_mib is None else GIB
            if spec.program == "evaluation":
                encoding = int(self._evaluation_gib * GIB)
                report = FitReport(usable_bytes=USABLE, evaluation_bytes=encoding)
            else:
                report = FitReport(usable_bytes=USABLE, state_bytes=state, step_bytes=state + GIB)
            yield setting, report
            if report.fits:
                return


def task(batch_size: int = 64, rows: int = 2048) -> SearchTask:
    step = spec(batch_size)
    return SearchTask(step=step, evaluation=evaluation_of(step, rows))


def test_an_evaluation_that_does_not_fit_rules_a_way_out(tmp_path):
    """It fits if parameters are sharded; no setting that replicates them does."""
    compiler = Programs(25)
    found = search.search(task(), cache=tmp_path, compile_with=compiler)
    assert found.report.fits and found.setting.fsdp_min_mib is not None
    assert found.report.needed_bytes == 26 * GIB
    assert found.report.largest_phase == "evaluation"
    assert found.report.summary == "takes 26.0 of 30.8 GiB for evaluation"
    # One step and one evaluation for whole parameters, one of each for cut ones.
    assert [(program, setting.fsdp_min_mib) for program, setting in compiler.asked] == [
        ("step", None),
        ("evaluation", None),
        ("step", search.FSDP_MIN_MIB),
        ("evaluation", search.FSDP_MIN_MIB),
    ]
    again = Programs(25)
    assert search.search(task(), cache=tmp_path, compile_with=again) == found
    assert search.search_cached(task(), tmp_path) == found
    assert again.asked == []


def test_where_no_way_leaves_room_for_an_evaluation_that_is_what_is_reported(tmp_path):
    found = search.search(task(), cache=tmp_path, compile_with=Programs(40))
    assert not found.report.fits
    assert found.report.summary == (
        "needs 41.0 of 30.8 GiB for evaluation; lower execution.eval_batch_size"
    )


def test_an_evaluation_that_stays_below_the_step_by_formula_is_not_compiled(tmp_path):
    compiler = Programs(40)
    found = search.search(task(rows=4), cache=tmp_path, compile_with=compiler)
    assert found.report.fits and found.report.largest_phase == "the training step"
    assert [program for program, _ in compiler.asked] == ["step"]


def test_nothing_is_known_of_a_cell_whose_evaluation_is_not(tmp_path):
    search.search(SearchTask(step=spec(64)), cache=tmp_path, compile_with=Programs(1))
    assert search.search_cached(SearchTask(step=spec(64)), tmp_path) is not None
    assert search.search_cached(task(), tmp_path) is None


def test_cells_with_the_same_towers_share_an_evaluation(tmp_path):
    for batch_size in (64, 128):
        compiler = Programs(20)
        found = search.search(task(batch_size), cache=tmp_path, compile_with=compiler)
        assert found.report.needed_bytes == 28 * GIB
    assert "evaluation" not in dict(compiler.asked)


# GiB that libtpu 0.0.42.1 takes on v4-8, without the parameters, to embed 2048 images or texts,
# whichever takes more: batch, embeddings and all in between.
MEASURED = [
    (SIGLIP, None, 1.84),
    (SIGLIP, 1.0, 1.72),
    (SIGLIT, None, 1.98),
    (SIGLIT, 1.0, 0.62),
]


@pytest.mark.parametrize(("model", "fsdp_min_mib", "gib"), MEASURED)
def test_the_formula_for_evaluations_is_a_bound(model, fsdp_min_mib, gib):
    cell = Cell(model=model, batch_size=2048, budget=Budget(steps=1))
    setting = RunSetting(fsdp_min_mib=fsdp_min_mib)
    bound = evaluation_bytes(cell, get_slice("v4-8"), setting, 32_000) / GIB
    assert gib < bound < 12 * gib


def test_a_compiler_that_crashes_is_a_report_and_the_search_goes_on(tmp_path, monkeypatch):
    """It crashes on every setting that is not small; a new process tries the next."""
    started = []

    def run_python(argv, *, stdin):
        settings = json.loads(stdin)["settings"]
        started.append(len(settings))
        yield {"trying": settings[0]}
        if not fits(RunSetting(**settings[0])):
            raise tpu_compile.TpuCompileError("compiling for TPU failed: Check failed: x < y")
        report = FitReport(step_bytes=1, usable_bytes=2)
        yield {"setting": settings[0], "report": vars(report)}

    monkeypatch.setattr(tpu_compile, "run_python", run_python)
    result = find(None, tmp_path)
    assert result.report.fits
    assert len(started) == result.tried
    # It may have been this machine's fault, so it is not cached.
    assert search.load_cached(spec(), candidates(spec())[0], tmp_path) is None


@pytest.mark.parametrize(
    ("message", "code", "begins"),
    [
        ("compiling for TPU failed: Check failed: x < y", None, True),
        ("compiling for TPU failed: exit code -9", -9, True),  # killed from outside
        ("libtpu is not installed", None, False),
    ],
)
def test_only_a_compilers_own_crash_is_a_report(tmp_path, monkeypatch, message, code, begins):
    def run_python(argv, *, stdin):
        if begins:
            yield {"trying": json.loads(stdin)["settings"][0]}
        error = tpu_compile.TpuCompileError(message)
        error.code = code
        raise error

    monkeypatch.setattr(tpu_compile, "run_python", run_python)
    if begins and code is None:
        report = find(None, tmp_path).report
        assert not report.fits
        assert report.summary == "the compiler crashed: Check failed: x < y"
    else:
        with pytest.raises(tpu_compile.TpuCompileError, match=message):
            find(None, tmp_path)


def plan_that_compiles() -> str:
    """A script: reads what a process says whose compiler never comes back."""
    compiling = (
        "import time; from study.planning import fits;"
        "fits.compile_report = lambda *_: time.sleep(600);"
        "fits.main()"
    )
    request = json.dumps({"spec": spec().to_dict(), "settings": [vars(RunSetting())]})
    return (
        "from study.planning import tpu_compile; tpu_compile.why_unavailable = lambda: None\n"
        f"lines = tpu_compile.run_python(['-c', {compiling!r}], stdin={request!r})\n"
        "for line in lines: print(line, flush=True)"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_compiler_outlives_the_plan_that_started_it(start, session, wait_for, how):
    process = start("-c", plan_that_compiles())
    assert "trying" in process.stdout.readline()
    assert len(session(process.pid)) == 2
    process.send_signal(how)
    wait_for(lambda: session(process.pid) == [])
