"""big_vision checkpoints: flat `.npz` files, old and new layouts.

A file holds two towers (`params/img/...`, `params/txt/...`, `params/t`, `params/b`) or one, and
then without the `img/` or `txt/`. Blocks are looped (`encoderblock_0`, ...) or scanned.
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
from study.interop.names import Tree, ours, theirs
from study.records.record import atomic_write

_PREFIXES = ("params/", "opt/target/", "target/")
_NUMBERED = re.compile(r"([A-Z]\w*)_(\d+)")


def read(path: Path) -> Tree:
    """The towers of a big_vision file in our names, shapes and float32.

    What classifies in an image-only file (`head`, `pre_logits`) is left out: its classes mean
    nothing here. In a two-tower file the image head is kept.

    Raises:
      DataError: not a file of plain arrays, or of no tower that we know.
    """
    try:
        tree = _nested(_arrays(path))
        parts = _parts(path, tree)
        return {name: ours(part) if isinstance(part, dict) else part for name, part in parts}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no big_vision checkpoint that can be read: {error}") from None


def write(path: str | Path, params: Tree, *, scan: bool = False) -> None:
    """Writes the towers, t and b in `params` as a big_vision file, whole or not at all.

    Arguments:
      params: as `study.towers` names them; any of img, txt, t, b.
      scan: leave the blocks stacked, for a big_vision model with `scan=True`.

    Raises:
      DataError: a tower that big_vision does not have, or a disk that is full or read-only.
    """
    path = Path(path)
    if "txt" in params and "Encoder_0" not in params["txt"]:
        raise DataError(f"cannot write {path}: big_vision has no averaging text tower")
    nested = {
        name: theirs(part, scan=scan) if isinstance(part, dict) else part
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
        raise DataError(f"{path} is no .npz file that can be read ({error})") from None


def _float32(a: np.ndarray) -> np.ndarray:
    """numpy has no bfloat16, and gives such an array back as bytes, two by two."""
    if a.dtype.kind == "V" and a.dtype.itemsize == 2:
        a = a.view(jnp.bfloat16)
    return a.astype(np.float32)


def _nested(flat: dict[str, np.ndarray]) -> Tree:
    for prefix in _PREFIXES:
        found = {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
        if found:
            return unflatten_dict(found, sep="/")
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
    mend = {"img": _image, "txt": _text}
    return [(k, mend[k](_renumbered(v)) if k in mend else v.reshape(1)) for k, v in parts.items()]


def _renumbered(tree: Any) -> Any:
    """Modules numbered by their kind: the oldest files counted all kinds together.

    LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2 then become LayerNorm_0,
    MultiHeadDotProductAttention_0, LayerNorm_1.
    """
    if not isinstance(tree, dict):
        return tree
    numbers: dict[str, list[int]] = {}
    for found in filter(None, map(_NUMBERED.fullmatch, tree)):
        numbers.setdefault(found[1], []).append(int(found[2]))
    out = {}
    for name, node in tree.items():
        if match := _NUMBERED.fullmatch(name):
            name = f"{match[1]}_{sorted(numbers[match[1]]).index(int(match[2]))}"
        out[name] = _renumbered(node)
    return out


def _image(tree: Tree) -> Tree:
    """The position embeddings at the top and without the class token's; the MAP head in its own."""
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
        # The class token came first and had a position of its own: the sum is the same token.
        tree["pos_embedding"] = posemb_1xLxW[:, 1:]
        if "cls" in tree:
            tree["cls"] = tree["cls"] + posemb_1xLxW[:, :1]
    return tree


def _text(tree: Tree) -> Tree:
    """Some files hold a second position embedding, which was added inside the encoder."""
    tree, encoder = dict(tree), dict(tree["Encoder_0"])
    tree["Encoder_0"] = encoder
    if "pos_embedding" in encoder:
        tree["pos_embedding"] = tree["pos_embedding"] + encoder.pop("pos_embedding")
    return tree


def _is_square(n: int) -> bool:
    return n > 0 and round(n**0.5) ** 2 == n
