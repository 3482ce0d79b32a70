"""Detects a bucket that is mounted as a folder (gcsfuse and the like).

Such a mount lacks what records need: appended rows that survive a kill, leases that other hosts see
while the file is open, creation by one process only, renamed folders.
"""

from __future__ import annotations

import re
from pathlib import Path

from study.records.storage import RecordError, is_bucket

MOUNTS = Path("/proc/self/mountinfo")
# Types of mounts that show a bucket. JuiceFS, CephFS and the like are real file systems.
TYPES = {
    f"fuse.{name}"
    for name in (
        "blobfuse", "blobfuse2", "cosfs", "gcsfuse", "geesefs", "goofys", "mount-s3", "obsfs",
        "ossfs", "rclone", "s3fs",
    )
}  # fmt: skip


def mounted_bucket(path: Path, mounts: str) -> str | None:
    """The mount that shows a bucket at `path`, such as "fuse.gcsfuse (lab)"; None if there is none.

    A mount of the bare type "fuse" does not name its program. If its source is not a path, it is a
    bucket (GKE's driver for Cloud Storage, goofys) or the program (mountpoint-s3, blobfuse2).

    Args:
      path: Absolute, without symbolic links.
      mounts: The text of /proc/self/mountinfo.
    """
    mount, longest = None, -1
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), [*after.split(), "", ""]
        if not separator or len(fields) < 5:
            continue
        point = Path(_unescape(fields[4]))
        # Of two mounts at one point, the later hides the earlier.
        if len(point.parts) >= longest and path.is_relative_to(point):
            longest = len(point.parts)
            bare = kind == "fuse" and "/" not in source
            mount = f"{kind} ({_unescape(source)})" if bare or kind in TYPES else None
    return mount


def refuse_mounted_bucket(root: Path) -> None:
    """Refuses a `root` inside a bucket that is mounted as a folder.

    Raises:
      RecordError: The message names the mount.
    """
    if is_bucket(root) or not MOUNTS.exists():
        return
    if mount := mounted_bucket(root.resolve(), MOUNTS.read_text()):
        raise RecordError(
            f"{root} is a bucket mounted as a folder, {mount}, which loses rows and hides leases; "
            "give the bucket itself (--root gs://BUCKET/FOLDER) or a real file system"
        )


def _unescape(text: str) -> str:
    """A field of mountinfo, in which spaces and some other characters are octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
