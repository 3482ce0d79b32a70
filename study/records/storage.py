"""Reads and writes records in a folder or a bucket, by the same functions.

    resolve("runs") / "demo"             # a pathlib.Path
    resolve("gs://lab/runs") / "demo"    # a UPath: the same methods over fsspec

A bucket has no append, no rename and no locks, and an object exists whole or not at all. It does
have creation only if absent (`write_new`), which is atomic in Google Cloud Storage; `etils.epath`
does not offer it, hence UPath. Listings are never cached, because other machines write to the same
bucket. gcsfs repeats a request six times within about a minute after 408, 429, 500 to 504 or a
broken connection, so an error that it raises is not a transient one.

Only Google's buckets are supported. Orbax writes checkpoints to folders and to gs:// only, so a
cell with records elsewhere would train and then fail at its first checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from study.errors import UserError

SCHEMES = {"gs"}  # of buckets that records and checkpoints can be kept in
# Raised for a path that is missing or of another kind, in a bucket as in a folder.
_ORDINARY = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


class RecordError(UserError, RuntimeError):
    """A record that cannot be read, written or trusted; the message says how to fix it."""


def resolve(root: str | os.PathLike[str]) -> Path:
    """The folder or bucket that `root` names; a path in a bucket is returned unchanged.

    Returns:
      A `pathlib.Path`, or for `gs://...` a UPath, which has the same methods.

    Raises:
      RecordError: The scheme is not supported, or gcsfs is not installed.
    """
    if is_bucket(root):
        return cast(Path, root)
    text = os.fspath(root).removeprefix("file://")
    if "://" not in text:
        return Path(text)
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES:
        raise RecordError(f"{text}: records are kept in a folder or in gs://BUCKET/FOLDER")
    from upath import UPath

    try:
        path = UPath(text, use_listings_cache=False)
        _ = path.fs  # imports the package that serves the scheme
    except ImportError:
        raise RecordError(
            "a gs:// bucket needs gcsfs: pip install 'batch-size-study[gcs]'"
        ) from None
    return cast(Path, path)


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, as `resolve` returns it, is in a bucket."""
    return not isinstance(path, (str, Path))


def check_reachable(root: Path) -> Path:
    """Returns `root` after a request to its bucket; a folder is returned unchecked.

    Raises:
      RecordError: The bucket does not exist, or access is denied.
    """
    if is_bucket(root):
        system, bucket = _system(root)
        try:
            system.info(bucket.strip("/").partition("/")[0])
        except Exception as error:  # each service raises types of its own
            raise RecordError(
                f"cannot reach {root} ({format_error(error)}); check its name, and that this "
                "machine may use it"
            ) from None
    return root


@contextlib.contextmanager
def bucket_errors(path: Path, action: str) -> Iterator[None]:
    """Turns the errors of a bucket's service into one line; a folder's errors pass unchanged.

    Paths that are missing, or of another kind, raise as they do in a folder.

    Args:
      action: What the block does to `path`: "read" or "write".

    Raises:
      RecordError: The line, which names the action, the path and the error.
    """
    try:
        yield
    except _ORDINARY:
        raise
    except Exception as error:  # each service raises types of its own
        if isinstance(error, RecordError) or not is_bucket(path):
            raise
        raise RecordError(
            f"cannot {action} {path} ({format_error(error)}); check the bucket and run again (what "
            "is recorded is kept)"
        ) from error


def read(path: Path) -> bytes:
    """The content of the file or object `path`.

    Raises:
      FileNotFoundError: It does not exist.
      RecordError: The bucket refuses, or does not respond.
    """
    if not is_bucket(path):
        return path.read_bytes()
    system, name = _system(path)
    with bucket_errors(path, "read"):
        return bytes(system.cat_file(name))  # one request; `read_bytes` first requests the size


def unlink(path: Path) -> None:
    """Removes the file or object `path`, if it exists."""
    if not is_bucket(path):
        path.unlink(missing_ok=True)
        return
    system, name = _system(path)
    with contextlib.suppress(FileNotFoundError), bucket_errors(path, "write"):
        system.rm_file(name)


def mkdir(folder: Path) -> None:
    """Makes a folder and its parents. Does nothing in a bucket, which has no folders."""
    if not is_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)


def rmtree(folder: Path) -> None:
    """Removes a folder and its files as far as possible, or the objects directly under a prefix."""
    if not is_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in listdir(folder):
        unlink(path)


def write_new(path: Path, content: bytes) -> bool:
    """Makes the object `path` of a bucket unless it exists; returns whether this call made it."""
    system, name = _system(path)
    try:
        with bucket_errors(path, "write"):
            system.pipe_file(name, content, mode="create")
    except FileExistsError:
        return False
    return True


def write(path: Path, content: bytes) -> None:
    """Writes or overwrites the object `path` of a bucket, whole or not at all."""
    system, name = _system(path)
    with bucket_errors(path, "write"):
        system.pipe_file(name, content)


def listdir(folder: Path) -> list[Path]:
    """The paths in `folder`, sorted by name; none if it does not exist."""
    try:
        if not is_bucket(folder):
            return sorted(folder.iterdir(), key=lambda path: path.name)
        system, prefix = _system(folder)
        with bucket_errors(folder, "read"):
            listed = system.ls(prefix, detail=False)  # `iterdir` first requests the prefix
        names = {name.removeprefix(prefix).strip("/") for name in listed}
        return [folder / name for name in sorted(names) if name]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _system(path: Any) -> tuple[Any, str]:
    return path.fs, path.path.rstrip("/")


def format_error(error: BaseException, *, max_chars: int = 120) -> str:
    """The type of an error and up to `max_chars` characters of its message, on one line."""
    message = " ".join(str(error).split())[:max_chars]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
