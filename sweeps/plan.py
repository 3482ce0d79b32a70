"""What each cell of a study would take, before a chip is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import aot
from study.cell import CachedImage, Cell, Execution
from study.fit import Setting, Shape, canonical
from study.flops import Flops, step_flops
from study.hardware import TOPOLOGIES, HardwareError, Slice, slice_of, slices_of
from study.parameters import count
from sweeps.calibrate import Calibration
from sweeps.grid import Study, StudyError
from sweeps.memory import step_bytes
from sweeps.roofline import StepTime, step_time
from sweeps.search import Found, search_all, settings

DAY = 86_400
# Pieces of the paper's tokenizers, by how the file is called: SentencePiece on English C4, and
# mT5's, whose 250,100 pieces are padded to 250,112.
VOCABULARIES = {"c4_en": 32_000, "cc_en": 32_000, "mc4": 250_112, "gemma": 256_000}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One cell on one kind of machine.

    Attributes:
      machine: the slice; None where no slice of the generation is left to try.
      fits: the compiler's word; None where nothing was compiled.
      said: the verdict in one line.
      setting: how it would run.
      hbm_bytes: at the peak, per device: the compiler's, or by formula where `fits` is None.
      flops: of one step over all devices.
      step_seconds: of one step; `time` has its parts unless it was measured.
    """

    cell: Cell
    machine: Slice
    fits: bool | None
    said: str
    setting: Setting
    hbm_bytes: int
    parameters: int
    flops: Flops
    step_seconds: float
    time: StepTime | None

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
            "verdict": self.said,
            **vars(self.setting),
            "parameters": self.parameters,
            "hbm_gib": round(self.hbm_bytes / 2**30, 2),
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
    formula: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Planned]:
    """Every cell of a study on its slice.

    Arguments:
      slice_name: for all cells, instead of their own; a generation ("v4") is the smallest slice
        of it that fits.
      formula: compile nothing; so it is where libtpu is missing or the machine is no TPU.
      progress: called with what is done, how much of it, and of how much.

    Raises:
      CellError: a batch that cannot be spread over its slice.
      HardwareError: no such slice.
      StudyError: a vocabulary that nobody knows.
    """
    formula = formula or aot.missing() is not None
    sized = [(cell, *sizes(cell, study.execution_of(cell))) for cell in study.cells]
    if slice_name in TOPOLOGIES:
        return _smallest(study, sized, slice_name, calibration, cache, parallel, formula, progress)
    machines = [machine(study.execution_of(cell), slice_name) for cell in study.cells]
    return _on(study, sized, machines, calibration, cache, parallel, formula, progress)


Sized = tuple[Cell, int, tuple[int, ...]]


def _on(
    study: Study,
    sized: Sequence[Sized],
    machines: Sequence[Slice],
    calibration: Calibration | None,
    cache: Path,
    parallel: int,
    formula: bool,
    progress: Callable[[str, int, int], None],
) -> list[Planned]:
    """Each cell on its machine; cells with the same program are compiled once."""
    shapes = [_shape(study, item, machine) for item, machine in zip(sized, machines, strict=True)]
    asked = [_asked(study.execution_of(cell)) for cell, *_ in sized]
    tasks = {
        (shape.key(Setting()), first): (shape, first)
        for shape, first, machine in zip(shapes, asked, machines, strict=True)
        if machine.topology and not formula
    }
    found = search_all(
        list(tasks.values()),
        cache=cache,
        parallel=parallel,
        progress=lambda done: progress("programs", done, len(tasks)),
    )
    answers = dict(zip(tasks, found, strict=True))
    out = []
    for (cell, vocabulary, _), shape, first, where in zip(
        sized, shapes, asked, machines, strict=True
    ):
        answer = answers.get((shape.key(Setting()), first)) if tasks else None
        if isinstance(answer, Exception):
            raise answer
        out.append(planned(cell, where, vocabulary, answer, calibration, shape=shape))
    return out


def _smallest(
    study: Study,
    sized: Sequence[Sized],
    generation: str,
    calibration: Calibration | None,
    cache: Path,
    parallel: int,
    formula: bool,
    progress: Callable[[str, int, int], None],
) -> list[Planned]:
    """Each cell on the smallest slice that fits; where none does, on the largest that was tried."""
    done: dict[str, Planned] = {}
    for where in slices_of(generation):
        left = [
            item
            for item in sized
            if item[0].batch_size % where.devices == 0
            and not (item[0].id in done and done[item[0].id].fits is not False)
        ]
        if not left:
            continue
        machines = [where] * len(left)
        for item in _on(study, left, machines, calibration, cache, parallel, formula, progress):
            done[item.cell.id] = item
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
    vocabulary: int,
    found: Found | None,
    calibration: Calibration | None,
    *,
    shape: Shape,
) -> Planned:
    """The numbers of one cell, given how it fits (None: nothing was compiled)."""
    if found is not None:
        way, fits, said = found.setting, found.answer.fits, found.answer.said
        hbm = found.answer.needed_bytes
    else:
        way, fits = _by_formula(shape, where), None
        hbm = step_bytes(cell, where, way, vocabulary)
        said = "by formula"
    channels = 3 if isinstance(cell.model.image, CachedImage) else shape.image_shape[2]
    parameters = count(cell, vocabulary, channels=channels)
    flops = step_flops(
        cell, channels=channels, microbatched=way.microbatch is not None, remat=way.remat
    )
    time = step_time(cell, flops, where, way, parameters)
    seconds = time.total
    measured = calibration.seconds(cell, flops, where) if calibration else None
    return Planned(
        cell=cell,
        machine=where,
        fits=fits,
        said=said,
        setting=way,
        hbm_bytes=hbm,
        parameters=parameters,
        flops=flops,
        step_seconds=seconds if measured is None else measured,
        time=time if measured is None else None,
    )


def _by_formula(shape: Shape, where: Slice) -> Setting:
    """The cheapest way that has room by formula, or the one that takes the least."""
    ways = settings(shape)
    usable = where.chip.usable_bytes
    for way in ways:
        if step_bytes(shape.cell, where, way, shape.vocabulary) <= usable:
            return way
    return ways[-1]


def _shape(study: Study, item: Sized, where: Slice) -> Shape:
    cell, vocabulary, image_shape = item
    chunk = study.execution_of(cell).chunk_examples
    return Shape(
        cell=canonical(cell, chunk),
        vocabulary=vocabulary,
        image_shape=image_shape,
        slice=where.name,
        chunk_examples=chunk,
    )


def _asked(execution: Execution) -> Setting | None:
    """The way that a study itself gives its cells, if it gives one."""
    size = execution.microbatch if isinstance(execution.microbatch, int) else None
    asked = Setting(
        microbatch=size, remat=execution.remat, fsdp_mib=getattr(execution, "fsdp_mib", None)
    )
    return None if asked == Setting() else asked


def machine(execution: Execution, name: str | None) -> Slice:
    """The slice that is asked for, or the cell's own; this CPU where neither says."""
    return slice_of(name or execution.slice or "cpu")


def sizes(cell: Cell, execution: Execution) -> tuple[int, tuple[int, ...]]:
    """Vocabulary and shape of an image: of the data set where it is here, else as its tokenizer
    and its model say.

    Raises:
      StudyError: there is neither data set nor a tokenizer that is known by its name.
    """
    from study.data.dataset import DataError, Dataset
    from study.data.tokens import Tokenizer

    image, channels, vocabulary = cell.model.image, None, None
    folder = Path(execution.data_root) / cell.data.dataset
    if folder.is_dir():
        try:
            dataset = Dataset.open(folder)
            channels, vocabulary = dataset.channels, Tokenizer.of(dataset, cell.data).vocabulary
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
        return 2000  # at most, see `study.data.tokens.train_tokenizer`
    raise StudyError(
        f"the data set {cell.data.dataset!r} is not here and no tokenizer of a known name is "
        f"({', '.join(VOCABULARIES)}), so its vocabulary is unknown; give --data DIR, or name one "
        "(--set data.tokenizer=c4_en.model)"
    )


def execution_file(rows: Sequence[Planned]) -> dict[str, Any]:
    """What `study run --execution FILE` reads: by cell, where and how it runs."""
    return {
        item.cell.id: {"slice": item.machine.name, **vars(item.setting)}
        for item in rows
        if item.fits is not False
    }


def apply(study: Study, chosen: dict[str, Any], path: str) -> Study:
    """`study` with the executions of a file in place of its own.

    Raises:
      StudyError: a file of another study, or values that an execution cannot have.
    """
    if not any(cell.id in chosen for cell in study.cells):
        raise StudyError(
            f"--execution {path}: names no cell of {study.name}; write one with "
            f"`study plan {study.name} --write {path}`"
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


__all__ = ["HardwareError", "Planned", "apply", "execution_file", "plan", "planned", "sizes"]
