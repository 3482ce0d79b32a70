"""What each cell of a study would take, before a chip is spent."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config.cell import CachedImage, Cell, Execution
from study.config.hardware import TOPOLOGIES, Slice, get_slice, list_slices
from study.models.flops import Flops, step_flops
from study.models.parameters import count
from study.planning import tpu_compile
from study.planning.fits import ProgramSpec, RunSetting, canonical, evaluation_of
from sweeps.planning.calibrate import Calibration
from sweeps.planning.fit_search import FitResult, Task, check, search_all
from sweeps.planning.memory import step_bytes
from sweeps.planning.roofline import StepTime, step_time
from sweeps.study import Study, StudyError

DAY = 86_400
# Pieces of the paper's tokenizers, by how the file is called: SentencePiece on English C4, and
# mT5's, whose 250,100 pieces are padded to 250,112.
VOCABULARIES = {"c4_en": 32_000, "cc_en": 32_000, "mc4": 250_112, "gemma": 256_000}


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell on one kind of machine.

    Attributes:
      machine: the slice.
      fits: whether training, saving and evaluation all fit, by what was compiled; None where
        nothing was compiled or the compiler broke off.
      verdict: the verdict in one line.
      setting: how it would run.
      hbm_bytes: per device at the worst moment of the run (`study.planning.fits.FitReport`); where
        nothing was compiled, of the training step by formula.
      flops: of one step over all devices.
      step_seconds: of one step; `time` has its parts unless it was measured.
      compiler_crashed: whether the compiler failed over the last way that was tried.
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
        """Whether it fits, by what was compiled or, where nothing was, by formula."""
        there = self.machine.chip.usable_bytes
        return self.hbm_bytes <= there if self.fits is None else self.fits

    @property
    def days(self) -> float:
        return self.cell.steps * self.step_seconds / DAY

    @property
    def chip_hours(self) -> float:
        return self.days * 24 * self.machine.chips

    def row(self, price: float | None = None) -> dict[str, Any]:
        """As a flat record. price: of one chip for an hour."""
        cell, chip, flops = self.cell, self.machine.chip, self.flops
        more = {} if price is None else {"cost": round(self.chip_hours * price, 2)}
        return {
            "id": cell.id,
            "batch_size": cell.batch_size,
            "loss": cell.loss.kind,
            "pairs": cell.pairs.tag or "all",
            "steps": cell.steps,
            "examples": cell.examples,
            "pairs_seen": cell.steps * cell.pairs_per_step,
            "slice": self.machine.name,
            "chips": self.machine.chips,
            "fits": self.fits,
            "verdict": self.verdict,
            **vars(self.setting),
            "parameters": self.parameters,
            "hbm_gib": round(self.hbm_bytes / 2**30, 2),
            "peak_flops": chip.peak_flops,
            "hbm_there_gib": round(chip.usable_bytes / 2**30, 2),
            "flops_towers": flops.towers,
            "flops_loss": flops.loss,
            "flops_again": flops.recompute,
            "step_seconds": float(f"{self.step_seconds:.4g}"),
            "loss_bound": self.time.loss_bound if self.time else "measured",
            "chip_hours": float(f"{self.chip_hours:.4g}"),
            "days": float(f"{self.days:.4g}"),
            **more,
        }


def plan(
    study: Study,
    *,
    slice_name: str | None = None,
    calibration: Calibration | None = None,
    cache: Path,
    parallel: int = 2,
    no_compile: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[CellPlan]:
    """Every cell of a study on its slice.

    Arguments:
      slice_name: for all cells, instead of their own; a generation ("v4") is the smallest slice
        of it that fits.
      no_compile: compile nothing: memory by formula where no answer is kept; so it is where libtpu
        is missing or the machine is no TPU.
      progress: called with what is done, how much of it, and of how much.

    Raises:
      CellError: a batch that cannot be spread over its slice.
      HardwareError: no such slice.
      StudyError: a vocabulary that nobody knows.
    """
    sized = [(cell, *sizes(cell, study.execution_of(cell))) for cell in study.cells]
    on = functools.partial(
        _on,
        study,
        calibration=calibration,
        cache=cache,
        parallel=parallel,
        no_compile=no_compile or tpu_compile.why_unavailable() is not None,
        progress=progress,
    )
    if slice_name in TOPOLOGIES:
        return _smallest(sized, slice_name, on)
    return on([(item, machine(study.execution_of(item[0]), slice_name)) for item in sized])


Sized = tuple[Cell, int, tuple[int, ...]]
Placed = tuple[Sized, Slice]


def _on(
    study: Study,
    placed: Sequence[Placed],
    *,
    calibration: Calibration | None,
    cache: Path,
    parallel: int,
    no_compile: bool,
    progress: Callable[[str, int, int], None],
) -> list[CellPlan]:
    """Each cell on its machine; cells with the same program are compiled once."""
    for (cell, *_), where in placed:
        check(cell, where)
    wanted = [_task(study, item, where) for item, where in placed]
    # Cells with the same programs are one task.
    tasks = {task: None for task, (_, where) in zip(wanted, placed, strict=True) if where.topology}
    found = search_all(
        list(tasks),
        cache=cache,
        parallel=parallel,
        only_cached=no_compile,
        progress=lambda done: progress("programs", done, len(tasks)),
    )
    answers = dict(zip(tasks, found, strict=True))
    out = []
    for task, ((cell, *_), where) in zip(wanted, placed, strict=True):
        answer = answers.get(task)
        if isinstance(answer, Exception):
            raise answer
        out.append(planned(cell, where, task, answer, calibration))
    return out


def _smallest(
    sized: Sequence[Sized], generation: str, on: Callable[[Sequence[Placed]], list[CellPlan]]
) -> list[CellPlan]:
    """Each cell on the smallest slice that fits; where none does, on the largest that was tried."""
    done: dict[str, CellPlan] = {}
    left = list(sized)
    for where in list_slices(generation):
        here = [(item, where) for item in left if item[0].batch_size % where.devices == 0]
        done |= {item.cell.id: item for item in on(here)} if here else {}
        left = [
            item
            for item in left
            if (at := done.get(item[0].id)) is None or not at.fits_or_estimated
        ]
    absent = [cell for cell, *_ in sized if cell.id not in done]
    if absent:
        raise StudyError(
            f"batch_size: {absent[0].batch_size} cannot be spread evenly over any {generation} "
            "slice; use a multiple of 4"
        )
    return [done[cell.id] for cell, *_ in sized]


def planned(
    cell: Cell,
    where: Slice,
    task: Task,
    found: FitResult | None,
    calibration: Calibration | None,
) -> CellPlan:
    """The numbers of one cell.

    found: how it fits; None where nothing was compiled.
    """
    shape = task.step
    if found is not None:
        way, hbm, said = found.setting, found.answer.needed_bytes, found.answer.summary
        compiler_crashed = bool(found.answer.aborted)
        fits = None if compiler_crashed else found.answer.fits
    else:
        way, fits, said, compiler_crashed = _by_formula(task, where), None, "by formula", False
        hbm = step_bytes(cell, where, way, shape.vocabulary)
    channels = 3 if isinstance(cell.model.image, CachedImage) else shape.image_shape[2]
    parameters = count(cell, shape.vocabulary, channels=channels)
    flops = step_flops(
        cell, channels=channels, microbatched=way.microbatch is not None, remat=way.remat
    )
    time: StepTime | None = None
    seconds = calibration.seconds(cell, flops, where) if calibration else None
    if seconds is None:
        time = step_time(cell, flops, where, way, parameters)
        seconds = time.total
    return CellPlan(
        cell=cell,
        machine=where,
        fits=fits,
        verdict=said,
        setting=way,
        hbm_bytes=hbm,
        parameters=parameters,
        flops=flops,
        step_seconds=seconds,
        time=time,
        compiler_crashed=compiler_crashed,
    )


def _by_formula(task: Task, where: Slice) -> RunSetting:
    """The cheapest way that has room by formula, or the one that takes the least."""
    ways, shape = task.ways, task.step
    usable = where.chip.usable_bytes
    for way in ways:
        if step_bytes(shape.cell, where, way, shape.vocabulary) <= usable:
            return way
    return ways[-1]


def _task(study: Study, item: Sized, where: Slice) -> Task:
    """What is compiled for a cell."""
    cell, vocabulary, image_shape = item
    execution = study.execution_of(cell)
    step = ProgramSpec(
        cell=canonical(cell, execution.chunk_examples),
        vocabulary=vocabulary,
        image_shape=image_shape,
        slice=where.name,
        chunk_examples=execution.chunk_examples,
    )
    return Task(
        step=step,
        evaluation=evaluation_of(step, execution.eval_batch_size) if cell.evals else None,
        first=_asked(execution),
    )


def _asked(execution: Execution) -> RunSetting | None:
    """The way that a study itself gives its cells, if it gives one."""
    size = execution.microbatch if isinstance(execution.microbatch, int) else None
    asked = RunSetting(microbatch=size, remat=execution.remat, fsdp_mib=execution.fsdp_mib)
    return None if asked == RunSetting() else asked


def machine(execution: Execution, name: str | None) -> Slice:
    """The slice that is asked for, or the cell's own; this CPU where neither says."""
    return get_slice(name or execution.slice or "cpu")


def sizes(cell: Cell, execution: Execution) -> tuple[int, tuple[int, ...]]:
    """Vocabulary and shape of an image: of the data set where it is here, else as its tokenizer
    and its model say.

    Raises:
      StudyError: there is neither data set nor a tokenizer that is known by its name.
    """
    from study.data.formats.dataset import DataError, Dataset
    from study.data.tokenizer import Tokenizer

    image, channels, vocabulary = cell.model.image, None, None
    folder = Path(execution.data_root) / cell.data.dataset
    if folder.is_dir():
        try:
            dataset = Dataset.open(folder)
            channels = dataset.channels
            vocabulary = Tokenizer.open(dataset, cell.data).vocabulary.size
        except DataError:
            pass
    if vocabulary is None:
        vocabulary = _vocabulary(cell)
    if isinstance(image, CachedImage):
        return vocabulary, (image.dim,)
    channels = channels or (1 if cell.data.dataset == "glyphs" else 3)
    return vocabulary, (image.image_size, image.image_size, channels)


def _vocabulary(cell: Cell) -> int:
    name = cell.data.tokenizer or ""
    for prefix, pieces in VOCABULARIES.items():
        if name.startswith(prefix):
            return pieces
    if cell.data.dataset == "glyphs":
        return 2000  # at most, see `study.data.tokenizer.train_tokenizer`
    raise StudyError(
        f"the data set {cell.data.dataset!r} is not here and no tokenizer of a known name is "
        f"({', '.join(VOCABULARIES)}), so its vocabulary is unknown; give --data DIR, or name one "
        "(--set data.tokenizer=c4_en.model)"
    )


def execution_file(rows: Sequence[CellPlan]) -> dict[str, Any]:
    """What `study run --execution FILE` reads: by cell, where and how it runs."""
    return {
        item.cell.id: {"slice": item.machine.name, **vars(item.setting)}
        for item in rows
        if item.fits is not False and not item.compiler_crashed
    }


def apply(study: Study, chosen: dict[str, Any], path: str) -> Study:
    """`study` with the executions of a file in place of its own.

    Raises:
      StudyError: a file of another study, or values that an execution cannot have.
    """
    if not any(cell.id in chosen for cell in study.cells):
        raise StudyError(
            f"--execution {path}: names no cell of {study.name}; write one with "
            f"`study plan {study.name} --save-execution {path}`"
        )
    made: dict[str, Execution] = {}
    for cell in study.cells:
        execution = study.execution_of(cell)
        try:
            made[cell.id] = dataclasses.replace(execution, **chosen.get(cell.id, {}))
        except (TypeError, ValueError) as error:
            said = str(error).splitlines()[0]
            raise StudyError(f"--execution {path}: {cell.id}: {said}") from None
    return dataclasses.replace(study, execution=lambda cell: made[cell.id])
