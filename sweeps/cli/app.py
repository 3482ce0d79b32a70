"""The command line, `study VERB`: the verbs by group, and errors in one line.

Verbs import what they need when they run, so that `study --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import tempfile
import time
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from study.errors import UserError
from study.records.redact import redact
from sweeps.cli import (
    advise,
    bench,
    best,
    branch,
    cells,
    claims,
    cluster,
    dash,
    data_emoji,
    doctor,
    export,
    figures,
    plan,
    pull,
    report,
    run,
    status,
    sync,
    train,
    work,
)
from sweeps.cli import (
    help as help_,
)
from sweeps.cli import (
    list as list_,
)
from sweeps.ray_cluster.env import platforms

BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 70, 130


class Verbs(TyperGroup):
    """Says in one line that Ctrl-C ended a verb; typer itself only gives the exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("study: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="study",
    cls=Verbs,
    help="Batch-size studies for contrastive image-text training.",
    epilog="Example: study run demo && study figures demo. Exit codes and JSON: study help",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
VERBS = {
    "Explore": (
        ("list", list_.list_studies, "study list table-8"),
        ("plan", plan.plan, "study plan table-8 --slice v4-32 --save-execution v4-32.json"),
        ("help", help_.show_help, "study help"),
        ("doctor", doctor.doctor, "study doctor table-8 --address 10.0.0.2:6379"),
    ),
    "Run": (
        ("run", run.run, "study run demo --only batch_size=512 --workers 2"),
        ("work", work.work, "study work demo --root gs://lab/runs --machine v4-32"),
        ("train", train.train, "study train demo b512-sigmoid-s0"),
        (
            "branch",
            branch.branch,
            "study branch critical-batch b64-sigmoid-s0-2c --at 50 --batch-size 64,256 "
            "--examples 65536",
        ),
        ("status", status.status, "study status demo --watch; study status"),
        ("logs", cells.logs, "study logs demo b512-sigmoid-s0 --follow"),
        ("retry", cells.retry, "study retry demo --failed && study run demo"),
        ("cancel", cells.cancel, "study cancel demo b512-sigmoid-s0"),
    ),
    "Results": (
        ("figures", figures.figures, "study figures demo --out figures; study figures --paper"),
        ("claims", claims.claims, "study claims demo; study claims --paper"),
        ("best", best.best, "study best demo --by batch_size"),
        ("advise", advise.advise, "study advise --examples 3e9 --loss softmax"),
        ("report", report.report, "study report demo --out demo.html"),
        (
            "export",
            export.export,
            "study export fig-2-middle b4096-sigmoid-s0 --format hugging-face --out siglip",
        ),
        ("pull", pull.pull, "study pull demo --from gs://lab/runs --out snapshots/demo"),
        ("dash", dash.dash, "study dash demo --out demo-workspace.json"),
        ("sync", sync.sync, "study sync demo"),
    ),
}
for panel, verbs in VERBS.items():
    for name, function, example in verbs:
        app.command(
            name,
            help=help_.describe(name, function),
            epilog=f"Example: {example}",
            rich_help_panel=panel,
        )(function)
app.add_typer(data_emoji.app, name="data", rich_help_panel="Data")
app.add_typer(bench.app, name="bench", rich_help_panel="Developer")
app.add_typer(cluster.app, name="cluster", rich_help_panel="Developer")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"study {importlib.metadata.version('batch-size-study')}")
        raise typer.Exit


def main() -> None:
    """Runs the command line and exits; an error that the user can fix is one line."""
    if found := platforms():
        os.environ["JAX_PLATFORMS"] = found
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # `study status | head`
        with contextlib.suppress(OSError):
            sys.stdout.close()
        code = 0
    except Exception as error:
        code = _report_error(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report_error(error: Exception) -> int:
    """Prints an error in one line; returns the exit code."""
    if hasattr(error, "format_message"):  # click's: a wrong verb, option or value
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
            return 0
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "study"
        if message:
            print(f"study: {_one_line(message)}; see {verb} --help", file=sys.stderr)
        return BAD_INPUT
    if isinstance(error, UserError):
        print(f"study: {redact(_one_line(str(error)))}", file=sys.stderr)
        return BAD_INPUT
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"study-error-{stamp}-", suffix=".txt", delete=False
    ) as file:
        file.write(redact("".join(traceback.format_exception(error))))
    message = redact(_one_line(f"{type(error).__name__}: {error}"))
    print(f"study: unexpected {message}; the traceback is in {file.name}", file=sys.stderr)
    return UNEXPECTED


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".")


if __name__ == "__main__":
    main()
