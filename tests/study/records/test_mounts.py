"""A bucket that is mounted as a folder is told from a file system, and refused for records."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from study.records.mounts import mounted_bucket, refuse_mounted_bucket
from study.records.record import Progress, Record
from study.records.storage import RecordError

# Lines as kernels print them for these programs.
ROOT = "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"
LINES = {
    "gcsfuse": (
        "44 27 0:43 / /mnt/lab rw,nosuid,nodev,relatime shared:49 - fuse.gcsfuse lab-data "
        "rw,user_id=2001,group_id=2001,default_permissions,allow_other",
        "fuse.gcsfuse (lab-data)",
    ),
    "GKE's driver": (
        "1187 1170 0:313 / /mnt/lab rw,nosuid,nodev,noexec,relatime - fuse lab-data "
        "rw,user_id=0,group_id=0,default_permissions,allow_other",
        "fuse (lab-data)",
    ),
    "s3fs": (
        "45 27 0:44 / /mnt/lab rw,nosuid,nodev,relatime - fuse.s3fs s3fs rw,user_id=0,group_id=0",
        "fuse.s3fs (s3fs)",
    ),
    "rclone": (
        "46 27 0:45 / /mnt/lab rw,nosuid,nodev,relatime - fuse.rclone remote:lab rw,user_id=0",
        "fuse.rclone (remote:lab)",
    ),
    "mountpoint-s3": (
        "47 27 0:46 / /mnt/lab rw,nosuid,nodev,noatime - fuse mountpoint-s3 rw,user_id=0",
        "fuse (mountpoint-s3)",
    ),
    "blobfuse2": (
        "48 27 0:47 / /mnt/lab rw,nosuid,nodev,relatime - fuse blobfuse2 rw,user_id=0",
        "fuse (blobfuse2)",
    ),
    "JuiceFS": ("49 27 0:48 / /mnt/lab rw,relatime - fuse.juicefs JuiceFS:lab rw,user_id=0", None),
    "sshfs": ("50 27 0:49 / /mnt/lab rw,nosuid - fuse.sshfs me@host:/lab rw,user_id=0", None),
    "bindfs": ("51 27 0:50 / /mnt/lab rw,relatime - fuse /srv/lab rw,user_id=0", None),
    "NFS": ("52 27 0:51 / /mnt/lab rw,relatime shared:9 - nfs4 filer:/lab rw,vers=4.2", None),
}


@pytest.mark.parametrize("line, mount", LINES.values(), ids=LINES)
def test_mounts_of_buckets_are_told_from_file_systems(line, mount):
    mounts = f"{ROOT}\n{line}\n"
    assert mounted_bucket(Path("/mnt/lab"), mounts) == mount
    assert mounted_bucket(Path("/mnt/lab/runs/s"), mounts) == mount
    assert mounted_bucket(Path("/mnt/laboratory"), mounts) is None


def test_the_innermost_mount_counts_and_the_last_at_one_point():
    bucket = LINES["gcsfuse"][0]
    inside = "60 44 8:2 / /mnt/lab/disk rw - ext4 /dev/sdb1 rw"
    over = "61 44 8:2 / /mnt/lab rw - ext4 /dev/sdb1 rw"
    spaced = bucket.replace("/mnt/lab", r"/mnt/my\040lab")
    assert mounted_bucket(Path("/mnt/lab/disk/runs"), f"{ROOT}\n{bucket}\n{inside}") is None
    assert mounted_bucket(Path("/mnt/lab/other"), f"{ROOT}\n{bucket}\n{inside}") is not None
    assert mounted_bucket(Path("/mnt/lab"), f"{ROOT}\n{bucket}\n{over}") is None
    assert mounted_bucket(Path("/mnt/my lab/runs"), f"{ROOT}\n{spaced}") is not None
    assert mounted_bucket(Path("/mnt/lab"), "garbage\n- -\n") is None


@pytest.fixture
def mounted(tmp_path):
    """`mounted(option)`: a folder that a FUSE daemon serves here."""
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("needs bindfs and /dev/fuse")
    folders = []

    def mount(*options: str) -> Path:
        folder = tmp_path / f"mount-{len(folders)}"
        source = tmp_path / "source"
        for made in (folder, source):
            made.mkdir(exist_ok=True)
        done = subprocess.run(["bindfs", *options, source, folder], check=False)
        if done.returncode:
            pytest.skip("this process may not mount")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["fusermount", "-u", folder], check=True)


def test_a_real_mount_is_refused_only_where_it_shows_a_bucket(mounted):
    refuse_mounted_bucket(mounted() / "runs")
    folder = mounted("-o", "subtype=gcsfuse")
    with pytest.raises(RecordError, match=r"is a bucket mounted as a folder, fuse\.gcsfuse .*gs:"):
        refuse_mounted_bucket(folder / "runs")


def test_no_record_is_begun_on_a_mounted_bucket(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"{ROOT}\n{LINES['gcsfuse'][0].replace('/mnt/lab', str(tmp_path))}\n")
    monkeypatch.setattr("study.records.mounts.MOUNTS", mounts)
    with pytest.raises(RecordError, match="is a bucket mounted as a folder"):
        Record(tmp_path / "runs/s/x").begin({"hash": "a"}, seen=Progress(0, 0, 0))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "link").symlink_to("/")
    refuse_mounted_bucket(tmp_path / "link" / "nowhere")
