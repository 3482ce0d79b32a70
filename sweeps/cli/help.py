"""`study help`: exit codes and JSON of all verbs, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from sweeps.cli.table import table

# Of every verb, in addition to its own.
SHARED = {
    0: "the verb did what was asked",
    2: "bad input, or a file, folder or service that cannot be used; one line says which",
    70: "an unexpected error; the line names the file with the traceback",
    130: "Ctrl-C; what was saved stays, and the same command continues",
}
# Verbs with a meaning of their own for 0, or with other codes.
OWN: dict[str, dict[int, str]] = {
    "plan": {0: "all cells fit", 1: "a cell does not fit, or its compiler crashed"},
    "doctor": {0: "no check failed", 1: "a check failed"},
    "run": {0: "all cells are finished or cancelled, or workers detached", 1: "some failed"},
    "work": {
        0: "no cell is left for this machine, or others have held the rest for long",
        1: "some failed",
        3: "this worker was preempted or lost a host, and may be started again",
    },
    "train": {0: "the cell is finished", 1: "it failed", 130: "it was stopped or preempted"},
    "status": {0: "all cells are finished", 1: "some failed", 3: "some are unfinished"},
    "logs": {
        0: "printed; with --follow the cell is finished or cancelled",
        1: "with --follow: it failed",
        3: "with --follow: nobody is running it",
        130: "Ctrl-C, which does not stop the cell",
    },
    "report": {0: "written", 1: "written, but a sentence of the finding no longer holds"},
    "pull": {0: "created or unchanged", 2: "bad input, or a changed file"},
    "sync": {0: "nothing is left to upload", 1: "some files were not uploaded"},
    "bench bucket": {0: "all metrics are equal", 1: "some differ"},
    "bench chaos": {0: "records are equal", 1: "they differ, a line for each difference"},
    "cluster fake": {130: "Ctrl-C stopped the slices"},
}
# What --json prints on standard output; standard error is for messages. Unknown numbers are null.
JSON = {
    "list": "list of studies: name, question, cells, examples; with STUDY an object with its cells",
    "plan": "object: study, cells (memory, FLOPs, time and fit of each), matched, assumed_mfu",
    "doctor": "list of checks: verdict (ok, warn or fail), name, text",
    "run": "object: study, exit_code, states, ran, seconds; with --dry-run: study, states, to_run",
    "status": "object: study, states, seconds_left, cells; without STUDY a list of studies",
    "figures": "list: study, figure, files, missing (cells), skipped (the reason, or null)",
    "claims": "list of verdicts; with --paper an object: verdicts, checks",
    "best": "object: study, metric, rows (mean, values, cells, fields)",
    "advise": "object: the advice, its intervals and the fit behind it",
    "report": "object: study, file, bytes, cells by state, stale (sentences), figures (files)",
    "dash": "object: the workspace as W&B stores it",
    "export": "object: study, cell, step, format, out, files, bytes, notes",
    "pull": "object: snapshot, records, sha256, from, versions, studies, notes",
    "data false-negatives": "list: one count per split and batch size",
    "bench loss": "list: one result per loss",
    "bench step": "list: one result per step",
    "bench data": "list: one result per loader, input and place",
    "bench bucket": "list: one result per order",
    "bench sweep": "object: simulated and here, each with its times and ratio",
    "bench claims": "object: seconds, bound, ratio, requests and what was lost",
    "bench chaos": "object: kills, cells, attempts, seconds and differences",
}


def describe(verb: str, function: Callable[..., int]) -> str:
    """The help of a verb: what its function says, then the verb's own exit codes."""
    text = inspect.cleandoc(function.__doc__ or "")
    if own := OWN.get(verb):
        codes = "; ".join(f"{code}: {meaning}" for code, meaning in own.items())
        text += f"\n\nExit codes: {codes}. Those of every verb: study help."
    return text


def show_help() -> int:
    """Explain the exit codes and the JSON of all verbs."""
    print("Exit codes of every verb:")
    print(_indent(table(("", ""), [(str(code), text) for code, text in SHARED.items()])))
    print("\nWith a meaning of its own:")
    rows = [(verb, str(code), text) for verb, own in OWN.items() for code, text in own.items()]
    print(_indent(table(("", "", ""), rows, right={1})))
    print("\nWhat --json prints on standard output (messages go to standard error):")
    print(_indent(table(("", ""), list(JSON.items()))))
    return 0


def _indent(text: str) -> str:
    """Without the head, which is empty."""
    return "\n".join(f"  {line}" for line in text.splitlines()[1:])
