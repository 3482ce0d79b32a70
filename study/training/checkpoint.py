"""Checkpoints with Orbax: asynchronous and atomic; the last few are kept, and chosen steps."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from study.records.provenance import code_version
from study.records.record import CELL, RecordError, read_json
from study.records.storage import format_error, is_bucket

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 4.0)  # waits before a failed read is tried again
UNREADABLE = "unreadable-"  # prefix of a checkpoint that is set aside


class Restored(NamedTuple):
    """A checkpoint's state, and the host's values saved with it."""

    state: Any
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints of one cell.

    Orbax removes a checkpoint when its successor is complete, so a kill never leaves none. A
    failed read removes nothing. Every process of a run must call every method.

    Arguments:
      keep_last: number of latest checkpoints to keep.
      keep_at: steps whose checkpoints are never removed.

    Raises:
      RecordError: from every method, in one line: the disk or the bucket fails.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_at: Collection[int] = ()):
        kept = [policies.LatestN(keep_last), policies.CustomSteps(sorted(keep_at))]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            create=True,
            cleanup_tmp_directories=True,
        )
        self._place, self._folder = folder, orbax_path(folder)
        with self._explained("open"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def restore(self, like: Any) -> Restored | None:
        """The latest checkpoint that can be read, or None if there are none.

        A failed read is retried, since buckets and network disks fail for seconds. If it keeps
        failing and an older checkpoint can be read, the newer one is renamed, and training makes
        it again. With several processes the error is raised instead: the others may have read
        the checkpoint that this one could not.

        Arguments:
          like: shapes with shardings (`study.training.compile.TrainProgram.state`), or arrays.

        Raises:
          RecordError: there are checkpoints, and none of them can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        with self._explained("list"):
            steps = sorted(self._manager.all_steps(), reverse=True)
        failures: dict[int, Exception] = {}
        for step in steps:
            try:
                state = self._read(step, abstract)
            except Exception as error:  # Orbax, TensorStore and json raise many types
                failures[step] = error
                if jax.process_count() > 1:
                    break
                continue
            for unreadable, reason in failures.items():
                log.warning(
                    "checkpoint %d cannot be read (%s); set aside, going on from %d",
                    *(unreadable, format_error(reason), step),
                )
                self._set_aside(unreadable)
            # A new manager does not know the type of its items.
            metadata = self._manager.metadata(step).custom_metadata
            return Restored(state, dict(metadata or {}))
        if failures:
            step, reason = next(iter(failures.items()))
            raise RecordError(
                f"{self._folder}: checkpoint {step} cannot be read ({format_error(reason)}); "
                f"{self._remedy()}, or move this folder away: the cell then starts from the "
                "beginning and ends with the same numbers"
            ) from reason
        return None

    def _remedy(self) -> str:
        remedy = "run again if the disk or the bucket was out of reach"
        begun = (read_json(self._place.parent / CELL) or {}).get("code")
        if begun in (None, code_version()):
            return remedy
        return (
            f"code {begun} began the cell and this is {code_version()}, whose state may have other "
            f"arrays: {remedy}, use the earlier code"
        )

    def _read(self, step: int, abstract: Any) -> Any:
        for wait in RETRY_SECONDS if jax.process_count() == 1 else ():
            try:
                return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:
                log.warning("checkpoint %d: %s; trying again", step, format_error(error))
                time.sleep(wait)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def _set_aside(self, step: int) -> None:
        """Rename a checkpoint to a name that Orbax ignores."""
        path, aside = self._place / str(step), self._place / f"{UNREADABLE}{step}"
        with self._explained("rename"):
            if is_bucket(path):
                path.fs.mv(path.path, aside.path, recursive=True)  # type: ignore[attr-defined]
            else:
                path.rename(aside)
            self._manager.reload()

    def save(self, step: int, state: Any, metadata: dict[str, Any] | None = None) -> None:
        """Start to write `state`. It is copied first, so its buffers may be donated.

        Arguments:
          metadata: JSON values that `restore` returns.
        """
        with self._explained("save"):
            self._manager.save(
                step, args=ocp.args.StandardSave(state), custom_metadata=metadata or {}
            )

    def wait(self) -> None:
        """Wait until all saved checkpoints are on disk."""
        with self._explained("save"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until all saved checkpoints are on disk; end Orbax's threads in any case."""
        try:
            self.wait()
        finally:
            with self._explained("save"):
                self._manager.close()

    def _explained(self, action: str) -> contextlib.AbstractContextManager[None]:
        return _explain(self._folder, action)


@contextlib.contextmanager
def _explain(folder: Any, action: str) -> Iterator[None]:
    """Turn errors of Orbax and TensorStore into a RecordError of one line."""
    try:
        yield
    except RecordError:
        raise
    except Exception as error:  # of many types, ValueError for a full disk among them
        raise RecordError(
            f"{folder}: cannot {action} a checkpoint ({format_error(error)}); make room "
            "or restore access and run again (everything recorded is kept)"
        ) from error


def saved_steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder or a bucket, ascending."""
    path = orbax_path(folder)
    with _explain(folder, "list"):
        return sorted(ocp.utils.checkpoint_steps(path)) if path.exists() else []


def load_checkpoint(folder: Path, step: int, *, part: str | None = None) -> dict[str, Any]:
    """A checkpoint as nested dicts of numpy arrays, without a device and without its cell.

    It only reads: the cell may be training meanwhile.

    Arguments:
      step: one of `saved_steps`.
      part: only this field of `study.training.step.State`, such as "params"; its others are not
        read.

    Raises:
      RecordError: it cannot be read.
    """
    path = orbax_path(folder) / str(step) / "default"
    handler = ocp.PyTreeCheckpointHandler()
    with _explain(folder, "read"):
        tree = {k: v for k, v in handler.metadata(path).tree.items() if part in (None, k)}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=as_numpy, partial_restore=True)
        return handler.restore(path, args=args)


def orbax_path(folder: Path) -> epath.Path:
    """`folder` in the form that Orbax takes: absolute, or gs://..."""
    return epath.Path(str(folder) if is_bucket(folder) else folder.absolute())
