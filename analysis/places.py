"""Where records are read from: a folder, or a bucket behind the same words.

A folder is a `pathlib.Path`. For `gs://...` and what else fsspec serves it is a UPath, which has
the same methods; that and fsspec are imported for a bucket only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from analysis.errors import AnalysisError

EXTRAS = {"gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
AT_ONCE = 16  # requests to a bucket

Given = TypeVar("Given")
Got = TypeVar("Got")


def place(root: str | os.PathLike[str]) -> Path:
    """The folder or bucket that `root` names.

    Raises:
      AnalysisError: nothing here serves that scheme.
    """
    if is_bucket(root):
        return cast(Path, root)
    text = os.fspath(root).removeprefix("file://")
    if "://" not in text:
        return Path(text)
    scheme = text.partition("://")[0]
    try:
        from upath import UPath

        found = UPath(text, use_listings_cache=False)
        _ = found.fs  # loads what serves the scheme
    except ImportError:
        package, extra = EXTRAS.get(scheme, (f"an fsspec package for {scheme}", ""))
        more = f": pip install 'batch-size-study[{extra}]'" if extra else ""
        raise AnalysisError(f"a {scheme}:// bucket needs {package}{more}") from None
    except ValueError:
        raise AnalysisError(
            f"no place for records is called {scheme}://; give a folder, gs://BUCKET/FOLDER "
            "or s3://BUCKET/FOLDER"
        ) from None
    return cast(Path, found)


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, as `place` gives it, is in a bucket."""
    return not isinstance(path, (str, Path))


def children(folder: Path) -> list[Path]:
    """What is in `folder`, by name; nothing where it does not exist.

    Raises:
      AnalysisError: the bucket does not answer, or does not let us in.
    """
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
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
        return path.read_bytes()
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


def _unreadable(path: Path, error: Exception) -> AnalysisError:
    said: Any = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
    return AnalysisError(f"cannot read {path} ({type(error).__name__}: {said})")
