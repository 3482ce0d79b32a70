"""PyTorch's state dicts as arrays: reads their files, and renames their layers as ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from study.config.model import VARIANTS
from study.data.formats.dataset import DataError
from study.interop.big_vision import Tree

State = dict[str, np.ndarray]

INDEX = ".safetensors.index.json"
PICKLED = (".pt", ".bin")  # written by `torch.save`
_SAFE_TORCH = (2, 6)  # before, `weights_only` could be made to run code (CVE-2025-32434)
QKV = ("query", "key", "value")


def load_state(path: Path) -> State:
    """The arrays of a file, in float32: safetensors, the index of its shards, or `torch.save`'s.

    A file of `torch.save` is a pickle. It is read by `torch.load` with `weights_only`, which makes
    tensors and plain containers and calls nothing else.

    Raises:
      DataError: it cannot be read, a shard is missing, or it needs PyTorch.
    """
    if path.suffix in PICKLED:
        return _unpickle(path)
    state: State = {}
    for file in list_files(path)[path.name.endswith(INDEX) :]:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(f"{file} is not a readable .safetensors file ({error})") from None
    return {name: a.astype(np.float32) for name, a in state.items()}


def list_files(path: Path) -> list[Path]:
    """The file, followed by its shards if it is the index of a sharded checkpoint.

    Raises:
      DataError: the index cannot be read, or a shard is missing.
    """
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        shards = [path.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a readable index of shards ({error})") from None
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise DataError(
            f"{path} lists {len(shards)} shards, and {len(missing)} of them are missing: "
            f"{', '.join(missing[:3])}; put them beside it"
        )
    return [path, *shards]


def hash_files(path: Path) -> str:
    """SHA-256 of a checkpoint, in hex: of its file, or of its index and shards in their order."""
    digest = hashlib.sha256()
    for file in list_files(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _unpickle(path: Path) -> State:
    try:
        import torch
    except ImportError:
        raise DataError(
            f"{path} is read with PyTorch; install torch, or save the state dict as .safetensors"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_TORCH:
        raise DataError(
            f"{path} is a pickle, which torch {torch.__version__} does not read safely; install "
            f"torch {'.'.join(map(str, _SAFE_TORCH))} or newer"
        )
    try:
        tree: Any = torch.load(path, map_location="cpu", weights_only=True)
        tree = tree.get("state_dict", tree)  # a training checkpoint holds the optimizer too
        return {
            name.removeprefix("module."): tensor.float().numpy() for name, tensor in tree.items()
        }
    except Exception as error:  # a damaged or a hostile file raises many types
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not a readable state dict ({reason})") from None


class TorchState:
    """The arrays of a state dict that have not been used yet."""

    def __init__(self, state: State):
        self.state = dict(state)

    def any(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.state)

    def pop(self, name: str) -> np.ndarray:
        return self.state.pop(name)

    def linear(self, name: str) -> Tree:
        return {"kernel": self.pop(f"{name}.weight").T, "bias": self.pop(f"{name}.bias")}

    def norm(self, name: str) -> Tree:
        return {"scale": self.pop(f"{name}.weight"), "bias": self.pop(f"{name}.bias")}

    def conv(self, name: str) -> Tree:
        kernel_WxCxpxp = self.pop(f"{name}.weight")
        return {"kernel": kernel_WxCxpxp.transpose(2, 3, 1, 0), "bias": self.pop(f"{name}.bias")}

    def mlp(self, first: str, second: str) -> Tree:
        # Our Dense_0 is the second layer, see `study.interop.big_vision`.
        return {"Dense_0": self.linear(second), "Dense_1": self.linear(first)}

    def split(self, weight: str, bias: str, parts: int) -> list[Tree]:
        """The layers that PyTorch keeps as one, such as query, key and value."""
        kernels, biases = np.split(self.pop(weight), parts), np.split(self.pop(bias), parts)
        return [{"kernel": k.T, "bias": b} for k, b in zip(kernels, biases, strict=True)]

    def scalars(self) -> Tree:
        """t and b, of whatever shape."""
        names = {"t": "logit_scale", "b": "logit_bias"}
        return {k: self.pop(v).reshape(1) for k, v in names.items() if v in self.state}


def attention(qkv: list[Tree], out: Tree, heads: int) -> Tree:
    """Splits width W into heads x W/heads on the side of the attention."""
    width = len(out["bias"])
    tree: Tree = {
        name: {
            "kernel": linear["kernel"].reshape(width, heads, -1),
            "bias": linear["bias"].reshape(heads, -1),
        }
        for name, linear in zip(QKV, qkv, strict=True)
    }
    kernel_HxKxW = out["kernel"].reshape(heads, -1, width)
    return tree | {"out": {"kernel": kernel_HxKxW, "bias": out["bias"]}}


def count_heads(mlp: Tree) -> int:
    """The heads of the variant with this width and MLP; a state dict does not hold them.

    Raises:
      ValueError: there is no such variant.
    """
    hidden, width = mlp["Dense_0"]["kernel"].shape
    for size in VARIANTS.values():
        if (size.width, size.mlp) == (width, hidden):
            return size.heads
    raise ValueError(f"no variant has width {width} and an MLP of {hidden}")
