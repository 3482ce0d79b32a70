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
from typing import Annotated, Any

import typer

from study.secrets import hide
from sweeps import cli_bench, cli_cells, cli_cluster, cli_data, cli_pull, cli_sweep
from sweeps.cli_options import Data, Json, Metric, Name, Only, Root, Set
from sweeps.cli_options import root_of as _root
from sweeps.cli_options import study_of as _study
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
for home in (cli_sweep, cli_cells):
    for verb, example in home.EXAMPLES.items():
        app.command(epilog=example)(getattr(home, verb))
app.command(epilog=cli_pull.EXAMPLE)(cli_pull.pull)

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
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="Programs compiled at a time.")
    ] = 2,
    formula: Annotated[
        bool, typer.Option("--formula", help="Compile nothing: memory by formula.")
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
        parallel=parallel,
        formula=formula,
        as_json=as_json,
    )


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
    more: dict[str, Any] = {"metric": metric} if metric else {}
    for name in names:
        known, where = _recorded(name, _root(root))
        for figure in analysis.figures.draw_all(_root(root), known, out, **where, **more):
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

    more: dict[str, Any] = {"metric": metric} if metric else {}
    known, where = _recorded(name, _root(root))
    found = analysis.claims.verdicts(_root(root), known, **where, **more)
    show = analysis.claims.to_json if as_json else analysis.claims.format_verdicts
    print(show(found))
    return 0


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


def _recorded(name: str, root: str) -> tuple[str, dict[str, Any]]:
    """A study's name, planned cells and folder; of records without a grid here, only the name."""
    from analysis import frame
    from study.cell import to_dict
    from sweeps.grid import StudyError, find

    try:
        study = find(name)
    except StudyError:
        with contextlib.suppress(frame.AnalysisError):  # no such root
            if "/" not in name and name in frame.studies(root):
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
