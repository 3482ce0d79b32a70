"""big_vision checkpoints: flat `.npz` files, old and new layouts.

A file holds two towers (`params/img/...`, `params/txt/...`, `params/t`, `params/b`), or one tower
without the prefix `img/` or `txt/`. Blocks are looped (`encoderblock_0`, ...) or scanned.

Our parameters have big_vision's names with three exceptions: `Mlp_0` is its `MlpBlock_0`,
`MapHead_0` its `MAPHead_0`, and the two layers of an MLP are numbered the other way round. Our
blocks are always scanned, stacked over depth as `encoderblock`.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from study.data.formats.dataset import DataError
from study.records.record import atomic_write

Tree = dict[str, Any]

_BIG_VISION = {"Mlp_0": "MlpBlock_0", "MapHead_0": "MAPHead_0"}
_OURS = {theirs: ours for ours, theirs in _BIG_VISION.items()}
_SWAP = {"Dense_0": "Dense_1", "Dense_1": "Dense_0"}
_BLOCK = re.compile(r"encoderblock_(\d+)")
_PREFIXES = ("params/", "opt/target/", "target/")
_NUMBERED = re.compile(r"([A-Z]\w*)_(\d+)")


def read(path: Path) -> Tree:
    """The parameters in a big_vision file, with our names and shapes, in float32.

    The classifier of an image-only file (`head`, `pre_logits`) is left out. In a two-tower file
    the image head is the projection to the embedding, and is kept.

    Raises:
      DataError: not a file of plain arrays, or of an unknown tower.
    """
    try:
        tree = _nested(_arrays(path))
        parts = _parts(path, tree)
        return {
            name: from_big_vision(part) if isinstance(part, dict) else part for name, part in parts
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable big_vision checkpoint: {error}") from None


def write(path: str | Path, params: Tree, *, scan: bool = False) -> None:
    """Writes parameters as a big_vision file, atomically.

    Arguments:
      params: a tree as `study.models` names it, with any of img, txt, t, b.
      scan: leave the blocks stacked, for a big_vision model with `scan=True`.

    Raises:
      DataError: big_vision has no such tower, or the disk is full or read-only.
    """
    path = Path(path)
    if "txt" in params and "Encoder_0" not in params["txt"]:
        raise DataError(f"cannot write {path}: big_vision has no averaging text tower")
    nested = {
        name: to_big_vision(part, scan=scan) if isinstance(part, dict) else part
        for name, part in params.items()
    }
    flat = {f"params/{k}": np.asarray(v) for k, v in flatten_dict(nested, sep="/").items()}
    try:
        with atomic_write(path) as stream:
            np.savez(stream, allow_pickle=False, **flat)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another file") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: _float32(file[name]) for name in file.files}
    except (OSError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file ({error})") from None


def _float32(a: np.ndarray) -> np.ndarray:
    """float32, also of bfloat16, which numpy loads as pairs of raw bytes."""
    if a.dtype.kind == "V" and a.dtype.itemsize == 2:
        a = a.view(jnp.bfloat16)
    return a.astype(np.float32)


def _nested(flat: dict[str, np.ndarray]) -> Tree:
    for prefix in _PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
        if inner:
            return unflatten_dict(inner, sep="/")
    return unflatten_dict(flat, sep="/")


def _parts(path: Path, tree: Tree) -> list[tuple[str, Any]]:
    if "img" in tree or "txt" in tree:
        parts = {name: tree[name] for name in ("img", "txt", "t", "b") if name in tree}
    elif "embedding" in tree and "Transformer" in tree:
        parts = {"img": {k: v for k, v in tree.items() if k not in ("head", "pre_logits")}}
    elif "Embed_0" in tree:
        parts = {"txt": tree}
    else:
        shown = ", ".join(sorted(tree)[:5]) or "nothing"
        raise DataError(f"{path} holds neither an image nor a text tower; it holds {shown}")
    update = {"img": _image, "txt": _text}
    return [(k, update[k](_renumber(v)) if k in update else v.reshape(1)) for k, v in parts.items()]


def _renumber(tree: Any) -> Any:
    """Numbers modules per kind; the oldest files count modules of all kinds together.

    LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2 become LayerNorm_0,
    MultiHeadDotProductAttention_0, LayerNorm_1.
    """
    if not isinstance(tree, dict):
        return tree
    numbers: dict[str, list[int]] = {}
    for numbered in filter(None, map(_NUMBERED.fullmatch, tree)):
        numbers.setdefault(numbered[1], []).append(int(numbered[2]))
    out = {}
    for name, node in tree.items():
        if match := _NUMBERED.fullmatch(name):
            name = f"{match[1]}_{sorted(numbers[match[1]]).index(int(match[2]))}"
        out[name] = _renumber(node)
    return out


def _image(tree: Tree) -> Tree:
    """Old image layouts as the newest: positions at the top, MAP head in a module of its own."""
    tree, encoder = dict(tree), dict(tree["Transformer"])
    tree["Transformer"] = encoder
    if "posembed_input" in encoder:
        tree["pos_embedding"] = encoder.pop("posembed_input")["pos_embedding"]
    if "pos_embedding" in encoder:
        tree["pos_embedding"] = encoder.pop("pos_embedding")
    if "probe" in tree:
        inlined = [k for k in tree if k == "probe" or _NUMBERED.fullmatch(k)]
        tree["MAPHead_0"] = {k: tree.pop(k) for k in inlined}
    posemb_1xLxW = tree.get("pos_embedding")
    if posemb_1xLxW is not None and _is_square(posemb_1xLxW.shape[1] - 1):
        # The class token was first and had a position; adding that to it gives the same token.
        tree["pos_embedding"] = posemb_1xLxW[:, 1:]
        if "cls" in tree:
            tree["cls"] = tree["cls"] + posemb_1xLxW[:, :1]
    return tree


def _text(tree: Tree) -> Tree:
    """Adds the second position embedding of some files, which their encoder added."""
    tree, encoder = dict(tree), dict(tree["Encoder_0"])
    tree["Encoder_0"] = encoder
    if "pos_embedding" in encoder:
        tree["pos_embedding"] = tree["pos_embedding"] + encoder.pop("pos_embedding")
    return tree


def _is_square(n: int) -> bool:
    return n > 0 and round(n**0.5) ** 2 == n


# --- names ----------------------------------------------------------------------------------------


def from_big_vision(tree: Tree) -> Tree:
    """A tower with big_vision's names, renamed as ours and with its blocks stacked over depth."""
    out = {_OURS.get(name, name): _map_dict(from_big_vision, node) for name, node in tree.items()}
    if "MlpBlock_0" in tree:
        out["Mlp_0"] = _swap_layers(out["Mlp_0"])
    blocks = {int(m[1]): out.pop(m[0]) for m in map(_BLOCK.fullmatch, list(out)) if m}
    if blocks:
        out["encoderblock"] = stack_blocks([blocks[i] for i in sorted(blocks)])
    return out


def to_big_vision(tree: Tree, *, scan: bool) -> Tree:
    """The inverse of `from_big_vision`; `scan` leaves the blocks stacked."""
    out: Tree = {}
    for name, node in tree.items():
        if name == "encoderblock" and not scan:
            depth = len(node["LayerNorm_0"]["scale"])
            for i in range(depth):
                out[f"encoderblock_{i}"] = to_big_vision(index_tree(node, i), scan=scan)
            continue
        node = _map_dict(lambda t: to_big_vision(t, scan=scan), node)
        out[_BIG_VISION.get(name, name)] = _swap_layers(node) if name == "Mlp_0" else node
    return out


def stack_blocks(blocks: list[Tree]) -> Tree:
    """Stacks trees of the same structure into one with a leading axis.

    Raises:
      ValueError: their names or shapes differ.
    """
    first = blocks[0]
    if any(block.keys() != first.keys() for block in blocks):
        raise ValueError("its blocks do not have the same parameters")
    return {
        name: stack_blocks([block[name] for block in blocks])
        if isinstance(first[name], dict)
        else np.stack([block[name] for block in blocks])
        for name in first
    }


def index_tree(node: Any, i: int) -> Any:
    """Block `i` of stacked blocks."""
    return {k: index_tree(v, i) for k, v in node.items()} if isinstance(node, dict) else node[i]


def _map_dict(function: Any, node: Any) -> Any:
    return function(node) if isinstance(node, dict) else node


def _swap_layers(mlp: Tree) -> Tree:
    return {_SWAP.get(name, name): node for name, node in mlp.items()}
