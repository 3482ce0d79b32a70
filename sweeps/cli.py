"""The command line: `study VERB`. Every verb imports what it needs when it runs, so that
`study --help` and `study list` answer at once."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps import cli_bench, cli_cells, cli_cluster, cli_data
from sweeps.cluster import platforms

app = typer.Typer(
    name="study",
    help="Batch-size studies for contrastive image-text training.",
    epilog="Example: study run demo && study figures demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_cluster.app, name="cluster")
for verb in (cli_cells.logs, cli_cells.retry, cli_cells.cancel):
    app.command(epilog=cli_cells.EXAMPLES[verb.__name__])(verb)

# An error whose message says what to do: one line, exit code 2. Named by module, so that knowing
# them costs no import: an error of a module that is not loaded cannot have been raised.
EXPECTED = (
    ("study.aot", "AotError"),
    ("study.cell", "CellError"),
    ("study.hardware", "HardwareError"),
    ("study.records", "RecordError"),
    ("study.data.dataset", "DataError"),
    ("analysis.errors", "AnalysisError"),
    ("sweeps.grid", "StudyError"),
)
BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 70, 130

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
        "has a value, such as batch_size=512 or loss.kind=sigmoid. May be repeated.",
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


Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="KEY",
        help="What quality is, as records name it: eval/zero_shot/SPLIT/top1.  "
        "[default: zero-shot on test_font]",
    ),
]


@app.callback(invoke_without_command=True)
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"study {importlib.metadata.version('batch-size-study')}")
        raise typer.Exit


@app.command("list", epilog="Example: study list")
def list_studies(as_json: Json = False) -> int:
    """The built-in studies, their cells and questions."""
    from sweeps.grid import find, names
    from sweeps.table import table

    studies = [find(name) for name in names()]
    if as_json:
        rows = [
            {"study": s.name, "cells": len(s.cells), "paper": s.paper, "question": s.question}
            for s in studies
        ]
        print(json.dumps(rows, indent=1))
    else:
        print(
            table(
                ("study", "cells", "paper", "question"),
                [(s.name, str(len(s.cells)), s.paper, s.question) for s in studies],
                right={1},
            )
        )
    return 0


@app.command(epilog="Example: study run demo --only batch_size=512 --parallel 2")
def run(
    name: Name,
    root: Root = "runs",
    data: Data = None,
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", min=1, help="Local cells at a time.  [default: cores]"),
    ] = None,
    max_parallel: Annotated[
        list[str] | None,
        typer.Option(
            "--max-parallel",
            metavar="[KIND=]N",
            help="At most N cells at a time on this kind of machine, such as v4-32=2, or in all. "
            "May be repeated.",
        ),
    ] = None,
    first: Annotated[
        list[str] | None,
        typer.Option(
            "--first",
            metavar="PATTERN",
            help="Cells like these start before the others; patterns as in --only. May be "
            "repeated.",
        ),
    ] = None,
    only: Only = None,
    settings: Set = None,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Runs all cells of a study that are not over yet. Run it again at any time to go on.

    Ctrl-C asks the cells to save what they have; a second one quits at once. Exit codes: 0 all
    cells are over, 1 some failed, 2 bad input, 130 interrupted.
    """
    from sweeps import cli_run

    study = _study(name, data, settings, only)
    if dry_run:
        return cli_run.dry_run(study, _root(root), first=first or [], as_json=as_json)
    return cli_run.run(
        study,
        _root(root),
        parallel=parallel,
        max_parallel=max_parallel or [],
        first=first or [],
        address=address,
        as_json=as_json,
    )


@app.command(epilog="Example: study train demo b512-sigmoid-s0")
def train(
    name: Name,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or how it begins.")],
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
) -> int:
    """Trains one cell in this process, without Ray. Exit codes as for `run`."""
    from sweeps import cli_run

    study = _study(name, data, settings, None)
    return cli_run.train(study, study.cell(cell), _root(root))


@app.command(epilog="Example: study status demo --watch")
def status(
    name: Name,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until it is over.")] = (
        False
    ),
    as_json: Json = False,
) -> int:
    """Where every cell of a study stands.

    Exit codes: 0 all cells are over, 1 some failed, 3 some are not over yet, 2 bad input.
    """
    from sweeps import cli_status

    study = _study(name, None, settings, only)
    return cli_status.status(study, _root(root), watch=watch, as_json=as_json)


@app.command(epilog="Example: study pull demo --from gs://lab/runs --out snapshots/demo")
def pull(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies.  [default: all that are there]"),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="STUDY_ROOT",
            metavar="PLACE",
            help="A folder, bucket or snapshot; wandb-offline:DIR; or wandb:ENTITY/PROJECT.",
        ),
    ] = "runs",
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Where to.  [default: snapshots/STUDY]"),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Take wandb runs that have no end, too.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Read .wandb files with wandb's own reader as well."
        ),
    ] = True,
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="SNAPSHOT", help="Pull nothing: check a snapshot."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Makes a snapshot of records: small, typed and hashed, for figures and for keeping.

    Interrupted, the same command goes on. What was taken of each cell, its state and rows, is in
    the snapshot's manifest.json. Exit codes: 0 made (or unchanged), 2 bad input or a changed file.
    """
    from sweeps import cli_pull

    if verify is not None:
        return cli_pull.verify(verify, as_json=as_json)
    return cli_pull.pull(
        studies or [], source, out, unfinished=unfinished, check=check, as_json=as_json
    )


@app.command(epilog="Example: study figures demo --out figures")
def figures(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies.  [default: all with records]"),
    ] = None,
    root: Root = "runs",
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to.")] = "figures",
    metric: Metric = None,
    as_json: Json = False,
) -> int:
    """Draws every figure that the records of the studies allow."""
    import analysis

    drawn = []
    names = studies or analysis.frame.studies(_root(root))
    if not names:
        raise analysis.AnalysisError(f"no records in {root}; `study run STUDY` makes them")
    more = {"metric": metric} if metric else {}
    for name in names:
        known, planned = _recorded(name, _root(root))
        for figure in analysis.figures.draw_all(_root(root), known, out, planned=planned, **more):
            paths = [figure.path_png, figure.path_pdf, figure.path_csv]
            files = [str(path) for path in paths if path is not None]
            drawn.append(
                {
                    "study": known,
                    "figure": figure.name,
                    "files": files,
                    "missing": list(figure.missing),
                    "skipped": figure.skipped,
                }
            )
            if not as_json:
                lacking = f"  ({len(figure.missing)} cells missing)" if figure.missing else ""
                done = "  ".join(files) + lacking
                print(done if files else f"{known}-{figure.name}: skipped, {figure.skipped}")
    if as_json:
        print(json.dumps(drawn, indent=1))
    return 0


@app.command(epilog="Example: study claims demo")
def claims(name: Name, root: Root = "runs", metric: Metric = None, as_json: Json = False) -> int:
    """The paper's claims, tested on the records of a study."""
    import analysis

    more = {"metric": metric} if metric else {}
    found = analysis.claims.verdicts(_root(root), _recorded(name, _root(root))[0], **more)
    show = analysis.claims.to_json if as_json else analysis.claims.format_verdicts
    print(show(found))
    return 0


@app.command(epilog="Example: study doctor table-8 --address 10.0.0.2:6379")
def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Can all of its cells be placed?")
    ] = None,
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS", help="Look at this Ray cluster too."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Checks what a study needs of this machine or cluster. Exit code 1 if something would fail."""
    from sweeps import doctor as checks

    study = _study(name, data, settings, None) if name else None
    folder = Path(study.data_root if study is not None else data or "data")
    return checks.report(_root(root), folder, study=study, address=address, as_json=as_json)


def _study(name: str, data: str | None, settings: list[str] | None, only: list[str] | None) -> Any:
    from sweeps.grid import find
    from sweeps.select import select

    settings = list(settings or [])
    if data is not None:
        settings.append(f"execution.data_root={json.dumps(data)}")
    return select(find(name), settings=settings, only=only or [])


def _recorded(name: str, root: str) -> tuple[str, list[dict[str, Any]] | None]:
    """A study's name and planned cells; of records without a grid here, only the name."""
    from analysis import frame
    from study.cell import to_dict
    from sweeps.grid import StudyError, find

    try:
        study = find(name)
    except StudyError:
        if "/" not in name and name in frame.studies(root):
            return name, None
        raise
    return study.name, [{"id": c.id, **to_dict(c)} for c in study.cells]


def _root(root: str) -> str:
    """A folder, or a bucket that answers."""
    from study.places import place, reached

    return str(reached(place(root))) if "://" in root else root


def main() -> None:
    """Runs the command line and exits: one line for whatever the user can mend."""
    if found := platforms():
        os.environ["JAX_PLATFORMS"] = found
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `study status | head`
        with contextlib.suppress(OSError):
            sys.stdout.close()
        code = 0
    except Exception as error:
        code = _explain(error)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    usage = getattr(error, "format_message", None)  # a wrong verb, flag or value
    if usage is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "study"
        text = usage()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(text)
            return 0
        if text:
            print(f"study: {_one_line(text)}; see {path} --help", file=sys.stderr)
        return BAD_INPUT
    for module, name in EXPECTED:
        known = getattr(sys.modules.get(module), name, None)
        if known is not None and isinstance(error, known):
            print(f"study: {_one_line(str(error))}", file=sys.stderr)
            return BAD_INPUT
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"study-error-{stamp}-", suffix=".txt", delete=False
    ) as file:
        traceback.print_exception(error, file=file)
    said = _one_line(f"{type(error).__name__}: {error}")
    print(f"study: unexpected {said}; the traceback is in {file.name}", file=sys.stderr)
    return UNEXPECTED


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".")
