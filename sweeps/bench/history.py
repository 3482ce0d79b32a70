"""The table of measured ratios in `results/bench/README.md`, one row per measurement.

A row is appended and never changed, so the table shows how a ratio moved from commit to commit.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from study.config.host import cores
from study.records.provenance import git
from sweeps.study import StudyError

CHECKOUT = Path(__file__).resolve().parents[2]
TABLE = Path("results/bench/README.md")


class Measurement(NamedTuple):
    """One row of the table.

    Attributes:
      bench: what made it, such as "loss" for `study bench loss`.
      case: what was measured: sizes, loss, chip.
      ratio_of: the two things compared, as "numerator / denominator".
      ratio: the number, with its range if there is one.
    """

    bench: str
    case: str
    ratio_of: str
    ratio: str


def append(
    measurements: Iterable[Measurement], *, machine: str | None = None, checkout: Path = CHECKOUT
) -> Path:
    """Appends a row for each measurement, with the date, the commit and the machine.

    Arguments:
      machine: its name; None is this one's processor and cores.

    Returns:
      The file.

    Raises:
      StudyError: the code does not run from a checkout.
    """
    path = checkout / TABLE
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit, machine = describe_commit(checkout), machine or describe_machine()
    rows = [(m.bench, m.case, m.ratio_of, m.ratio, today, commit, machine) for m in measurements]
    lines = ("| " + " | ".join(x.replace("|", "\\|") for x in row) + " |\n" for row in rows)
    with path.open("a") as file:
        file.write("".join(lines))
    return path


def describe_commit(checkout: Path = CHECKOUT) -> str:
    """The commit of the checkout, marked "-dirty" if tracked files outside results/ differ.

    Raises:
      StudyError: it is not a checkout.
    """
    try:
        if Path(git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            raise OSError
        changes = ("status", "--porcelain", "--untracked-files=no", "--", ":(exclude)results")
        dirty = "-dirty" if git(checkout, *changes) else ""
        return git(checkout, "rev-parse", "--short", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        raise StudyError(
            f"{TABLE}: {checkout} is not a git checkout, so a row would have no commit; run "
            "`study` from one"
        ) from None


def describe_machine() -> str:
    """Model and number of the processor cores that this process may use."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    models = [x.partition(":")[2] for x in cpuinfo.splitlines() if x.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{' '.join(model.split())}, {cores()} cores"
