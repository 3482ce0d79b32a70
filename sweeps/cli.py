"""The command line: `study VERB`. Every verb imports what it needs when it runs, so that
`study --help` and `study list` answer at once."""

from __future__ import annotations

import contextlib
import functools
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

from study.secrets import hide
from sweeps import cli_bench, cli_data
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
    str, typer.Option("--root", envvar="STUDY_ROOT", metavar="DIR", help="Folder of all records.")
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
ExecutionFile = Annotated[
    str | None,
    typer.Option(
        "--execution", metavar="FILE", help="How cells run, as `study plan --write FILE` wrote it."
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


@app.command("list", epilog="Example: study list table-8")
def list_studies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]", help="Its cells and assumptions.  [default: all studies]"
        ),
    ] = None,
    only: Only = None,
    settings: Set = None,
    as_json: Json = False,
) -> int:
    """The built-in studies, or the cells of one and the assumptions that they rest on."""
    from sweeps import cli_list

    if name is None:
        return cli_list.studies(as_json=as_json)
    return cli_list.study(_study(name, None, settings, only), as_json=as_json)


@app.command(epilog="Example: study run demo --only batch_size=512 --parallel 2")
def run(
    name: Name,
    root: Root = "runs",
    data: Data = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", min=1, help="Cells at a time.  [default: cores]")
    ] = None,
    only: Only = None,
    settings: Set = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="ADDRESS", help="Join this Ray cluster instead of starting one."
        ),
    ] = None,
    execution: ExecutionFile = None,
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

    study = _study(name, data, settings, only, execution)
    if dry_run:
        return cli_run.dry_run(study, _root(root), as_json=as_json)
    return cli_run.run(study, _root(root), parallel=parallel, address=address, as_json=as_json)


@app.command(epilog="Example: study plan table-8 --slice v4-32 --write v4-32.json")
def plan(
    name: Name,
    slice_name: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="SLICE",
            help="On this machine (v4-32, v6e-16x2, gpu:h100), or on the smallest slice of a "
            "generation (v4) that fits.  [default: each cell's own]",
        ),
    ] = None,
    data: Data = None,
    only: Only = None,
    settings: Set = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0, metavar="PRICE", help="Of a chip-hour.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate", metavar="DIR", help="Records whose speed replaces the assumed one."
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="FILE", help="How cells run, for `run --execution FILE`."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="CSV and figure of the plan.")
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="Programs compiled at a time.")
    ] = 2,
    formula: Annotated[
        bool,
        typer.Option("--formula", help="Compile nothing: what is known, else memory by formula."),
    ] = False,
    as_json: Json = False,
) -> int:
    """What a study would take: fit, memory, FLOPs, days and cost of every cell, and no TPU needed.

    The very step that `train` runs is compiled for the slice. Exit codes: 0 all cells fit, 1 one
    does not, 2 bad input.
    """
    from sweeps import cli_plan

    return cli_plan.run(
        _study(name, data, settings, only),
        slice_name=slice_name,
        price=price,
        records=calibrate,
        write=write,
        out=out,
        parallel=parallel,
        formula=formula,
        as_json=as_json,
    )


@app.command(epilog="Example: study train demo b512-sigmoid-s0")
def train(
    name: Name,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or how it begins.")],
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
    execution: ExecutionFile = None,
) -> int:
    """Trains one cell in this process, without Ray. Exit codes as for `run`."""
    from sweeps import cli_run

    study = _study(name, data, settings, None, execution)
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


@app.command(epilog="Example: study figures demo --out figures; study figures --paper")
def figures(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies.  [default: all with records]"),
    ] = None,
    root: Root = "runs",
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where to.")] = "figures",
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="From the paper's own numbers; needs no records.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Draws every figure and table that the records of the studies allow.

    With --paper those that the paper's printed numbers suffice for.
    """
    from sweeps import cli_figures

    names = list(studies or [])
    if paper and (names or metric):
        raise typer.BadParameter("--paper takes no study and no metric")
    if paper:
        return cli_figures.paper(out, as_json=as_json)
    recorded = functools.partial(_recorded, root=_root(root))
    return cli_figures.figures(names, _root(root), out, metric, recorded, as_json=as_json)


@app.command(epilog="Example: study claims demo; study claims --paper")
def claims(
    name: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study.")] = None,
    root: Root = "runs",
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's own numbers, and its text against them.")
    ] = False,
    as_json: Json = False,
) -> int:
    """The paper's claims, tested on the records of a study."""
    from sweeps import cli_claims

    known: str | None = None
    where: dict[str, Any] = {}
    if name:
        known, where = _recorded(name, _root(root))
    return cli_claims.claims(
        known, _root(root), metric=metric, paper=paper, as_json=as_json, **where
    )


@app.command(epilog="Example: study report demo --out demo.html")
def report(
    name: Name,
    root: Root = "runs",
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where to.  [default: STUDY-report.html]"),
    ] = None,
    metric: Metric = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Serve it on this machine and redraw it as records change."),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of --watch; 0 is any free one.")
    ] = 8765,
    as_json: Json = False,
) -> int:
    """One HTML file: question, verdicts, figures, tables, provenance. It loads nothing."""
    from sweeps import cli_report

    of = cli_report.stated(name, *_recorded(name, _root(root)))
    if watch:
        return cli_report.watch(of, _root(root), metric=metric, port=port)
    return cli_report.report(of, _root(root), out, metric=metric, as_json=as_json)


@app.command(epilog="Example: study dash demo --out demo-workspace.json")
def dash(
    name: Name,
    settings: Set = None,
    only: Only = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write it here, and save nothing.")
    ] = None,
) -> int:
    """The study's wandb workspace as code: saved with a key and a network, else printed as JSON."""
    from sweeps import cli_dash

    return cli_dash.run(_study(name, None, settings, only), out=out)


@app.command(epilog="Example: study doctor")
def doctor(root: Root = "runs", data: Data = None, as_json: Json = False) -> int:
    """Checks what a study needs of this machine. Exit code 1 if something would fail."""
    from sweeps import doctor as checks

    return checks.report(_root(root), Path(data or "data"), as_json=as_json)


def _study(
    name: str,
    data: str | None,
    settings: list[str] | None,
    only: list[str] | None,
    execution: str | None = None,
) -> Any:
    from sweeps.grid import find
    from sweeps.select import select

    settings = list(settings or [])
    if data is not None:
        settings.append(f"execution.data_root={json.dumps(data)}")
    study = select(find(name), settings=settings, only=only or [])
    if execution is None:
        return study
    from sweeps import cli_plan

    return cli_plan.executed(study, execution)


def _recorded(name: str, root: str) -> tuple[str, dict[str, Any]]:
    """A study's name, planned cells and folder; of records without a grid here, only the name."""
    from study.cell import to_dict
    from sweeps.grid import StudyError, find

    try:
        study = find(name)
    except StudyError:
        if "/" not in name and (Path(root) / name).is_dir():
            return name, {}
        raise
    planned = [
        {
            "id": c.id,
            "cell": to_dict(c),
            "steps": c.steps,
            "examples": c.examples,
            "pairs_per_step": c.pairs_per_step,
        }
        for c in study.cells
    ]
    return study.name, {"planned": planned, "records": study.records}


def _root(root: str) -> str:
    from sweeps.grid import StudyError

    if "://" in root:
        raise StudyError(f"--root {root}: give a folder; a bucket can be mounted as one")
    return root


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
            print(f"study: {hide(_one_line(str(error)))}", file=sys.stderr)
            return BAD_INPUT
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"study-error-{stamp}-", suffix=".txt", delete=False
    ) as file:
        file.write(hide("".join(traceback.format_exception(error))))
    said = hide(_one_line(f"{type(error).__name__}: {error}"))
    print(f"study: unexpected {said}; the traceback is in {file.name}", file=sys.stderr)
    return UNEXPECTED


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".")
