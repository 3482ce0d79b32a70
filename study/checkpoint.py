"""Checkpoints with Orbax: asynchronous, atomic, the last two kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from study.places import is_bucket
from study.records import RecordError

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one cell.

    Two are kept, because a kill between the writing of one and the removal of its predecessor
    must never leave none. Every process of a run calls every method.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, cleanup_tmp_directories=True
        )
        self._folder = _for_orbax(folder)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def restore(self, like: Any) -> Any | None:
        """The latest checkpoint that can be read, in the shapes and shardings of `like`, or None.

        Later ones, which a disk has damaged, are removed: training makes them again. With more
        than one process nobody can know that the others met the same damage, so it is raised.

        Raises:
          RecordError: there are checkpoints, and none of them can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        damage: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Orbax, TensorStore and json raise many kinds
                if jax.process_count() > 1:
                    raise
                damage[step] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                continue
            for gone, what in damage.items():
                log.warning("checkpoint %d cannot be read (%s); going on from %d", gone, what, step)
                self._manager.delete(gone)
            return state
        if damage:
            raise RecordError(
                f"{self._folder}: no checkpoint can be read ({next(iter(damage.values()))}); if "
                "the disk is well, remove this folder: the cell then starts afresh, to the same end"
            )
        return None

    def latest(self) -> dict[str, Any] | None:
        """The latest whole checkpoint as nested dicts on one device of this process, or None.

        It may have been written by any number of devices.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        # Only a manager that knows the kind of what it reads can tell the shapes of it.
        kind = ocp.StandardCheckpointHandler()
        with ocp.CheckpointManager(self._manager.directory, item_handlers=kind) as reader:
            like = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
                dict(reader.item_metadata(step)),
            )
            return reader.restore(step, args=ocp.args.StandardRestore(like))

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`; it is copied first, so its buffers may be donated."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _for_orbax(folder: Path) -> epath.Path:
    """The same place in the words of Orbax, which writes to the buckets that TensorStore knows.

    Raises:
      RecordError: it cannot write there.
    """
    if not is_bucket(folder):
        return epath.Path(folder.absolute())
    if str(folder).startswith(("gs://", "s3://")):
        return epath.Path(str(folder))
    scheme = str(folder).partition("://")[0]
    raise RecordError(f"checkpoints go to a folder, gs:// or s3://, not to {scheme}://")
