"""The cheapest way to run a cell that fits a slice, by compiling; reports are cached on disk.

Candidates, cheapest first: the whole batch at once; with rematerialised blocks; in microbatches (a
second forward pass), smaller and smaller; with parameters sharded over the slice. Candidates that
an analytic estimate puts far above the memory are skipped, except for the one that needs the
least: a cell is declared too large only when the compiler has refused that one.

A candidate fits if the whole run does: the training step, saving a checkpoint, and the evaluation
if the cell has one. The evaluation is compiled only if an upper bound on it exceeds the step.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from study.config import Cell, CellError
from study.config.hardware import Slice, get_slice
from study.planning import tpu_compile
from study.planning.fits import FitReport, ProgramSpec, RunSetting
from study.records.record import write_json
from sweeps.planning.memory import activation_bytes, evaluation_bytes, step_bytes

FSDP_MIN_MIB = 1.0

# The ladder of microbatches: the largest power of two whose activations take at most this share of
# the memory (a larger one needs as many operations), then these fractions of it.
MICROBATCH_MEMORY_SHARE = 0.5
MICROBATCH_FRACTIONS = (1, 4, 16)
FSDP_FRACTIONS = (1, 4)
# Skip candidates whose estimate, which is an upper one, is above this many times the memory. Low
# for whole batches: near its limit the compiler takes minutes, and microbatches cost little more.
# Higher for microbatches: only the slowest candidate comes after them.
WHOLE_BATCH_LIMIT, MICROBATCH_LIMIT = 1.2, 1.5

# These signals are no verdict on the program; the kernel sends SIGKILL when memory runs out here.
_EXTERNAL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)

_compiling: dict[ProgramSpec, threading.Lock] = {}


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """The programs of one cell on one slice.

    Attributes:
      step: its training step.
      evaluation: see `study.planning.fits.evaluation_of`; None for a cell without evaluations.
      first: the setting to try before all others.
    """

    step: ProgramSpec
    evaluation: ProgramSpec | None = None
    first: RunSetting | None = None

    @property
    def candidates(self) -> list[RunSetting]:
        return candidates(self.step, self.first)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The result of a search.

    Attributes:
      setting: the first that fits, or the last candidate.
      report: of that setting.
      tried: number of candidates up to it.
    """

    setting: RunSetting
    report: FitReport
    tried: int


def candidates(spec: ProgramSpec, first: RunSetting | None = None) -> list[RunSetting]:
    """Settings to try, cheapest first.

    Arguments:
      first: the user's own setting, which goes before all others.
    """
    cell, machine = spec.cell, get_slice(spec.slice)
    usable, rows = machine.chip.usable_bytes, -(-cell.batch_size // machine.devices)

    def plausible(settings: list[RunSetting], limit: float) -> list[RunSetting]:
        return [
            s for s in settings if step_bytes(cell, machine, s, spec.vocabulary) <= limit * usable
        ]

    per_example = max(1, activation_bytes(cell, RunSetting()))
    fill = max(1, int(MICROBATCH_MEMORY_SHARE * usable / per_example))
    largest = 1 << min(fill, rows).bit_length() - 1
    can_shard = machine.devices // machine.slices > 1
    smallest = RunSetting(
        microbatch=1, remat="nothing_saveable", fsdp_min_mib=FSDP_MIN_MIB if can_shard else None
    )

    whole = [RunSetting(), RunSetting(remat="nothing_saveable")]
    micro = [RunSetting(microbatch=largest // k) for k in MICROBATCH_FRACTIONS if largest // k]
    sharded = [
        RunSetting(microbatch=largest // k, fsdp_min_mib=FSDP_MIN_MIB)
        for k in FSDP_FRACTIONS
        if can_shard and largest // k
    ]
    settings = [] if first is None else [first]
    settings += plausible(whole, WHOLE_BATCH_LIMIT)
    settings += plausible(micro + sharded, MICROBATCH_LIMIT)
    return list(dict.fromkeys([*settings, smallest]))


def check_batch(cell: Cell, machine: Slice) -> None:
    """Raise CellError if the batch cannot be spread evenly over the machine."""
    if cell.batch_size % machine.devices:
        raise CellError(
            f"batch_size: {cell.batch_size} cannot be spread evenly over the "
            f"{machine.devices} devices of {machine.name}; choose another --slice"
        )


# Gives the report for the first of some settings of a program, or None if it is unknown.
Lookup = Callable[[ProgramSpec, Sequence[RunSetting]], FitReport | None]
# Yields the report for each setting up to the first that fits.
Compile = Callable[[ProgramSpec, Sequence[RunSetting]], Iterator[tuple[RunSetting, FitReport]]]


def search(task: SearchTask, *, cache: Path, compile_with: Compile | None = None) -> FitResult:
    """The first candidate that fits; compiles what is not cached.

    Arguments:
      compile_with: by default `compile_settings`.

    Raises:
      TpuCompileError: nothing can be compiled here.
      CellError: the batch cannot be spread over the slice.
    """
    check_batch(task.step.cell, get_slice(task.step.slice))
    compiled: dict[tuple[ProgramSpec, RunSetting], FitReport] = {}

    def lookup(spec: ProgramSpec, settings: Sequence[RunSetting]) -> FitReport:
        # Concurrent tasks share programs; the later one waits for the report.
        with _compiling.setdefault(spec, threading.Lock()):
            while True:
                key = spec, settings[0]
                if report := compiled.get(key) or load_cached(*key, cache):
                    return report
                for setting, report in (compile_with or compile_settings)(spec, settings):
                    compiled[spec, setting] = report
                    if not report.aborted:  # a crash may be this machine's fault
                        save_cached(spec, setting, report, cache)

    result = _first_that_fits(task, lookup)
    assert result is not None
    return result


def search_cached(task: SearchTask, cache: Path) -> FitResult | None:
    """The result of `search` from cached reports, or None if it would have to compile."""
    return _first_that_fits(task, lambda spec, settings: load_cached(spec, settings[0], cache))


def _first_that_fits(task: SearchTask, lookup: Lookup) -> FitResult | None:
    settings = task.candidates
    ruled_out: set[float | None] = set()  # values of fsdp_min_mib whose evaluation does not fit
    for tried, setting in enumerate(settings, 1):
        is_last = tried == len(settings)
        if setting.fsdp_min_mib in ruled_out and not is_last:
            continue
        report = lookup(task.step, settings[tried - 1 :])
        if report is not None and report.fits and task.evaluation is not None:
            spec = task.evaluation
            bound = evaluation_bytes(spec.cell, get_slice(spec.slice), setting, spec.vocabulary)
            if report.state_bytes + report.batch_bytes + bound > report.step_bytes:
                evaluation = lookup(spec, [RunSetting(fsdp_min_mib=setting.fsdp_min_mib)])
                report = None if evaluation is None else report.with_evaluation(evaluation)
        if report is None:
            return None
        if report.fits or is_last:
            return FitResult(setting=setting, report=report, tried=tried)
        if report.largest_phase == "evaluation":
            # Microbatches and rematerialisation do not change an evaluation.
            ruled_out.add(setting.fsdp_min_mib)
    return None


def compile_settings(
    spec: ProgramSpec, settings: Sequence[RunSetting]
) -> Iterator[tuple[RunSetting, FitReport]]:
    """Compile in a child process; yield reports up to the first that fits or that crashes it.

    Raises:
      TpuCompileError: the child failed before its first compilation, or was ended from outside.
    """
    request = {"spec": spec.to_dict(), "settings": [vars(s) for s in settings]}
    trying: RunSetting | None = None
    child = tpu_compile.run_python(["-m", "study.planning.fits"], stdin=json.dumps(request))
    try:
        for line in child:
            if "trying" in line:
                trying = RunSetting(**line["trying"])
            else:
                yield RunSetting(**line["setting"]), FitReport(**line["report"])
                trying = None
    except tpu_compile.TpuCompileError as error:
        if trying is None or -(error.code or 0) in _EXTERNAL_SIGNALS:
            raise
        usable = get_slice(spec.slice).chip.usable_bytes
        reason = str(error).removeprefix("compiling for TPU failed: ")[:300]
        yield trying, FitReport(usable_bytes=usable, step_bytes=usable + 1, aborted=reason)


def cache_dir() -> Path:
    """The folder of cached reports: $STUDY_PLAN_CACHE, or one in ~/.cache."""
    chosen = os.environ.get("STUDY_PLAN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "batch-size-study" / "plan"


def load_cached(spec: ProgramSpec, setting: RunSetting, cache: Path) -> FitReport | None:
    """The cached report, or None if there is none that can be read."""
    try:
        return FitReport(**json.loads((cache / f"{spec.key(setting)}.json").read_text())["report"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_cached(spec: ProgramSpec, setting: RunSetting, report: FitReport, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    content = {"spec": spec.to_dict(), "setting": vars(setting), "report": vars(report)}
    write_json(cache / f"{spec.key(setting)}.json", content)


def search_all(
    tasks: Sequence[SearchTask],
    *,
    cache: Path,
    parallel: int,
    only_cached: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> list[FitResult | Exception | None]:
    """`search` for each task, several at a time.

    Arguments:
      parallel: tasks at a time.
      only_cached: compile nothing.
      progress: called with the number of finished tasks.

    Returns:
      The result of each task: None if it is not cached, an exception if it failed.
    """

    def run(task: SearchTask) -> FitResult | Exception | None:
        if only_cached:
            return search_cached(task, cache)
        try:
            return search(task, cache=cache)
        except (tpu_compile.TpuCompileError, CellError) as error:
            return error

    results: list[FitResult | Exception | None] = []
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        try:
            for result in pool.map(run, tasks):
                results.append(result)
                progress(len(results))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            tpu_compile.kill_children()
            raise
    return results
