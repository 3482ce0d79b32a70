"""A run that starts from a checkpoint (`Model.init`)."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from flax.traverse_util import flatten_dict, unflatten_dict

from study.config.cell import Cell
from study.data.formats.dataset import DataError
from study.interop.infer_model import RELEASED
from study.interop.load import load_params, split_spec

_SHOWN = 3
# May stay random: an image-only file has no head into an embedding space.
_OPTIONAL = "img/head/"


def init_from_checkpoint(cell: Cell, params: Any, root: str | Path) -> tuple[Any, dict[str, Any]]:
    """`params` with those of the checkpoint `cell.model.init` in place, and a note for the record.

    Parts that the checkpoint or the model does not have stay as they are, and so does an image
    head that only the model has. The image's position embeddings are resized to its patches.

    Arguments:
      params: the parameters of the whole model at their random start.
      root: where a relative path starts.

    Raises:
      DataError: one line that says which parameters are missing, unexpected or of another shape,
        or which setting of the cell contradicts the checkpoint.
    """
    spec = cell.model.init
    assert spec is not None
    if "://" in spec:
        raise DataError(f"model.init: {spec} is not on this machine; give a copy of the file")
    path = Path(root) / split_spec(spec)[0]
    found = load_params(str(Path(root) / spec))
    both = {part: value for part, value in found.items() if part in params}
    if not both.keys() & {"img", "txt"}:
        raise DataError(
            f"model.init: {path} has {', '.join(found)}, and the model of them has no tower"
        )
    want = flatten_dict({part: params[part] for part in both}, sep="/")
    have = flatten_dict(both, sep="/")
    name = "img/pos_embedding"
    if name in have and name in want:
        have[name] = resize_posemb(have[name], want[name].shape[1])
    missing = [k for k in want if k not in have and not k.startswith(_OPTIONAL)]
    unexpected = [k for k in have if k not in want]
    shapes = [
        f"{k} ({_shape(have[k])}, the cell has {_shape(want[k])})"
        for k in want
        if k in have and have[k].shape != want[k].shape
    ]
    wrong = [
        f"{what}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if wrong:
        raise DataError(f"model.init: {path} does not fit the cell's model; {'; '.join(wrong)}")
    _check_settings(cell, path, both)
    flat = flatten_dict(dict(params), sep="/")
    flat |= {k: np.asarray(v, want[k].dtype) for k, v in have.items()}
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    fresh = sorted({k.split("/")[0] for k in flat} - both.keys())
    fresh += [_OPTIONAL.rstrip("/")] if any(k in want and k not in have for k in flat) else []
    about: dict[str, Any] = {
        "file": spec,
        "sha256": digest,
        "loaded": sorted(both),
        "random": fresh,
    }
    if "txt" in both:
        about["tokens"] = {"pieces": _pieces(both), "pad": cell.data.pad}
    return unflatten_dict(flat, sep="/"), about


def _check_settings(cell: Cell, path: Path, loaded: dict[str, Any]) -> None:
    """Refuses settings of the cell that the loaded parameters contradict or replace."""
    if "txt" in loaded and _pieces(loaded) in RELEASED:
        pieces = _pieces(loaded)
        name, pad = RELEASED[pieces]
        if cell.data.pad != pad:
            raise DataError(
                f"data.pad: {cell.data.pad!r} does not fit model.init: {path} is of {name} "
                f"({pieces:,} pieces), trained on texts filled with "
                f"{'EOS' if pad == 'eos' else 'padding'}; set data.pad={pad!r}"
            )
    for name in sorted({"t", "b"} & loaded.keys()):
        field = f"{name}_init"
        value, default = getattr(cell.loss, field), type(cell.loss).__dataclass_fields__[field]
        if value != default.default:
            raise DataError(
                f"loss.{field}: {value!r} has no effect, because {path} holds {name}; leave it "
                f"out, or start from the towers alone (model.init='FILE:img' or 'FILE:txt')"
            )


def _pieces(loaded: dict[str, Any]) -> int:
    """Rows of the loaded token embedding."""
    return len(loaded["txt"]["Embed_0"]["embedding"])


def resize_posemb(posemb_1xLxW: np.ndarray, length: int) -> np.ndarray:
    """Position embeddings of a square grid, linearly resized to a square of `length` patches.

    Left alone where either is no square: the shapes then tell.
    """
    old, new = math.isqrt(posemb_1xLxW.shape[1]), math.isqrt(length)
    if old == new or old**2 != posemb_1xLxW.shape[1] or new**2 != length:
        return posemb_1xLxW
    grid = posemb_1xLxW.reshape(old, old, -1)
    grid = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    return grid.reshape(1, length, -1)


def _shape(a: Any) -> str:
    return "x".join(map(str, a.shape))
