"""Arguments and options that several verbs of the command line share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def local(value: Any) -> Any:
    """Refuses a bucket where a path of this machine is read or written."""
    for path in value if isinstance(value, list) else [value]:
        if path is not None and "://" in path:
            raise typer.BadParameter(f"{path} is not on this machine; give a local folder or file")
    return value


Name = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or a grid file (.py).")]
Root = Annotated[
    str,
    typer.Option(
        "--root", envvar="STUDY_ROOT", metavar="DIR", help="Folder or bucket of all records."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        envvar="STUDY_DATA",
        metavar="DIR",
        callback=local,
        help="Folder of the data sets.  [default: the study's own, most often 'data']",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Only cells whose id begins with or matches PATTERN, such as 'b512*', or whose field "
        "has one of some values, such as batch_size=256,512 (or !=). Repeated: ids that match any, "
        "fields that match all.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Sets a field of every cell, such as optimizer.b2=0.999. May be repeated.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="ADDRESS", help="Join this Ray cluster instead of starting one."
    ),
]
ExecutionFile = Annotated[
    str | None,
    typer.Option(
        "--execution",
        metavar="FILE",
        callback=local,
        help="How cells run, as `study plan --save-execution FILE` wrote it.",
    ),
]

Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="KEY",
        help="What quality is, as records name it: eval/zero_shot/SPLIT/top1.  "
        "[default: zero-shot on test_font]",
    ),
]


def study_of(
    name: str,
    data: str | None,
    settings: list[str] | None,
    only: list[str] | None,
    execution: str | None = None,
) -> Any:
    """The study that is named, as the options change it."""
    from sweeps.registry import load_study
    from sweeps.selection import select

    settings = list(settings or [])
    if data is not None:
        settings.append(f"execution.data_root={json.dumps(data)}")
    study = select(load_study(name), settings=settings, only=only or [])
    if execution is None:
        return study
    from sweeps.cli import plan_table as plan_report

    return plan_report.executed(study, execution)


def root_of(root: str) -> str:
    """A folder, or a bucket that answers."""
    from study.records.storage import check_reachable, resolve

    return str(check_reachable(resolve(root))) if "://" in root else root
