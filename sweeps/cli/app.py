"""The command line: `study VERB`. Every verb imports what it needs when it runs, so that
`study --help` and `study list` answer at once."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
import tempfile
import time
import traceback
from typing import Annotated, Any

import typer

from study.records.redact import redact
from sweeps.cli import bench as cli_bench
from sweeps.cli import cells as cli_cells
from sweeps.cli import cluster as cli_cluster
from sweeps.cli import data as cli_data
from sweeps.cli import doctor as cli_doctor
from sweeps.cli import plan as cli_plan
from sweeps.cli import pull as cli_pull
from sweeps.cli import sweep as cli_sweep
from sweeps.cli.options import Json, Metric, Name, Only, Root, Set, local, study_of
from sweeps.cli.options import root_of as _root
from sweeps.ray_cluster.local import platforms

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
app.command(epilog="Example: study doctor table-8 --address 10.0.0.2:6379")(cli_doctor.doctor)
app.command("plan", epilog=cli_plan.EXAMPLE)(cli_plan.plan)

# An error whose message says what to do: one line, exit code 2. Named by module, so that knowing
# them costs no import: an error of a module that is not loaded cannot have been raised.
EXPECTED = (("study.errors", "UserError"), ("analysis.errors", "AnalysisError"))
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
    from sweeps.cli import list as cli_list

    if name is None:
        return cli_list.studies(as_json=as_json)
    return cli_list.study(study_of(name, None, settings, only), as_json=as_json)


@app.command(epilog="Example: study status demo --watch")
def status(
    name: Name,
    root: Root = "runs",
    only: Only = None,
    settings: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it while it may change.")] = (
        False
    ),
    as_json: Json = False,
) -> int:
    """Show where every cell of a study stands.

    With --watch until every cell is over or cancelled, or until nobody runs one and no `study run`
    is alive. Ctrl-C ends the watch, and no cell.

    Exit codes: 0 all cells are over, 1 some failed, 3 some are not over yet, 130 Ctrl-C,
    2 bad input.
    """
    from sweeps.cli import status as cli_status

    study = study_of(name, None, settings, only)
    return cli_status.status(study, _root(root), watch=watch, as_json=as_json)


@app.command(epilog="Example: study figures demo --out figures; study figures --paper")
def figures(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies.  [default: all with records]"),
    ] = None,
    root: Root = "runs",
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", callback=local, help="Where to.")
    ] = "figures",
    metric: Metric = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="From the paper's own numbers; needs no records.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--figure",
            metavar="NAME",
            help="Only this figure or table, such as fig_3. May be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Draws every figure and table that the records of the studies allow.

    With --paper those that the paper's printed numbers suffice for.
    """
    from sweeps.cli import figures as cli_figures

    names = list(studies or [])
    if paper and (names or metric):
        raise typer.BadParameter("--paper takes no study and no metric")
    if paper:
        return cli_figures.paper(out, only=only or [], as_json=as_json)
    recorded = functools.partial(_recorded, root=_root(root))
    return cli_figures.figures(
        names, _root(root), out, metric, recorded, only=only or [], as_json=as_json
    )


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
    from sweeps.cli import claims as cli_claims

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
        typer.Option(
            "--out", metavar="FILE", callback=local, help="Where to.  [default: STUDY-report.html]"
        ),
    ] = None,
    metric: Metric = None,
    finding: Annotated[
        str | None,
        typer.Option(
            "--finding",
            metavar="FILE",
            help="Prose to open with, each sentence with the claims that it rests on.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """One HTML file: question, verdicts, figures, tables, provenance. It loads nothing.

    Exit codes: 0 written, 1 written, but a sentence of the finding no longer holds, 2 bad input.
    """
    from sweeps.cli import report as cli_report

    of = cli_report.study_info(name, *_recorded(name, _root(root)), finding)
    return cli_report.report(of, _root(root), out, metric=metric, as_json=as_json)


@app.command(epilog="Example: study dash demo --out demo-workspace.json")
def dash(
    name: Name,
    settings: Set = None,
    only: Only = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", callback=local, help="Write it here, and save nothing."
        ),
    ] = None,
) -> int:
    """The study's wandb workspace as code: saved with a key and a network, else printed as JSON."""
    from sweeps.cli import dash as cli_dash

    return cli_dash.run(study_of(name, None, settings, only), out=out)


def _recorded(name: str, root: str) -> tuple[str, dict[str, Any]]:
    """A study's name, planned cells and folder; of records without a grid here, only the name."""
    from analysis.records import frame
    from study.config.cell import to_dict
    from sweeps.registry import load_study
    from sweeps.study import StudyError

    try:
        study = load_study(name)
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
    return study.name, {"planned": planned, "records": study.group}


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
            print(f"study: {redact(_one_line(str(error)))}", file=sys.stderr)
            return BAD_INPUT
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"study-error-{stamp}-", suffix=".txt", delete=False
    ) as file:
        file.write(redact("".join(traceback.format_exception(error))))
    said = redact(_one_line(f"{type(error).__name__}: {error}"))
    print(f"study: unexpected {said}; the traceback is in {file.name}", file=sys.stderr)
    return UNEXPECTED


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".")


if __name__ == "__main__":
    main()
