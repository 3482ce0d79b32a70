"""The cheapest way to run a cell that fits a slice, by compiling; answers are kept on disk.

Ways are tried from the cheapest on: the whole batch at once; blocks computed again; microbatches
(a second forward pass), smaller and smaller; parameters cut over the slice. Where a formula puts
a way well above the memory there is, it is passed over; a cell is declared too large only when
the compiler has refused the way that takes the least.

A way fits when the whole run does: the training step, saving, and the evaluation if the cell has
one. The evaluation is compiled only where a bound on it is not below the step.
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

from study.config.cell import Cell, CellError
from study.config.hardware import Slice, get_slice
from study.planning import tpu_compile
from study.planning.fits import FitReport, ProgramSpec, RunSetting
from study.records.record import write_json
from sweeps.planning.memory import activations, evaluation_bytes, step_bytes

FSDP_MIB = 1.0
# Signals that say nothing of the program; the last is also what lack of memory here ends with.
_FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# Of the memory that there is, what the activations of a microbatch may take; larger ones would
# cost the same operations.
_SHARE = 0.5
# Ways that the formula, which is generous, puts at more than this many times the memory are passed
# over: whole batches early, for near its limit the compiler takes minutes over a program and
# microbatches cost little more; microbatches late, for after them comes the slowest way alone.
_HOPE, _LAST_HOPE = 1.2, 1.5

_compiling: dict[ProgramSpec, threading.Lock] = {}


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The end of a search.

    setting: the first that fits, or the last that was tried.
    tried: so many settings were compiled or known to end here.
    """

    setting: RunSetting
    answer: FitReport
    tried: int


def cache_dir() -> Path:
    """Where answers are kept."""
    chosen = os.environ.get("STUDY_PLAN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "batch-size-study" / "plan"


def candidates(shape: ProgramSpec, first: RunSetting | None = None) -> list[RunSetting]:
    """Ways to run a step, cheapest first.

    first: what the user asks for, before all others.
    """
    cell, machine = shape.cell, get_slice(shape.slice)
    usable, rows = machine.chip.usable_bytes, -(-cell.batch_size // machine.devices)

    def plausible(ways: list[RunSetting], hope: float) -> list[RunSetting]:
        there = hope * usable
        return [w for w in ways if step_bytes(cell, machine, w, shape.vocabulary) <= there]

    ways = [first] if first is not None else []
    ways += plausible([RunSetting(), RunSetting(remat=True)], _HOPE)
    fill = max(1, int(_SHARE * usable / max(1, activations(cell, RunSetting()))))
    size = 1 << min(fill, rows).bit_length() - 1
    sizes = [m for m in (size, size // 4, size // 16) if m]
    ways += plausible([RunSetting(microbatch=m) for m in sizes], _LAST_HOPE)
    cut = machine.devices // machine.slices > 1
    if cut:
        ways += plausible(
            [RunSetting(microbatch=m, fsdp_mib=FSDP_MIB) for m in sizes[:2]], _LAST_HOPE
        )
    ways.append(RunSetting(microbatch=1, remat=True, fsdp_mib=FSDP_MIB if cut else None))
    return list(dict.fromkeys(ways))


def check(cell: Cell, machine: Slice) -> None:
    """Raises CellError if the batch cannot be spread over the machine."""
    if cell.batch_size % machine.devices:
        raise CellError(
            f"batch_size: {cell.batch_size} cannot be spread evenly over the "
            f"{machine.devices} devices of {machine.name}; choose another --slice"
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is searched for one cell.

    step: its training step.
    evaluation: see `study.planning.fits.evaluation_of`; None for a cell without evaluations.
    first: the way that is tried before all others.
    """

    step: ProgramSpec
    evaluation: ProgramSpec | None = None
    first: RunSetting | None = None

    @property
    def ways(self) -> list[RunSetting]:
        return candidates(self.step, self.first)


# Answers for the first of some ways to run a program; None where it is not known.
Ask = Callable[[ProgramSpec, Sequence[RunSetting]], FitReport | None]


def search(
    task: Task,
    *,
    cache: Path,
    compile_with: Callable[
        [ProgramSpec, Sequence[RunSetting]], Iterator[tuple[RunSetting, FitReport]]
    ]
    | None = None,
) -> FitResult:
    """The first way that fits; compiles what is not known yet.

    Raises:
      TpuCompileError: nothing can be compiled here.
      CellError: the batch cannot be spread over the slice.
    """
    check(task.step.cell, get_slice(task.step.slice))
    new: dict[tuple[ProgramSpec, RunSetting], FitReport] = {}

    def ask(shape: ProgramSpec, ways: Sequence[RunSetting]) -> FitReport:
        # Tasks that run beside each other share programs; the later one waits for the answer.
        with _compiling.setdefault(shape, threading.Lock()):
            while True:
                if answer := new.get((shape, ways[0])) or load_cached(shape, ways[0], cache):
                    return answer
                for way, answer in (compile_with or compiled)(shape, ways):
                    new[shape, way] = answer
                    if not answer.aborted:  # which may be this machine's trouble
                        save_cached(shape, way, answer, cache)

    found = _first_that_fits(task, ask)
    assert found is not None
    return found


def known(task: Task, cache: Path) -> FitResult | None:
    """How the search ends by what is kept alone; None where something would be compiled."""
    return _first_that_fits(task, lambda shape, ways: load_cached(shape, ways[0], cache))


def _first_that_fits(task: Task, ask: Ask) -> FitResult | None:
    ways = task.ways
    ruled_out: set[float | None] = set()
    for tried, way in enumerate(ways, 1):
        if way.fsdp_mib in ruled_out and tried < len(ways):
            continue
        answer = ask(task.step, ways[tried - 1 :])
        if answer is not None and answer.fits and task.evaluation is not None:
            answer = _with_evaluation(answer, task.evaluation, way, ask)
        if answer is None:
            return None
        if answer.fits or tried == len(ways):
            return FitResult(setting=way, answer=answer, tried=tried)
        if answer.largest_part == "evaluation":
            # Microbatches and rematerialising leave an evaluation as it is.
            ruled_out.add(way.fsdp_mib)
    return None


def _with_evaluation(
    answer: FitReport, shape: ProgramSpec, way: RunSetting, ask: Ask
) -> FitReport | None:
    """The answer for a step with its evaluation counted, unless that stays below the step."""
    bound = evaluation_bytes(shape.cell, get_slice(shape.slice), way, shape.vocabulary)
    if answer.state_bytes + answer.batch_bytes + bound <= answer.step_bytes:
        return answer
    encoding = ask(shape, [RunSetting(fsdp_mib=way.fsdp_mib)])
    return None if encoding is None else answer.with_evaluation(encoding)


def compiled(
    shape: ProgramSpec, ways: Sequence[RunSetting]
) -> Iterator[tuple[RunSetting, FitReport]]:
    """What the compiler says of each, up to the first that fits or that it breaks off at.

    Raises TpuCompileError when it fails before it has begun with any, or is ended from outside.
    """
    request = {"shape": shape.to_dict(), "settings": [vars(way) for way in ways]}
    trying: RunSetting | None = None
    try:
        for line in tpu_compile.run_python(
            ["-m", "study.planning.fits"], stdin=json.dumps(request)
        ):
            if "trying" in line:
                trying = RunSetting(**line["trying"])
            else:
                yield RunSetting(**line["setting"]), FitReport(**line["answer"])
                trying = None
    except tpu_compile.TpuCompileError as error:
        if trying is None or -(error.code or 0) in _FROM_OUTSIDE:
            raise
        usable = get_slice(shape.slice).chip.usable_bytes
        said = str(error).removeprefix("compiling for TPU failed: ")
        yield (
            trying,
            FitReport(usable_bytes=usable, step_bytes=usable + 1, aborted=said[:300]),
        )


def load_cached(shape: ProgramSpec, way: RunSetting, cache: Path) -> FitReport | None:
    """The kept answer, if there is one that can be read."""
    try:
        return FitReport(**json.loads((cache / f"{shape.key(way)}.json").read_text())["answer"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_cached(shape: ProgramSpec, way: RunSetting, answer: FitReport, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    kept = {"shape": shape.to_dict(), "setting": vars(way), "answer": vars(answer)}
    write_json(cache / f"{shape.key(way)}.json", kept)


def search_all(
    tasks: Sequence[Task],
    *,
    cache: Path,
    parallel: int,
    only_cached: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> list[FitResult | Exception | None]:
    """`search` of each, several at a time; what goes wrong with one is its result.

    Arguments:
      only_cached: compile nothing; what is not kept is None.
      progress: called with how many are done.
    """
    done = 0

    def one(task: Task) -> FitResult | Exception | None:
        if only_cached:
            return known(task, cache)
        try:
            return search(task, cache=cache)
        except (tpu_compile.TpuCompileError, CellError) as error:
            return error

    found: list[FitResult | Exception | None] = []
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        try:
            for result in pool.map(one, tasks):
                found.append(result)
                done += 1
                progress(done)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            tpu_compile.kill_children()
            raise
    return found
