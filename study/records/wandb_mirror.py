"""wandb as a mirror of the record: group = study, id = cell id, and never a reason to stop.

wandb writes to local disk only: of a record in a bucket its files lie in a temporary folder and are
copied when the run ends, so a kill loses that attempt's mirror and nothing of its record.

The record is the truth. Without a network or a key the run is mirrored offline under
`<record>/wandb/`, for `wandb sync` later; any failure of wandb is told once and ends the mirror.
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

# wandb 0.31 knows its own server by either name, and notes a key under the first.
HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
PROJECT = "batch-size-study"  # unless WANDB_PROJECT says otherwise
# Names that older versions of wandb gave to two modes, and that it still takes.
_FORMER = {"dryrun": "offline", "run": "online"}
PATIENCE = 5.0  # seconds for a server to answer: wandb itself would take 30, for every cell


class WandbMirror:
    """Mirrors rows to wandb; nothing with `enabled=False` or in the mode "disabled"."""

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
        """One row; its x axis is the logged `examples_seen`, since wandb steps cannot go back."""
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
        """Ends the run's files; the exit code is what wandb shows as the run's state."""
        try:
            if self._run is not None:
                self._run.finish(exit_code=int(failed))
            if self._temp is not None:
                _copied(self._temp, self._folder)
        except Exception as error:
            self._give_up(error)
        finally:
            if self._temp is not None:
                shutil.rmtree(self._temp, ignore_errors=True)
        self._run = self._temp = None

    def _give_up(self, error: Exception) -> None:
        # Only the kind of error: a message of wandb's could quote a key or an address.
        log.warning("wandb: %s; the run goes on without it", type(error).__name__)
        self._run = None


def _copied(temp: Path, folder: Path) -> None:
    for path in sorted(temp.rglob("*")):
        if path.is_file() and not path.is_symlink():
            write(folder.joinpath(*path.relative_to(temp).parts), path.read_bytes())


def wandb_mode() -> str:
    """`WANDB_MODE` as "online", "offline", "shared" or "disabled"; "offline" where it is unset."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    return _FORMER.get(mode, mode)


def why_offline() -> str | None:
    """Why a run cannot be mirrored online from here, in one line; None where it can be."""
    if not has_key():
        return "no API key, so runs are mirrored offline; see `wandb login`"
    places = _places()
    # Behind a proxy only wandb itself can tell.
    if not urllib.request.getproxies() and not any(_answers(*place) for place in places):
        host = places[0][0]
        return f"{host} does not answer, so runs are mirrored offline; see `wandb sync`"
    return None


def has_key() -> bool:
    """Whether wandb would find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        words = netrc.read_text().split()
    except (OSError, ValueError):
        return False
    return any(host in words for host, _ in _places())


def _places() -> list[tuple[str, int]]:
    """Host and port of wandb's server, under all its names."""
    base = os.environ.get("WANDB_BASE_URL")
    if not base:
        return [(host, 443) for host in HOSTS]
    url = urllib.parse.urlsplit(base)
    return [(url.hostname or base, url.port or (80 if url.scheme == "http" else 443))]


@functools.cache
def _answers(host: str, port: int) -> bool:
    """Asked once in a process, so that a sweep without network does not wait in every cell."""
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _settings(wandb: Any) -> Any:
    """Quiet, and without what a study does not need: code, git state, machine statistics."""
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
