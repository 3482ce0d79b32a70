"""Mirrors a record to wandb (group = study, id = cell id) without ever stopping the run.

The record is the truth. Without a network or an API key the run is mirrored offline under
`<record>/wandb/`, for a later `wandb sync`. A failure of wandb is logged once and ends the mirror.

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
from pathlib import Path
from typing import Any

from study.records.record import Progress
from study.records.storage import is_bucket, write

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


class WandbMirror:
    """Mirrors rows to wandb; does nothing with `enabled=False` or in mode "disabled"."""

    def __init__(
        self,
        folder: Path,
        *,
        group: str,
        run_id: str,
        name: str,
        config: dict[str, Any],
        enabled: bool,
    ):
        self._run: Any = None
        self._folder = folder
        self._temp: Path | None = None
        mode = wandb_mode()
        if not enabled or mode == "disabled":
            return
        try:
            import wandb

            if is_bucket(folder):
                self._temp = Path(tempfile.mkdtemp(prefix="study-wandb-"))
            if mode in ("online", "shared") and (why := why_offline()) is not None:
                log.warning("wandb: %s", why)
                mode = "offline"
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=group,
                id=run_id,
                name=name,
                resume="allow" if mode == "online" else None,
                dir=self._temp or folder,
                mode=mode,  # type: ignore[arg-type]
                config=config,
                settings=_settings(wandb),
            )
            self._run.define_metric("examples_seen")
            self._run.define_metric("*", step_metric="examples_seen")
        except Exception as error:
            self._give_up(error)

    def row(self, seen: Progress, attempt: int, values: dict[str, Any]) -> None:
        """Logs one row. Its x axis is `examples_seen`, because wandb's own step cannot go back."""
        if self._run is None:
            return
        more = {
            "global_step": seen.step,
            "examples_seen": seen.examples,
            "pairs_seen": float(seen.pairs),
            "attempt": attempt,
        }
        try:
            self._run.log({**more, **values})
        except Exception as error:
            self._give_up(error)

    def finish(self, *, failed: bool = False) -> None:
        """Closes the run, which wandb shows as finished or failed."""
        try:
            if self._run is not None:
                self._run.finish(exit_code=int(failed))
            if self._temp is not None:
                _copy_files(self._temp, self._folder)
        except Exception as error:
            self._give_up(error)
        finally:
            if self._temp is not None:
                shutil.rmtree(self._temp, ignore_errors=True)
        self._run = self._temp = None

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
        return "no API key, so runs are mirrored offline; see `wandb login`"
    servers = _servers()
    # Behind a proxy only wandb itself can find out.
    if not urllib.request.getproxies() and not any(
        _accepts_connections(*server) for server in servers
    ):
        host = servers[0][0]
        return f"{host} does not answer, so runs are mirrored offline; see `wandb sync`"
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


def _settings(wandb: Any) -> Any:
    """Quiet, and without code, git state and machine statistics, which a study does not need."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=30,
    )
