"""Opens records wherever they are: in a folder, a bucket or a snapshot."""

from __future__ import annotations

import os

from analysis.errors import AnalysisError
from analysis.records.record import MANIFEST, RecordRoot
from analysis.records.snapshot import Snapshot
from analysis.records.storage import content, place


def open_records(root: str | os.PathLike[str]) -> RecordRoot | Snapshot:
    """The records in a folder, a bucket or a snapshot.

    Raises:
      AnalysisError: `root` holds neither, or a snapshot was changed.
    """
    folder = place(root)
    if manifest := content(folder / MANIFEST):
        return Snapshot(folder, manifest)
    if not folder.is_dir():
        what = "bucket" if "://" in str(root) else "folder"
        raise AnalysisError(f"no {what} {root}; give the one that the study was run with")
    return RecordRoot(folder)


def open_snapshot(where: str) -> Snapshot:
    """The snapshot in a folder or bucket.

    Raises:
      AnalysisError: it holds none, or the snapshot was changed.
    """
    found = open_records(where)
    if not isinstance(found, Snapshot):
        raise AnalysisError(f"{where} is not a snapshot: it has no {MANIFEST}")
    return found
