"""What is done on every host of a slice before JAX starts there. Needs Ray, imports no JAX.

Ray's own JAX backend joins the hosts; ours goes first, so that what JAX prints then is kept, and
a lock that a killed process left does not keep it from the chips.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train.v2.jax.config import JaxConfig, _JaxBackend

LOCK = "libtpu_lockfile"
_log: Any = None  # of this process, for as long as it lives


@dataclass
class SliceBackend(JaxConfig):
    """Ray's `JaxConfig`, and: `logs`, the record whose `logs/` takes what the hosts print;
    `nodes`, a file for the ids of their nodes, on the machine of the controller."""

    logs: str = ""
    nodes: str = ""

    @property
    def backend_cls(self) -> type:
        return _Backend


class _Backend(_JaxBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        assert isinstance(backend_config, SliceBackend)
        ready = [
            worker_group.execute_single_async(rank, _make_ready, backend_config.logs, rank)
            for rank in range(len(worker_group))
        ]
        import ray

        Path(backend_config.nodes).write_text(json.dumps(ray.get(ready)))
        super().on_start(worker_group, backend_config)


def _make_ready(logs: str, rank: int) -> str:
    """On each host; returns the id of its node."""
    import ray

    from study.records.storage import resolve
    from sweeps.runner.logs import Log

    global _log
    _log = Log(resolve(logs), rank)  # kept, and with it what it copies into a bucket
    unlock(Path(tempfile.gettempdir()) / LOCK)
    return str(ray.get_runtime_context().get_node_id())


def close_log() -> None:
    """The last words of this process, into the record."""
    if _log is not None:
        _log.close()


def unlock(path: Path) -> None:
    """Removes the lock file of a libtpu that was killed; one that a live process holds stays."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return
