"""Where records are read from: a folder, or a bucket behind the same words.

A folder is a `pathlib.Path`. For `gs://...` it is a UPath, which has the same methods; that and
fsspec are imported for a bucket only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from analysis.errors import AnalysisError

SCHEMES = {"gs"}  # of buckets that records are kept in
AT_ONCE = 16  # requests to a bucket

Given = TypeVar("Given")
Got = TypeVar("Got")


def place(root: str | os.PathLike[str]) -> Path:
    """The folder or bucket that `root` names.

    Raises:
      AnalysisError: the scheme is not served, or gcsfs is not installed.
    """
    if is_bucket(root):
        return cast(Path, root)
    text = os.fspath(root).removeprefix("file://")
    if "://" not in text:
        return Path(text)
    if text.partition("://")[0] not in SCHEMES:
        raise AnalysisError(f"{text}: records are kept in a folder or in gs://BUCKET/FOLDER")
    try:
        from upath import UPath

        path = UPath(text, use_listings_cache=False)
        _ = path.fs  # imports the package that serves the scheme
    except ImportError:
        raise AnalysisError(
            "a gs:// bucket needs gcsfs: pip install 'batch-size-study[gcs]'"
        ) from None
    return cast(Path, path)


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, as `place` gives it, is in a bucket."""
    return not isinstance(path, (str, Path))


def children(folder: Path) -> list[Path]:
    """What is in `folder`, by name; nothing where it does not exist.

    Raises:
      AnalysisError: the bucket does not answer, or does not let us in.
    """
    try:
        if not is_bucket(folder):
            return sorted(folder.iterdir(), key=lambda path: path.name)
        system, prefix = _system(folder)
        listed = system.ls(prefix, detail=False)  # `iterdir` asks for the prefix itself first
        names = {name.removeprefix(prefix).strip("/") for name in listed}
        return [folder / name for name in sorted(names) if name]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # every service has kinds of its own
        raise _unreadable(folder, error) from None


def content(path: Path) -> bytes:
    """What the file holds; b"" where there is none.

    Raises:
      AnalysisError: it cannot be read.
    """
    try:
        if not is_bucket(path):
            return path.read_bytes()
        system, name = _system(path)
        return bytes(system.cat_file(name))  # one request; `read_bytes` asks for its size first
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""
    except Exception as error:
        raise _unreadable(path, error) from None


def each(where: Path, work: Callable[[Given], Got], given: Iterable[Given]) -> list[Got]:
    """`work` on each of `given`, in order; of a bucket many at once, as each waits for answers."""
    if not is_bucket(where):
        return [work(one) for one in given]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, given))


def _system(path: Any) -> tuple[Any, str]:
    return path.fs, path.path.rstrip("/")


def _unreadable(path: Path, error: Exception) -> AnalysisError:
    said: Any = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
    return AnalysisError(f"cannot read {path} ({type(error).__name__}: {said})")
