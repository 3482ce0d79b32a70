"""Where records are kept: a folder, or a bucket behind the same words.

    place("runs") / "demo"             # a pathlib.Path
    place("gs://lab/runs") / "demo"    # a UPath: the same methods over fsspec, any of its schemes

A bucket has no append, no rename and no locks; an object is there whole or not at all. What it
does have is creation only if absent (`created`), which Google's and Amazon's do atomically.
`etils.epath` knows four schemes only and cannot create that way, hence UPath. Listings are never
cached: other machines write here too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, cast

# What pip installs for a scheme that fsspec does not serve by itself.
EXTRAS = {"gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}


class RecordError(RuntimeError):
    """A record that cannot be written or trusted; the message says how to mend it."""


def place(root: str | os.PathLike[str]) -> Path:
    """The folder or bucket that `root` names; what is in a bucket already stays as it is.

    Returns: a `pathlib.Path`, or for `scheme://...` a UPath, which has the same methods.

    Raises:
      RecordError: nothing here serves that scheme.
    """
    if is_bucket(root):
        return cast(Path, root)
    text = os.fspath(root)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" not in text:
        return Path(text)
    from upath import UPath

    scheme = text.partition("://")[0]
    try:
        found = UPath(text, use_listings_cache=False)
        _ = found.fs  # loads what serves the scheme
    except ImportError:
        package, extra = EXTRAS.get(scheme, (f"an fsspec package for {scheme}", ""))
        more = f": pip install 'batch-size-study[{extra}]'" if extra else ""
        raise RecordError(f"a {scheme}:// bucket needs {package}{more}") from None
    except ValueError:
        raise RecordError(
            f"no place for records is called {scheme}://; give a folder, gs://BUCKET/FOLDER "
            "or s3://BUCKET/FOLDER"
        ) from None
    return cast(Path, found)


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, as `place` gives it, is in a bucket."""
    return not isinstance(path, (str, Path))


def reached(root: Path) -> Path:
    """`root`, once it is known that its bucket answers; a folder is not looked at.

    Raises:
      RecordError: the bucket does not exist, or does not let us in.
    """
    if is_bucket(root):
        system, bucket = _system(root)
        try:
            system.info(bucket.strip("/").partition("/")[0])
        except Exception as error:  # every service has kinds of its own
            said = " ".join(str(error).split())[:120]
            raise RecordError(
                f"cannot reach {root} ({type(error).__name__}: {said}); check its name, and that "
                "this machine may use it"
            ) from None
    return root


def made(folder: Path) -> None:
    """Makes a folder and those above it; a bucket has none, and is never made."""
    if not is_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)


def removed(folder: Path) -> None:
    """Removes a folder and the files in it, or the objects under a prefix, as far as it can be."""
    if not is_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in children(folder):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def created(path: Path, content: bytes) -> bool:
    """Makes the object `path` of a bucket unless it is there; of several callers one succeeds."""
    system, name = _system(path)
    try:
        system.pipe_file(name, content, mode="create")
    except FileExistsError:
        return False
    return True


def replaced(path: Path, content: bytes) -> None:
    """Makes the object `path` of a bucket anew, whole or not at all."""
    system, name = _system(path)
    system.pipe_file(name, content)


def modified(path: Path) -> float:
    """When the object `path` was last written, in seconds by the clock of the bucket."""
    system, name = _system(path)
    return float(system.modified(name).timestamp())


def children(folder: Path) -> list[Path]:
    """What is in `folder`, by name; nothing where it does not exist."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _system(path: Any) -> tuple[Any, str]:
    return path.fs, path.path
