"""`study branch`: write the grid of a cell's branches at several batch sizes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sweeps.cli.options import CellName, Root, Set, StudyName, local, root_of
from sweeps.study import StudyError

if TYPE_CHECKING:
    from study.config import Cell
    from sweeps.study import Study


def branch(
    name: StudyName,
    cell: CellName,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="PERCENT,...",
            help="Where the branches begin, in percent of the cell's steps, such as 10,40%. A "
            "checkpoint must be kept there (execution.keep_every_percent).",
        ),
    ],
    batch_size: Annotated[
        str, typer.Option(metavar="B,...", help="Batch sizes, such as 64,256,1024.")
    ],
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="the rest of the run", help="Examples of each branch."
        ),
    ] = None,
    rate_rule: Annotated[
        Literal["sqrt", "constant", "linear"],
        typer.Option(help="How the learning rate follows the batch size."),
    ] = "sqrt",
    schedule: Annotated[
        Literal["hold", "continue"],
        typer.Option(
            help="Hold the learning rate as it is there, or continue the cell's own schedule."
        ),
    ] = "hold",
    shift_bias: Annotated[
        bool,
        typer.Option(
            "--shift-bias",
            help="Let a sigmoid's bias follow the odds of a positive at each batch size.",
        ),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=local,
            show_default="<cell id>-branches.py",
            help="The grid file to write.",
        ),
    ] = None,
    root: Root = "runs",
    settings: Set = None,
) -> int:
    """Branch a cell: go on from it at other batch sizes.

    Writes a grid file, which `study run`, `status`, `figures` and all other verbs take; nothing is
    trained yet. The branches start from the parameters and moments of the cell and see the
    examples that it would see next. Their records are in the folder of the cell's study. A cell
    that is still training is waited for.
    """
    from sweeps.grids.branches import branches

    out_file = Path(out or "branches.py")
    if out_file.suffix != ".py":
        raise StudyError(f"--out {out}: a grid file ends in .py")
    options: dict[str, Any] = {
        "at_percents": _numbers(at, "--at", float),
        "batch_sizes": _numbers(batch_size, "--batch-size", int),
        "examples": examples,
        "rate_rule": rate_rule,
        "schedule": schedule,
        "shift_bias": shift_bias,
        "settings": tuple(settings or ()),
    }
    study = branches(name, cell, **options)
    parent, *made = study.cells
    if out is None:
        out_file = Path(f"{parent.id}-branches.py")
    _check_kept(study, made, root)
    of = str(Path(name).resolve()) if name.endswith(".py") or "/" in name else name
    command = f"study run {shlex.quote(str(out_file))} --root {shlex.quote(root)}"
    _write(out_file, _grid(command, of, parent.id, options))
    for one in made:
        assert one.branch is not None
        print(
            f"{one.id}  {one.steps:,} steps from step {one.branch.step:,}, learning rate "
            f"{one.optimizer.learning_rate:.4g}"
        )
    print(f"{out_file}: {len(made)} branches of {parent.id}; to train them: {command}")
    return 0


def _numbers(text: str, option: str, kind: type[int] | type[float]) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(kind(part.strip().removesuffix("%")) for part in text.split(","))
    except ValueError:
        raise StudyError(
            f"{option} {text!r}: give numbers separated by commas, such as 64,256"
        ) from None


def _check_kept(study: Study, made: list[Cell], root: str) -> None:
    """Refuses to branch where no checkpoint is, and none will be."""
    from study.records.storage import resolve
    from study.training.checkpoint import saved_steps

    parent = study.cells[0]
    folder = study.folder(resolve(root_of(root)).absolute()) / parent.id
    saved = saved_steps(folder / "checkpoints")
    coming = study.execution_of(parent).kept_steps(parent.steps)
    last = max(saved, default=0)
    for one in made:
        assert one.branch is not None
        step = one.branch.step
        if step in saved or (step in coming and step > last):
            continue
        kept = sorted({*saved, *(step for step in coming if step > last)})
        percents = ", ".join(f"{100 * k / parent.steps:.3g} %" for k in kept)
        raise StudyError(
            f"{parent.id} keeps no checkpoint of step {step:,}, but of {percents}: give --at one "
            "of these, or train it in another --root with --set execution.keep_every_percent"
        )


def _grid(command: str, study: str, cell: str, options: dict[str, Any]) -> str:
    lines = [repr(study), repr(cell), *(f"{k}={v!r}" for k, v in options.items() if v)]
    body = "".join(f"        {line},\n" for line in lines)
    return (
        f'"""{command}\n\nBranches of {cell}, written by `study branch`.\n"""\n\n'
        "from sweeps.grids.branches import branches\n\n\n"
        f"def study():\n    return branches(\n{body}    )\n"
    )


def _write(file: Path, text: str) -> None:
    """Writes a new grid file; one with other branches is left alone."""
    try:
        if file.exists() and file.read_text() != text:
            raise StudyError(f"{file} exists and has other branches; give another --out")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise StudyError(f"cannot write {file}: {error.strerror or error}") from None
