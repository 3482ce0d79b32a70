"""Mirrors a record to wandb (group = study, id = cell id) without ever stopping the run.

The record is the truth. Without a network or an API key, or if the server does not take the run,
it is mirrored offline under `<record>/wandb/`, for a later `study sync`; nothing is contacted then.
A failure of wandb is logged once and ends the mirror.

wandb shows a run that failed, and alerts its owner; one that diverged alerts too; one that was
asked to stop and will go on is shown as preempted.

wandb writes to local disk only. For a record in a bucket, its files are in a temporary folder until
the run ends, and are then copied. A kill loses that attempt's mirror, but nothing of its record.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.records.record import Progress
from study.records.redact import redact
from study.records.storage import format_error, is_bucket, write

log = logging.getLogger(__name__)

# wandb 0.31 uses both names for its own server, and stores a key under the first.
HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
PROJECT = "batch-size-study"  # unless WANDB_PROJECT is set
# Old names of two modes, which wandb still accepts.
_OLD_MODES = {"dryrun": "offline", "run": "online"}
# Seconds for the server to accept a connection. The checks for a server and a key are made here,
# because `wandb.init` retries until its `init_timeout` in every cell and prompts for a missing key
# on a terminal, and `wandb.login(prompt=False)` rewrites the user's settings file.
CONNECT_SECONDS = 5.0
INIT_SECONDS = 30.0
# Without a limit, a network that is lost during a run holds its machine for good at the run's end.
FINISH_SECONDS = 300.0


class WandbMirror:
    """Mirrors rows to wandb; does nothing with `enabled=False` or in mode "disabled".

    Arguments:
      group, run_id, name, config, tags: of the run.
      first_step: of wandb's own count of rows: larger than that of any row of earlier attempts,
        which wandb would replace.
      system_metrics: also record utilisation and memory of the machine and its accelerators.
    """

    def __init__(
        self,
        folder: Path,
        *,
        group: str,
        run_id: str,
        name: str,
        config: dict[str, Any],
        tags: Sequence[str] = (),
        first_step: int = 0,
        system_metrics: bool = False,
        enabled: bool,
    ):
        self._run: Any = None
        self._name = name
        self._folder = folder
        self._temp: Path | None = None
        self._preempting = False
        self._first: dict[str, Any] = {"step": first_step, "commit": True}
        mode = wandb_mode()
        if not enabled or mode == "disabled":
            return
        online = mode != "offline"
        if online and (why := why_offline()) is not None:
            log.warning("wandb: %s; the run is mirrored offline, for `study sync`", why)
            online = False
        try:
            import wandb

            if is_bucket(folder):
                self._temp = Path(tempfile.mkdtemp(prefix="study-wandb-"))

            def start(mode: str) -> Any:
                if mode == "offline":  # else its service looks up wandb's server all the same
                    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
                return wandb.init(
                    project=os.environ.get("WANDB_PROJECT", PROJECT),
                    group=group,
                    id=run_id,
                    name=name,
                    tags=tags,
                    resume="allow" if mode == "online" else None,
                    dir=self._temp or folder,
                    mode=mode,  # type: ignore[arg-type]
                    config=config,
                    settings=_settings(wandb, system_metrics),
                )

            try:
                self._run = start(mode if online else "offline")
            except Exception as error:
                if not online:
                    raise
                log.warning("wandb: %s; the run is mirrored offline", type(error).__name__)
                wandb.teardown(1)  # else its service takes the id of the run for in use
                self._run = start("offline")
            self._run.define_metric("examples_seen")
            self._run.define_metric("*", step_metric="examples_seen")
        except Exception as error:
            self._give_up(error)

    def row(self, seen: Progress, attempt: int, values: dict[str, Any]) -> None:
        """Logs one row. Its x axis is `examples_seen`, because wandb's own step cannot go back."""
        more = {
            "global_step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": float(seen.pairs),
            "attempt": attempt,
        }
        self._call("log", {**more, **values}, **self._first)
        self._first = {}

    def preempting(self) -> None:
        """The run saves its state and stops; it will go on."""
        self._preempting = True
        self._call("mark_preempting")

    def diverged(self) -> None:
        """The run ends because its loss is not finite."""
        self._alert("diverged", "its loss is not finite", "WARN")

    def finish(self, error: BaseException | None = None) -> None:
        """Closes the run, which wandb shows as finished, or as failed or preempted by `error`."""
        if isinstance(error, Exception) and not self._preempting:
            self._alert("failed", redact(format_error(error, max_chars=500)), "ERROR")
        self._call("finish", exit_code=int(error is not None))
        self._run = None
        if self._temp is None:
            return
        try:
            _copy_files(self._temp, self._folder)
        except Exception as failure:
            self._give_up(failure)
        shutil.rmtree(self._temp, ignore_errors=True)
        self._temp = None

    def _alert(self, event: str, text: str, level: str) -> None:
        title = f"{self._name[:50]} {event}"  # of 63 characters at most
        self._call("alert", title=title, text=f"{self._name} {event}: {text}", level=level)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Calls a method of wandb's run, if there is one."""
        if self._run is None:
            return
        try:
            getattr(self._run, method)(*args, **kwargs)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        # Only the type of the error, because its message could quote a key or an address.
        log.warning("wandb: %s; the run goes on without it", type(error).__name__)
        self._run = None


def _copy_files(temp: Path, folder: Path) -> None:
    for path in sorted(temp.rglob("*")):
        if path.is_file() and not path.is_symlink():
            write(folder.joinpath(*path.relative_to(temp).parts), path.read_bytes())


def wandb_mode() -> str:
    """`WANDB_MODE` as "online", "offline", "shared" or "disabled"; "offline" if it is unset."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    return _OLD_MODES.get(mode, mode)


def why_offline() -> str | None:
    """The reason, in one line, why runs cannot be mirrored online from here; None if they can."""
    if not has_key():
        return "no API key; `wandb login` stores one"
    servers = _servers()
    # Behind a proxy only wandb itself can find out.
    if not urllib.request.getproxies() and not any(
        _accepts_connections(*server) for server in servers
    ):
        return f"{servers[0][0]} does not answer"
    return None


def has_key() -> bool:
    """Whether wandb would find an API key without prompting for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        words = netrc.read_text().split()
    except (OSError, ValueError):
        return False
    return any(host in words for host, _ in _servers())


def _servers() -> list[tuple[str, int]]:
    """Host and port of wandb's server, under each of its names."""
    base = os.environ.get("WANDB_BASE_URL")
    if not base:
        return [(host, 443) for host in HOSTS]
    url = urllib.parse.urlsplit(base)
    return [(url.hostname or base, url.port or (80 if url.scheme == "http" else 443))]


@functools.cache
def _accepts_connections(host: str, port: int) -> bool:
    """Cached, so that a process without network waits once and not in every cell."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _settings(wandb: Any, system_metrics: bool) -> Any:
    """Quiet, and without code and git state, which the record has."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=not system_metrics,
        x_disable_machine_info=not system_metrics,  # which also disables the metrics
        x_disable_meta=True,
        x_save_requirements=False,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
