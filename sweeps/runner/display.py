"""What a sweep shows while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

from sweeps.runner.cell_status import CellStatus
from sweeps.runner.machines import LOCAL, is_local

QUIET_SECONDS = 10.0  # off a terminal, the longest time without a line


@dataclass(frozen=True, kw_only=True)
class Now:
    """How far a sweep is."""

    study: str
    cells: int
    finished: int
    failed: int
    done: float  # work, that is examples, each with the weight of its cell
    target: float  # all work
    running: Sequence[CellStatus]
    machines: Mapping[str, str] = field(default_factory=dict)  # types, by the id of the cell
    waiting: Mapping[str, int] = field(default_factory=dict)  # for a machine, by its type
    seconds_left: float | None = None  # None until there is evidence to judge it by

    @property
    def rate(self) -> float:
        """Examples per second of all running cells."""
        return sum(s.progress.examples_per_second or 0.0 for s in self.running)


class Report:
    """Shows a sweep to its user. This one shows nothing, to callers that look at the result."""

    every = 1.0  # seconds between two calls of `progress`
    errors = False  # whether it writes to standard error

    def open(self, terminal: TextIO) -> None:
        """From here on standard output and error are elsewhere; `terminal` is where its was."""

    def line(self, text: str) -> None: ...

    def progress(self, now: Now) -> None: ...

    def close(self) -> None: ...


class Lines(Report):
    """One line per event, and one at least every `QUIET_SECONDS`."""

    def __init__(self, out: TextIO):
        self._home = self._out = out
        self.errors = out is sys.stderr
        self._last = time.monotonic()

    def open(self, terminal: TextIO) -> None:
        self._out = terminal

    def line(self, text: str) -> None:
        print(text, file=self._out, flush=True)
        self._last = time.monotonic()

    def progress(self, now: Now) -> None:
        if time.monotonic() - self._last < QUIET_SECONDS or not now.running:
            return
        running = "  ".join(_brief(status, now) for status in now.running[:4])
        more = f" and {len(now.running) - 4} more" if len(now.running) > 4 else ""
        self.line(
            f"[{now.finished}/{now.cells}] running {running}{more}{_waiting(now)}"
            f"{_left(now.seconds_left)}"
        )

    def close(self) -> None:
        self._out = self._home


class Live(Report):
    """A bar for the study and a line per running cell; events scroll by above them."""

    every = 0.25

    def __init__(self, out: TextIO):
        self._home = out
        self.errors = out is sys.stderr
        self._live: Any = None
        self.open(out)

    def open(self, terminal: TextIO) -> None:
        from rich.console import Console

        if self._live is not None:
            self._live.stop()
            self._live = None
        self._console = Console(file=terminal, highlight=False)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, now: Now) -> None:
        from rich.live import Live as RichLive

        if self._live is None:
            self._live = RichLive(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(_table(now), refresh=True)

    def close(self) -> None:
        self.open(self._home)


def report_on(out: TextIO) -> Report:
    """Live on a terminal, lines elsewhere."""
    return Live(out) if out.isatty() else Lines(out)


class ProgressLine:
    """Progress of one task: a bar on a terminal, a line every `QUIET_SECONDS` elsewhere.

    Called with what is being done, how much of it is done and of how much; a total of 0 is unknown.
    """

    def __init__(self, out: TextIO | None = None):
        self._out = out or sys.stderr
        self._shown = time.monotonic()
        self._bar: Any = None

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        now = time.monotonic()
        text = f"{what} {done}/{total}" if total else f"{done} {what}" if done else what
        if not self._out.isatty():
            if now - self._shown > QUIET_SECONDS:
                print(text, file=self._out, flush=True)
                self._shown = now
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeRemainingColumn(),
                console=Console(file=self._out),
                auto_refresh=False,  # a thread of its own would be copied into forked workers
                transient=True,
            )
            self._bar.start()
            self._bar.add_task(text)
        task = self._bar.task_ids[0]
        refresh = done == total or now - self._shown > 0.1
        self._bar.update(
            task, description=text, completed=done, total=total or None, refresh=refresh
        )
        if refresh:
            self._shown = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _table(now: Now) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for _ in range(5):
        table.add_column(no_wrap=True, justify="right")

    def row(name: str, part: float, *more: str) -> None:
        bar = ProgressBar(total=1.0, completed=min(1.0, part), width=24)
        table.add_row(name, bar, f"{part:.0%}", *more)

    failed = f", {now.failed} failed" if now.failed else ""
    row(
        f"{now.study}: {now.finished}/{now.cells} cells{failed}",
        now.done / now.target,
        rate(now.rate) if now.rate else "",
        _left(now.seconds_left).strip(" ,"),
        "",
    )
    for s in now.running:
        seen, speed = s.progress.examples_seen, s.progress.examples_per_second
        row(
            f"  {s.cell.id}",
            seen / s.cell.examples,
            rate(speed) if speed else ("starting" if not seen else ""),
            duration(s.seconds_left) if s.seconds_left is not None else "",
            _where(s, now),
        )
    if now.waiting:
        table.add_row(f"  {_waiting(now).strip(' ,')}")
    return table


def _brief(status: CellStatus, now: Now) -> str:
    where = _where(status, now)
    return f"{status.cell.id} {percent(status)}" + (f" ({where})" if where else "")


def _where(status: CellStatus, now: Now) -> str:
    machine = now.machines.get(status.cell.id, LOCAL)
    attempt = max(status.progress.attempts, len(status.attempts.all))
    parts = ["" if is_local(machine) else machine, f"attempt {attempt}" if attempt > 1 else ""]
    return ", ".join(filter(None, parts))


def _waiting(now: Now) -> str:
    cells = ", ".join(f"{n} for {kind}" for kind, n in sorted(now.waiting.items()))
    return f", waiting: {cells}" if cells else ""


def headline(done: Mapping[str, Any]) -> str:
    """The main result of a finished cell: zero-shot accuracy, or else retrieval, or the loss.

    After it, how many examples replaced others that could not be used.

    Arguments:
      done: the content of DONE.json.
    """
    summary = done.get("summary", {})
    replaced = summary.get("data/replaced_examples")
    more = f", {replaced:,} examples replaced" if replaced else ""
    return f"{_first_figure(summary)}{more}".removeprefix(", ")


def _first_figure(summary: dict[str, Any]) -> str:
    for prefix, last, name, unit in (
        ("eval/zero_shot/", "/top1", "zero-shot", " %"),
        ("eval/retrieval/", "/image_to_text_r1", "image-to-text R@1", " %"),
    ):
        for key, value in summary.items():
            if key.startswith(prefix) and key.endswith(last) and isinstance(value, int | float):
                return f"{name} {key[len(prefix) : -len(last)]} {value:.1f}{unit}"
    loss = summary.get("train/loss")
    return f"loss {loss:.4g}" if isinstance(loss, int | float) else ""


def percent(status: CellStatus) -> str:
    return f"{status.progress.examples_seen / status.cell.examples:.0%}"


def rate(examples_per_second: float) -> str:
    if examples_per_second >= 1e3:
        return f"{examples_per_second / 1e3:,.1f}k ex/s"
    return f"{examples_per_second:.0f} ex/s"


def duration(seconds: float) -> str:
    """As one says it: 8.1 s, 7 min 3 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"
