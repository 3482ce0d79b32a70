"""A checkpoint file by its kind, and the `file:img` way to name a part of it."""

from __future__ import annotations

from pathlib import Path

from study.data.formats.dataset import DataError
from study.interop import big_vision
from study.interop.names import Tree

PARTS = ("img", "txt")


def load_params(spec: str | Path) -> Tree:
    """The parameters in "file.npz" (big_vision) or "file.safetensors" (Hugging Face).

    "file.npz:img" gives the image tower alone, "file.npz:txt" the text tower.

    Raises:
      DataError: no such file or part, or not a checkpoint that can be read, in one line.
    """
    path, part = split_spec(spec)
    if not path.is_file():
        raise DataError(f"no checkpoint at {path}; give a .npz or .safetensors file")
    match path.suffix:
        case ".npz":
            tree = big_vision.read(path)
        case ".safetensors":
            from study.interop import hugging_face  # safetensors, which no other file needs

            tree = hugging_face.read(path)
        case _:
            raise DataError(f"{path} is no checkpoint: a .npz or .safetensors file is")
    if part is None:
        return tree
    if part not in tree:
        raise DataError(f"{path} has no part {part}; it has: {', '.join(tree)}")
    return {part: tree[part]}


def split_spec(spec: str | Path) -> tuple[Path, str | None]:
    """The path and the part, which may be none."""
    path, _, part = str(spec).rpartition(":")
    return (Path(path), part) if part in PARTS and path else (Path(spec), None)
