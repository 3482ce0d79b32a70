"""Checks what a study needs of this machine: disks, JAX, Ray, wandb, leases, data sets."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.config.host import cores, total_memory
from study.data import local_cache
from study.data.errors import DataError
from study.data.files import errors
from study.records.mounts import refuse_mounted_bucket
from study.records.storage import RecordError, check_reachable, is_bucket, read, write_new
from study.records.wandb_mirror import has_key, wandb_mode, why_offline
from sweeps.ray_cluster import compile_cache
from sweeps.ray_cluster.env import environment
from sweeps.runner.lease import Heartbeats
from sweeps.runner.store import LEASE, open_store

MIB, GIB = 2**20, 2**30
JAX_SECONDS = 120  # timeout for importing JAX and finding its devices


@dataclass(frozen=True)
class Check:
    """One line of `study doctor`; the text of a warning or failure says how to fix it."""

    verdict: Literal["ok", "warn", "fail"]
    name: str
    text: str


def check_machine(root: Path, data: Path) -> Iterator[Check]:
    """Checks this machine for records under `root` and data sets under `data`, both absolute."""
    yield _machine()
    yield _bucket(root) if is_bucket(root) else _records(root)
    yield _disk("disk of data", local_cache.folder() if is_bucket(data) else data)
    yield _disk("temporary disk", Path(tempfile.gettempdir()))
    if not os.access(Path.home(), os.W_OK):  # Ray keeps its token there
        yield Check("fail", "home", f"{Path.home()} cannot be written; set HOME to another folder")
    if problem := compile_cache.find_problem(compile_cache.folder()):
        yield Check("warn", "compile cache", problem)
    if address := os.environ.get("RAY_ADDRESS"):
        text = f"RAY_ADDRESS={address}: study run joins it; --address local starts a cluster"
        yield Check("ok", "ray", text)
    yield _jax()
    yield _wandb()
    if not is_bucket(root):
        yield _leases(root)
    yield from _data_sets(data)


def _machine() -> Check:
    memory = total_memory()
    text = (
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{cores()} cores, {memory / GIB:.0f} GiB of memory"
    )
    if memory < 4 * GIB:
        return Check("warn", "machine", f"{text}; use --workers 1: it is too little for two cells")
    return Check("ok", "machine", text)


def _disk(name: str, folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{folder}: {free / GIB:.1f} GiB free"
    if not os.access(existing, os.W_OK):
        return Check("fail", name, f"{existing} is read-only; choose another folder")
    if free < 200 * MIB:
        return Check("fail", name, f"{text}; free some space or choose another folder")
    if free < 2 * GIB:
        return Check("warn", name, f"{text}; a full study may need more")
    return Check("ok", name, text)


def _records(root: Path) -> Check:
    try:
        refuse_mounted_bucket(root)
    except RecordError as error:
        return Check("fail", "disk of records", str(error))
    return _disk("disk of records", root)


def _bucket(root: Path) -> Check:
    """Checks that objects can be listed, created only if absent, and deleted."""
    try:
        probe = check_reachable(root) / f".doctor-{uuid.uuid4().hex[:8]}"
        first, second = write_new(probe, b"?"), write_new(probe, b"?")
        probe.unlink()
    except Exception as error:  # each storage service raises its own classes
        reason = str(error) if isinstance(error, RecordError) else type(error).__name__
        text = f"{reason}; list, create and delete permissions are needed"
        return Check("fail", "bucket of records", text)
    if (first, second) != (True, False):
        return Check("fail", "bucket of records", f"{root} overwrites on create-if-absent")
    return Check("ok", "bucket of records", f"{root}: can list, create and delete objects")


def _jax() -> Check:
    """Finds JAX's devices in a subprocess, because a broken driver may hang or crash."""
    script = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind)"
    fix = "set JAX_PLATFORMS=cpu to run without an accelerator"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=JAX_SECONDS,
            env={**os.environ, **environment()},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("fail", "jax", f"found no device within {JAX_SECONDS} s; {fix}")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("fail", "jax", f"{reason}; {fix}")
    kind, count, name = done.stdout.split(maxsplit=2)
    return Check("ok", "jax", f"{count} {kind} device{'s' * (count != '1')} ({name.strip()})")


def _wandb() -> Check:
    mode = os.environ.get("WANDB_MODE", "")
    if mode and wandb_mode() in ("offline", "disabled"):
        return Check("ok", "wandb", f"WANDB_MODE={mode}; no network is needed")
    if wandb_mode() == "online" and (reason := why_offline()) is not None:
        return Check("warn", "wandb", f"WANDB_MODE={mode}, but {reason}; else unset WANDB_MODE")
    if has_key():
        return Check("ok", "wandb", "API key found; WANDB_MODE=online mirrors runs")
    return Check("ok", "wandb", "no API key: runs are kept in their folders, no network is needed")


def _leases(root: Path) -> Check:
    running, stale = 0, []
    for group in sorted({path.parent.parent for path in root.glob(f"*/*/{LEASE}")}):
        store = open_store(group)
        heartbeats = Heartbeats(store, trust_mtime=True)
        for cell, files in store.list().items():
            if LEASE in files and heartbeats.owner(cell, files[LEASE]) is not None:
                running += 1
            elif LEASE in files:
                stale.append(group / cell)
    if stale:
        return Check(
            "warn",
            "leases",
            f"{running} cells are running; {len(stale)} leases were left by killed runs, such as "
            f"{stale[0]}; the next run takes them over",
        )
    return Check("ok", "leases", f"{running} cells are running under {root}")


def _data_sets(data: Path) -> Iterator[Check]:
    try:
        with errors(data):
            paths = sorted(data.glob("*/dataset.json"), key=str)
    except DataError as error:
        yield Check("fail", "data set", str(error))
        return
    for path in paths:
        try:
            about = json.loads(read(path))
            splits = ", ".join(f"{s['examples']:,} {n}" for n, s in about["splits"].items())
            fingerprint = about["fingerprint"][:12]
        except (OSError, ValueError, KeyError, TypeError, RecordError):
            text = f"{path} cannot be read; delete {path.parent} and write the data set again"
            yield Check("fail", "data set", text)
            continue
        yield Check("ok", "data set", f"{path.parent}: {splits}; fingerprint {fingerprint}")
    if not paths:
        yield Check("ok", "data set", f"none under {data}; study run writes the one it needs")
