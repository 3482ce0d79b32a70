"""Parameter names of our towers and of big_vision's, which differ in three places.

Ours say Mlp_0 where big_vision says MlpBlock_0, MapHead_0 for MAPHead_0, and number the two
layers of an MLP the other way round. Blocks are stacked over depth under `encoderblock`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

Tree = dict[str, Any]

_THEIRS = {"Mlp_0": "MlpBlock_0", "MapHead_0": "MAPHead_0"}
_OURS = {theirs: ours for ours, theirs in _THEIRS.items()}
_SWAP = {"Dense_0": "Dense_1", "Dense_1": "Dense_0"}
_BLOCK = re.compile(r"encoderblock_(\d+)")


def ours(tree: Tree) -> Tree:
    """A tower named as big_vision does, renamed, its blocks stacked."""
    out = {_OURS.get(name, name): _mapped(ours, node) for name, node in tree.items()}
    if "MlpBlock_0" in tree:
        out["Mlp_0"] = _swapped(out["Mlp_0"])
    blocks = {int(m[1]): out.pop(m[0]) for m in map(_BLOCK.fullmatch, list(out)) if m}
    if blocks:
        out["encoderblock"] = stacked([blocks[i] for i in sorted(blocks)])
    return out


def theirs(tree: Tree, *, scan: bool) -> Tree:
    """The inverse of `ours`; `scan` leaves the blocks stacked."""
    out: Tree = {}
    for name, node in tree.items():
        if name == "encoderblock" and not scan:
            depth = len(node["LayerNorm_0"]["scale"])
            for i in range(depth):
                out[f"encoderblock_{i}"] = theirs(_layer(node, i), scan=scan)
            continue
        node = _mapped(lambda t: theirs(t, scan=scan), node)
        out[_THEIRS.get(name, name)] = _swapped(node) if name == "Mlp_0" else node
    return out


def stacked(blocks: list[Tree]) -> Tree:
    """Trees of one structure as one tree with a leading axis.

    Raises:
      ValueError: their names or shapes differ.
    """
    first = blocks[0]
    if any(block.keys() != first.keys() for block in blocks):
        raise ValueError("its blocks do not have the same parameters")
    return {
        name: stacked([block[name] for block in blocks])
        if isinstance(first[name], dict)
        else np.stack([block[name] for block in blocks])
        for name in first
    }


def _layer(node: Any, i: int) -> Any:
    return {k: _layer(v, i) for k, v in node.items()} if isinstance(node, dict) else node[i]


def _mapped(function: Any, node: Any) -> Any:
    return function(node) if isinstance(node, dict) else node


def _swapped(mlp: Tree) -> Tree:
    return {_SWAP.get(name, name): node for name, node in mlp.items()}
