"""Memory, FLOPs, time and verdict of every cell of a study, before any of them runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config import CachedImage, Cell, CellError, Execution
from study.config.hardware import GIB, TOPOLOGIES, HardwareError, Slice, get_slice, list_slices
from study.models.flops import Flops, step_flops
from study.models.parameters import count_parameters
from study.planning import tpu_compile
from study.planning.fits import ProgramSpec, RunSetting, evaluation_of
from study.training.compile_key import memory_key
from sweeps.planning.calibrate import Calibration
from sweeps.planning.fit_search import (
    FitResult,
    SearchTask,
    cache_dir,
    check_batch,
    search_all,
)
from sweeps.planning.memory import step_bytes
from sweeps.planning.roofline import StepTime, step_time
from sweeps.study import Study, StudyError

DAY = 86_400
# Pieces of the paper's tokenizers by the prefix of their file: SentencePiece on English C4, and
# mT5's, whose 250,100 pieces are padded to 250,112.
VOCABULARIES = {"c4_en": 32_000, "cc_en": 32_000, "mc4": 250_112, "gemma": 256_000}


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell on one machine.

    Attributes:
      machine: the slice.
      fits: whether training, saving and evaluation all fit, by the compiler's account; None if
        nothing was compiled or the compiler crashed.
      verdict: `fits` in one line.
      setting: how the step runs.
      hbm_bytes: per device in the largest phase of the run (`study.planning.fits.FitReport`); if
        nothing was compiled, the estimate for the training step.
      parameters: of the whole model.
      flops: of one step over all devices.
      step_seconds: of one step.
      time: the parts of `step_seconds`; None if it was measured.
      compiler_crashed: on the last setting that was tried.
    """

    cell: Cell
    machine: Slice
    fits: bool | None
    verdict: str
    setting: RunSetting
    hbm_bytes: int
    parameters: int
    flops: Flops
    step_seconds: float
    time: StepTime | None
    compiler_crashed: bool = False

    @property
    def fits_or_estimated(self) -> bool:
        """Whether it fits by the compiler's account or, without one, by the estimate."""
        usable = self.machine.chip.usable_bytes
        return self.hbm_bytes <= usable if self.fits is None else self.fits

    @property
    def days(self) -> float:
        return self.cell.steps * self.step_seconds / DAY

    @property
    def chip_hours(self) -> float:
        return self.days * 24 * self.machine.chips

    def row(self, price: float | None = None) -> dict[str, Any]:
        """The plan as a flat dict. price: of one chip for an hour."""
        cell, chip, flops = self.cell, self.machine.chip, self.flops
        cost = {} if price is None else {"cost": round(self.chip_hours * price, 2)}
        return {
            "id": cell.id,
            "batch_size": cell.batch_size,
            "loss": cell.loss.kind,
            "pairs": cell.pairs.tag or "all",
            "steps": cell.steps,
            "examples": cell.examples,
            "pairs_seen": cell.pairs_seen(cell.steps),
            "slice": self.machine.name,
            "chips": self.machine.chips,
            "fits": self.fits,
            "verdict": self.verdict,
            **vars(self.setting),
            "parameters": self.parameters,
            "hbm_gib": round(self.hbm_bytes / GIB, 2),
            "peak_flops": chip.peak_flops,
            "usable_hbm_gib": round(chip.usable_bytes / GIB, 2),
            "flops_towers": flops.towers,
            "flops_loss": flops.loss,
            "flops_recomputed": flops.recompute,
            "step_seconds": float(f"{self.step_seconds:.4g}"),
            "loss_bound": self.time.loss_bound if self.time else "measured",
            "chip_hours": float(f"{self.chip_hours:.4g}"),
            "days": float(f"{self.days:.4g}"),
            **cost,
        }


Sized = tuple[Cell, int, tuple[int, ...]]  # with its vocabulary and image shape, see `sizes`


def plan(
    study: Study,
    *,
    slice_name: str | None = None,
    calibration: Calibration | None = None,
    cache: Path,
    parallel: int = 2,
    no_compile: bool = False,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> list[CellPlan]:
    """Plan every cell of a study on its slice.

    Arguments:
      slice_name: for all cells, instead of their own; a generation ("v4") is the smallest slice
        of it that fits.
      calibration: measured speed in place of the assumed one.
      cache: folder of cached reports, see `sweeps.planning.fit_search`.
      parallel: programs compiled at a time.
      no_compile: use cached reports or the estimate of `sweeps.planning.memory`. That is so in any
        case without libtpu, and for machines other than TPUs.
      progress: called with the phase, how much of it is done, and of how much.

    Raises:
      CellError: a batch cannot be spread over its slice.
      HardwareError: the slice is unknown.
      StudyError: the size of a vocabulary is unknown.
    """
    sized = [(cell, *sizes(cell, study.execution_of(cell))) for cell in study.cells]
    plan_on = functools.partial(
        _plan_on,
        study,
        calibration=calibration,
        cache=cache,
        parallel=parallel,
        no_compile=no_compile or tpu_compile.why_unavailable() is not None,
        progress=progress,
    )
    if slice_name not in TOPOLOGIES:
        own = [get_slice(slice_name or study.execution_of(c).slice or "cpu") for c, *_ in sized]
        return plan_on(list(zip(sized, own, strict=True)))

    # The smallest slice that fits each cell; if none does, the largest.
    plans: dict[str, CellPlan] = {}
    for machine in list_slices(slice_name):
        left = [
            (item, machine)
            for item in sized
            if item[0].batch_size % machine.devices == 0
            and ((p := plans.get(item[0].id)) is None or not p.fits_or_estimated)
        ]
        plans |= {p.cell.id: p for p in plan_on(left)} if left else {}
    for cell in study.cells:
        if cell.id not in plans:
            raise StudyError(
                f"batch_size: {cell.batch_size} cannot be spread evenly over any {slice_name} "
                "slice; use a multiple of 4"
            )
    return [plans[cell.id] for cell in study.cells]


def estimate_seconds(study: Study, cells: Collection[str]) -> dict[str, float]:
    """Training seconds by cell id, of those in `cells`, without compiling.

    Good enough to order cells by length: a factor that all share does not matter. Empty if any of
    them cannot be estimated, since estimates of some and guesses of others give no order.
    """
    part = dataclasses.replace(study, cells=tuple(c for c in study.cells if c.id in cells))
    try:
        plans = plan(part, cache=cache_dir(), no_compile=True)
    except (CellError, HardwareError, StudyError):  # reported when such a cell trains
        return {}
    return {p.cell.id: p.step_seconds * p.cell.steps for p in plans}


def _plan_on(
    study: Study,
    placed: Sequence[tuple[Sized, Slice]],
    *,
    calibration: Calibration | None,
    cache: Path,
    parallel: int,
    no_compile: bool,
    progress: Callable[[str, int, int], None],
) -> list[CellPlan]:
    """Each cell on its machine; cells with the same programs are compiled once."""
    for (cell, *_), machine in placed:
        check_batch(cell, machine)
    tasks = [_search_task(study, item, machine) for item, machine in placed]
    compiled = {
        task: None for task, (_, machine) in zip(tasks, placed, strict=True) if machine.topology
    }
    results = search_all(
        list(compiled),
        cache=cache,
        parallel=parallel,
        only_cached=no_compile,
        progress=lambda done: progress("programs", done, len(compiled)),
    )
    by_task = dict(zip(compiled, results, strict=True))
    plans = []
    for task, ((cell, *_), machine) in zip(tasks, placed, strict=True):
        result = by_task.get(task)
        if isinstance(result, Exception):
            raise result
        plans.append(_cell_plan(cell, machine, task, result, calibration))
    return plans


def _search_task(study: Study, item: Sized, machine: Slice) -> SearchTask:
    """The programs to compile for a cell, and the setting that the study itself gives it."""
    cell, vocabulary, image_shape = item
    execution = study.execution_of(cell)
    step = ProgramSpec(
        cell=memory_key(cell, execution.chunk_examples),
        vocabulary=vocabulary,
        image_shape=image_shape,
        slice=machine.name,
        chunk_examples=execution.chunk_examples,
    )
    microbatch = execution.microbatch if isinstance(execution.microbatch, int) else None
    own = RunSetting(
        microbatch=microbatch, remat=execution.remat, fsdp_min_mib=execution.fsdp_min_mib
    )
    return SearchTask(
        step=step,
        evaluation=evaluation_of(step, execution.eval_batch_size) if cell.evals else None,
        first=None if own == RunSetting() else own,
    )


def _cell_plan(
    cell: Cell,
    machine: Slice,
    task: SearchTask,
    result: FitResult | None,
    calibration: Calibration | None,
) -> CellPlan:
    """The plan of one cell. result: None if nothing was compiled."""
    spec, usable = task.step, machine.chip.usable_bytes
    fits, verdict, crashed = None, "estimated", False
    if result is not None:
        report = result.report
        setting, hbm, verdict = result.setting, report.needed_bytes, report.summary
        crashed = bool(report.aborted)
        fits = None if crashed else report.fits
    else:
        # The cheapest setting that fits by the estimate, or the one that needs the least.
        for setting in task.candidates:
            hbm = step_bytes(cell, machine, setting, spec.vocabulary)
            if hbm <= usable:
                break
    channels = 3 if isinstance(cell.model.image, CachedImage) else spec.image_shape[2]
    parameters = count_parameters(cell, spec.vocabulary, channels=channels)
    flops = step_flops(
        cell, channels=channels, microbatched=setting.microbatch is not None, remat=setting.remat
    )
    time: StepTime | None = None
    seconds = calibration.seconds(cell, flops, machine) if calibration else None
    if seconds is None:
        time = step_time(cell, flops, machine, setting, parameters)
        seconds = time.total
    return CellPlan(
        cell=cell,
        machine=machine,
        fits=fits,
        verdict=verdict,
        setting=setting,
        hbm_bytes=hbm,
        parameters=parameters,
        flops=flops,
        step_seconds=seconds,
        time=time,
        compiler_crashed=crashed,
    )


def sizes(cell: Cell, execution: Execution) -> tuple[int, tuple[int, ...]]:
    """Vocabulary size and shape of an image: from the data set if it is on this machine, else from
    the names of the tokenizer and the model.

    Raises:
      StudyError: the data set is missing, and the name of its tokenizer is unknown.
    """
    from study.data.files import to_path
    from study.data.formats.dataset import DataError, Dataset
    from study.data.tokenizer import Tokenizer

    image, name = cell.model.image, cell.data.tokenizer or ""
    channels, vocabulary = None, None
    with contextlib.suppress(DataError):
        dataset = Dataset.open(to_path(execution.data_root) / cell.data.dataset)
        channels = dataset.channels
        vocabulary = Tokenizer.open(dataset, cell.data).vocabulary.size
    if vocabulary is None:
        vocabulary = next(
            (n for prefix, n in VOCABULARIES.items() if name.startswith(prefix)), None
        )
    if vocabulary is None and cell.data.dataset == "glyphs":
        vocabulary = 2000  # at most, see `study.data.tokenizer.train_tokenizer`
    if vocabulary is None:
        raise StudyError(
            f"the vocabulary of {cell.id} is unknown: the data set {cell.data.dataset!r} is not "
            f"on this machine, and its tokenizer is none of {', '.join(VOCABULARIES)}; give --data "
            "DIR, or name a tokenizer (--set data.tokenizer=c4_en.model)"
        )
    if isinstance(image, CachedImage):
        return vocabulary, (image.dim,)
    channels = channels or (1 if cell.data.dataset == "glyphs" else 3)
    return vocabulary, (image.image_size, image.image_size, channels)


def execution_file(plans: Sequence[CellPlan]) -> dict[str, Any]:
    """The content of `study run --execution FILE`: slice and setting by cell id."""
    return {
        p.cell.id: {"slice": p.machine.name, **vars(p.setting)}
        for p in plans
        if p.fits is not False and not p.compiler_crashed
    }


def apply(study: Study, chosen: dict[str, Any], path: str) -> Study:
    """`study` with the executions of a file in place of its own.

    Arguments:
      chosen: the file's content, see `execution_file`. path: its name, for error messages.

    Raises:
      StudyError: the file is of another study, or has a value that an execution cannot have.
    """
    if not any(cell.id in chosen for cell in study.cells):
        raise StudyError(
            f"--execution {path}: names no cell of {study.name}; write one with "
            f"`study plan {study.name} --save-execution {path}`"
        )
    executions: dict[str, Execution] = {}
    for cell in study.cells:
        execution = study.execution_of(cell)
        try:
            executions[cell.id] = dataclasses.replace(execution, **chosen.get(cell.id, {}))
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise StudyError(f"--execution {path}: {cell.id}: {reason}") from None
    return dataclasses.replace(study, execution=lambda cell: executions[cell.id])
