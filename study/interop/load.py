"""Loads the parameters of a checkpoint file of any kind, or one of its towers (`file:img`)."""

from __future__ import annotations

from pathlib import Path

from study.data.formats.dataset import DataError
from study.interop import big_vision
from study.interop.big_vision import Tree

PARTS = ("img", "txt")


def load_params(spec: str | Path) -> Tree:
    """The parameters in "file.npz" (big_vision) or "file.safetensors" (Hugging Face).

    "file.npz:img" gives the image tower alone, "file.npz:txt" the text tower.

    Raises:
      DataError: no such file or part, or a file that is not a checkpoint.
    """
    path, part = split_spec(spec)
    if not path.is_file():
        raise DataError(f"no checkpoint at {path}; give a .npz or .safetensors file")
    match path.suffix:
        case ".npz":
            tree = big_vision.read(path)
        case ".safetensors":
            from study.interop import hugging_face  # only this kind needs safetensors

            tree = hugging_face.read(path)
        case _:
            raise DataError(f"{path} is not a checkpoint; give a .npz or .safetensors file")
    if part is None:
        return tree
    if part not in tree:
        raise DataError(f"{path} has no part {part}; it has: {', '.join(tree)}")
    return {part: tree[part]}


def split_spec(spec: str | Path) -> tuple[Path, str | None]:
    """The path, and the part ("img" or "txt") or None for all of it."""
    path, _, part = str(spec).rpartition(":")
    return (Path(path), part) if part in PARTS and path else (Path(spec), None)
