"""Versions of the code and the libraries that make a record."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain", "orbax-checkpoint")


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a number."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}


@functools.cache
def code_version() -> str:
    """This package's version, with the commit if it runs from its own checkout.

    "0.1.0+1a2b3c4", "0.1.0+1a2b3c4-dirty", or "0.1.0 (not a checkout)".
    """
    return describe_version(Path(__file__).resolve().parents[1])


def describe_version(package: Path) -> str:
    """`code_version` of the package in this folder.

    An installed copy may be in a virtual environment inside another repository, whose commit does
    not describe this code. So the package must be tracked, at the top of the repository.
    """
    version = importlib.metadata.version("batch-size-study")
    try:
        top = git(package, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != package.parent:
            return f"{version} (not a checkout)"
        git(package, "ls-files", "--error-unmatch", "records/provenance.py")
        return f"{version}+{git(package, 'describe', '--always', '--dirty')}"
    except (OSError, subprocess.SubprocessError):
        return f"{version} (not a checkout)"


def git(folder: Path, *args: str) -> str:
    """What a git command prints in this folder.

    Raises:
      OSError, subprocess.SubprocessError: git is missing or fails.
    """
    # Inside a git hook, GIT_DIR would name the hook's repository, whatever the folder.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        ["git", *args],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout.strip()
