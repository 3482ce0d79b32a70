"""Arguments and options that several verbs share, and the study that they select to run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sweeps.study import Study


def local(value: Any) -> Any:
    """Option callback that refuses a bucket where a local path is needed."""
    for path in value if isinstance(value, list) else [value]:
        if path is not None and "://" in path:
            raise typer.BadParameter(f"{path} is not on this machine; give a local folder or file")
    return value


def _local_or_gs(folder: str | None) -> str | None:
    """Option callback that refuses what data cannot be read from."""
    from study.data.errors import DataError
    from study.data.files import to_path

    try:
        if folder is not None:
            to_path(folder)
    except DataError as error:
        raise typer.BadParameter(str(error)) from None
    return folder


def _need_checkout(record: bool) -> bool:
    """Option callback that refuses to measure what could not be recorded."""
    if record:
        from sweeps.bench.history import describe_commit

        describe_commit()
    return record


def complete_study(incomplete: str) -> list[str]:
    from sweeps.registry import builtin_studies

    return [name for name in builtin_studies() if name.startswith(incomplete)]


def complete_cell(ctx: typer.Context, incomplete: str) -> list[str]:
    from sweeps.registry import load_study

    with contextlib.suppress(Exception):  # completion must not print errors
        cells = load_study(ctx.params["name"]).cells
        return [cell.id for cell in cells if cell.id.startswith(incomplete)]
    return []


StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A built-in study, or a grid file (.py).",
        autocompletion=complete_study,
    ),
]
CellName = Annotated[
    str,
    typer.Argument(metavar="CELL", help="Cell id or unique prefix.", autocompletion=complete_cell),
]
OptionalCellName = Annotated[
    str | None,
    typer.Argument(metavar="CELL", help="Cell id or unique prefix.", autocompletion=complete_cell),
]
Root = Annotated[
    str,
    typer.Option(
        "--root", envvar="STUDY_ROOT", metavar="DIR", help="Folder or bucket of the records."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        envvar="STUDY_DATA",
        metavar="DIR",
        callback=_local_or_gs,
        show_default="the study's own, usually data",
        help="Folder of the data sets, local or gs://.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Give the reason for each one that is left out.")
]
RecordRatio = Annotated[
    bool,
    typer.Option(
        "--record",
        callback=_need_checkout,
        help="Append the ratios to results/bench/README.md.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Select cells by id (a prefix or glob, such as 'b512*') or by field "
        "(batch_size=256,512, or != for all others). Repeatable: a cell must match any of the ids "
        "and all of the fields.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field of every cell, such as optimizer.b2=0.999 (repeatable).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        show_default="RAY_ADDRESS, or local",
        help="Join this Ray cluster: HOST:PORT, or auto for one on this machine; local starts one.",
    ),
]
ExecutionFile = Annotated[
    str | None,
    typer.Option(
        "--execution",
        metavar="FILE",
        callback=local,
        help="Run cells with the settings that `study plan --save-execution` wrote.",
    ),
]
DecodeWorkers = Annotated[
    int | None,
    typer.Option(
        "--decode-workers",
        metavar="N",
        min=0,
        show_default="0: one thread per core",
        help="Processes of each host that decode images, for more than eight cores.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="KEY",
        show_default="zero-shot on ImageNet or test_font, else the first",
        help="Quality, as a key of the records, such as eval/zero_shot/val_font/top1.",
    ),
]


def study_of(
    name: str,
    data: str | None,
    settings: list[str] | None,
    only: list[str] | None,
    execution: str | None = None,
    *,
    decode_workers: int | None = None,
) -> Study:
    """Loads the study `name` and applies the options that select or vary its cells."""
    from sweeps.registry import load_study
    from sweeps.selection import select

    settings = list(settings or [])
    if data is not None:
        settings.append(f"execution.data_root={json.dumps(data)}")
    if decode_workers is not None:
        settings.append(f"execution.decode_workers={decode_workers}")
    study = select(load_study(name), settings=settings, only=only or [])
    return study if execution is None else _apply_execution(study, execution)


def _apply_execution(study: Study, path: str) -> Study:
    from sweeps.planning.plan import apply
    from sweeps.study import StudyError

    try:
        settings = json.loads(Path(path).read_text())
    except OSError as error:
        raise StudyError(f"--execution {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StudyError(f"--execution {path}: not valid JSON ({error})") from None
    if not isinstance(settings, dict) or not all(isinstance(v, dict) for v in settings.values()):
        raise StudyError(f"--execution {path}: not a file of `study plan --save-execution`")
    return apply(study, settings, path)


def root_of(root: str) -> str:
    """Returns `root`; raises RecordError if it is a bucket that cannot be reached."""
    from study.records.storage import check_reachable, resolve

    return str(check_reachable(resolve(root))) if "://" in root else root
