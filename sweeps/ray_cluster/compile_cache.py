"""The folder or bucket of compiled programs, which cells of all sweeps share.

JAX writes an entry of a folder in place. A kill or a full disk leaves a torn entry, which JAX never
replaces, so every later cell would compile that program again. In gs:// an entry is whole or
missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

from study.records.storage import RecordError, check_reachable, is_bucket, resolve

CHECKED = ".checked"  # touched after each check: older entries were whole then
LEAST = 20 * 2**20  # bytes; a program takes some hundred thousand


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where compiled programs are kept: a folder, or a bucket as `resolve` returns it.

    Raises:
      RecordError: JAX_COMPILATION_CACHE_DIR names a bucket that is not gs://, or gcsfs is missing.
    """
    chosen = environ.get("JAX_COMPILATION_CACHE_DIR")
    if not chosen:
        return Path.home() / ".cache" / "batch-size-study" / "jax"
    try:
        return resolve(chosen)
    except RecordError as error:
        raise RecordError(f"JAX_COMPILATION_CACHE_DIR: {error}") from None


def remove_corrupt(folder: Path) -> None:
    """Removes torn entries. One that is being written now is lost, and compiled again."""
    if is_bucket(folder):
        return
    stamp = folder / CHECKED
    with contextlib.suppress(OSError):  # it only saves time
        since = stamp.stat().st_mtime if stamp.exists() else 0.0
        folder.mkdir(parents=True, exist_ok=True)
        entries = list(folder.glob("*-cache"))
        stamp.touch()
        for entry in entries:
            if entry.stat().st_mtime >= since - 1 and _torn(entry.read_bytes()):
                entry.unlink(missing_ok=True)


def find_problem(folder: Path) -> str | None:
    """Why programs cannot be kept in `folder`, in one line with a remedy; None if they can."""
    if is_bucket(folder):
        try:
            check_reachable(folder)
        except RecordError as error:
            return f"{error}; every cell compiles its programs again"
        return None
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    problem = None
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        problem = "cannot be written"
    elif (free := shutil.disk_usage(existing).free) < LEAST:
        problem = f"has {free / 2**20:.0f} MiB left"
    if problem is None:
        return None
    return (
        f"{folder} {problem}, so every cell compiles its programs again; make room, or set "
        "JAX_COMPILATION_CACHE_DIR to another folder"
    )


def _torn(content: bytes) -> bool:
    """Whether a zlib stream lacks its end; of other content only emptiness is detected."""
    if not content.startswith(b"\x78"):
        return not content
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return True
    return not stream.eof
