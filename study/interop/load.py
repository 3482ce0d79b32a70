"""Loads the parameters of a checkpoint file of any kind, or one of its towers (`file:img`)."""

from __future__ import annotations

from pathlib import Path

from study.config.model import CHECKPOINTS
from study.data.formats.dataset import DataError
from study.interop import big_vision, hugging_face, open_clip
from study.interop.big_vision import Tree
from study.interop.torch_state import TorchState, load_state

PARTS = ("img", "txt")


def load_params(spec: str | Path) -> Tree:
    """The parameters in a checkpoint: the kind of file is known by its name and its parameters'.

    "file.npz" is big_vision's. Hugging Face's and OpenCLIP's SigLIP are "file.safetensors", the
    "file.safetensors.index.json" of a sharded one, or a state dict "file.pt" or "file.bin".
    "FILE:img" gives the image tower alone, "FILE:txt" the text tower.

    Raises:
      DataError: no such file or part, or a file that is not a checkpoint.
    """
    path, part = split_spec(spec)
    if not path.is_file():
        raise DataError(f"no checkpoint at {path}; give a file: {', '.join(CHECKPOINTS)}")
    if not path.name.endswith(CHECKPOINTS):
        raise DataError(f"{path} is not a checkpoint; give a file: {', '.join(CHECKPOINTS)}")
    tree = big_vision.read(path) if path.suffix == ".npz" else _read_torch(path)
    if part is None:
        return tree
    if part not in tree:
        raise DataError(f"{path} has no part {part}; it has: {', '.join(tree)}")
    return {part: tree[part]}


def _read_torch(path: Path) -> Tree:
    left = TorchState(load_state(path))
    if open_clip.is_open_clip(left.state):
        name, convert = "an OpenCLIP SigLIP", open_clip.convert
    else:
        name, convert = "a Hugging Face SigLIP", hugging_face.convert
    try:
        tree = convert(left)
    except KeyError as error:
        raise DataError(f"{path} is not {name}: it lacks {error}") from None
    except ValueError as error:
        raise DataError(f"{path} is not {name}: {error}") from None
    if not tree or left.state:
        unknown = next(iter(left.state), None)
        reason = f"it has an unknown parameter {unknown!r}" if left.state else "it is empty"
        raise DataError(f"{path} is not {name}: {reason}")
    return tree


def split_spec(spec: str | Path) -> tuple[Path, str | None]:
    """The path, and the part ("img" or "txt") or None for all of it."""
    path, _, part = str(spec).rpartition(":")
    return (Path(path), part) if part in PARTS and path else (Path(spec), None)
