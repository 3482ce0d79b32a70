"""Tells a bucket that FUSE shows as a folder from a real file system.

Records need what such a mount does not give: appended rows that survive a kill, leases that other
hosts see while the file is open, creation by one process only, renamed folders.
"""

from __future__ import annotations

import re
from pathlib import Path

from study.records.storage import RecordError, is_bucket

MOUNTS = Path("/proc/self/mountinfo")
# Types of mounts that show a bucket. JuiceFS, CephFS and the like are file systems of their own.
TYPES = {
    f"fuse.{name}"
    for name in (
        "blobfuse", "blobfuse2", "cosfs", "gcsfuse", "geesefs", "goofys", "mount-s3", "obsfs",
        "ossfs", "rclone", "s3fs",
    )
}  # fmt: skip


def mounted_bucket(path: Path, mounts: str) -> str | None:
    """The mount that shows a bucket at `path`, such as "fuse.gcsfuse (lab)"; None if there is none.

    Mounts of the bare type "fuse" name no program. Where their source is no path, it is a bucket
    (GKE's driver for Cloud Storage, goofys) or the program itself (mountpoint-s3, blobfuse2).

    Arguments:
      path: absolute, without links.
      mounts: the text of /proc/self/mountinfo.
    """
    found, longest = None, -1
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), [*after.split(), "", ""]
        if not separator or len(fields) < 5:
            continue
        point = Path(_unescape(fields[4]))
        # Of two mounts at one point the later hides the earlier.
        if len(point.parts) >= longest and path.is_relative_to(point):
            longest = len(point.parts)
            bare = kind == "fuse" and "/" not in source
            found = f"{kind} ({_unescape(source)})" if bare or kind in TYPES else None
    return found


def refuse_mounted_bucket(root: Path) -> None:
    """Checks that records under `root` go to a file system, or to a bucket as such.

    Raises:
      RecordError: `root` is in a folder that shows a bucket.
    """
    if is_bucket(root) or not MOUNTS.exists():
        return
    if mount := mounted_bucket(root.resolve(), MOUNTS.read_text()):
        raise RecordError(
            f"{root} is a bucket mounted as a folder, {mount}, which loses rows and hides leases; "
            "give the bucket itself (--root gs://BUCKET/FOLDER) or a real file system"
        )


def _unescape(text: str) -> str:
    """A field of mountinfo, where spaces and the like stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
