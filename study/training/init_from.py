"""Starting a run from the parameters of a checkpoint (`Model.init`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from flax.traverse_util import flatten_dict, unflatten_dict

from study.config import Cell
from study.data.formats.dataset import DataError
from study.interop.infer_model import RELEASED
from study.interop.load import load_params, split_spec
from study.interop.torch_state import hash_files

_MAX_NAMES = 3  # in an error message
# May stay random: an image-only checkpoint has no head into an embedding space.
_OPTIONAL = "img/head/"


def init_from_checkpoint(cell: Cell, params: Any, root: str | Path) -> tuple[Any, dict[str, Any]]:
    """`params` with those of the checkpoint `cell.model.init` in place, and a note for the record.

    Top-level parts that only the checkpoint or only the model has are left as they are, and so is
    an image head that only the model has. Position embeddings of images are resized to the
    model's patches.

    Arguments:
      params: the model's initial parameters.
      root: the folder that a relative path starts from.

    Raises:
      DataError: parameters are missing, unexpected or of another shape, or a setting of the cell
        contradicts the checkpoint; one line.
    """
    spec = cell.model.init
    assert spec is not None
    if "://" in spec:
        raise DataError(f"model.init: {spec} is not on this machine; give a copy of the file")
    path = Path(root) / split_spec(spec)[0]
    checkpoint = load_params(str(Path(root) / spec))
    shared = {part: value for part, value in checkpoint.items() if part in params}
    if not shared.keys() & {"img", "txt"}:
        raise DataError(
            f"model.init: {path} holds {', '.join(checkpoint)}, but no tower of the cell's model"
        )
    initial = flatten_dict(dict(params), sep="/")
    expected = {k: v for k, v in initial.items() if k.split("/")[0] in shared}
    loaded = flatten_dict(shared, sep="/")
    name = "img/pos_embedding"
    if name in loaded and name in expected:
        loaded[name] = resize_posemb(loaded[name], expected[name].shape[1])
    misfits = {
        "missing": [k for k in expected if k not in loaded and not k.startswith(_OPTIONAL)],
        "unexpected": [k for k in loaded if k not in expected],
        "of another shape": [
            f"{k} ({_shape(loaded[k])}, the cell has {_shape(a)})"
            for k, a in expected.items()
            if k in loaded and loaded[k].shape != a.shape
        ],
    }
    problems = [
        f"{kind}: {', '.join(names[:_MAX_NAMES])}"
        + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")
        for kind, names in misfits.items()
        if names
    ]
    if problems:
        raise DataError(f"model.init: {path} does not fit the cell's model; {'; '.join(problems)}")
    _check_settings(cell, path, shared)
    random = sorted(params.keys() - shared.keys())
    if expected.keys() - loaded.keys():
        random.append(_OPTIONAL.rstrip("/"))
    note: dict[str, Any] = {
        "file": spec,
        "sha256": hash_files(path),
        "loaded": sorted(shared),
        "random": random,
    }
    if "txt" in shared:
        note["tokens"] = {"pieces": _pieces(shared), "pad": cell.data.pad}
    converted = {k: np.asarray(v, expected[k].dtype) for k, v in loaded.items()}
    return unflatten_dict(initial | converted, sep="/"), note


def _check_settings(cell: Cell, path: Path, loaded: dict[str, Any]) -> None:
    """Refuse settings of the cell that the loaded parameters contradict or replace."""
    if "txt" in loaded and _pieces(loaded) in RELEASED:
        pieces = _pieces(loaded)
        name, pad = RELEASED[pieces]
        if cell.data.pad != pad:
            raise DataError(
                f"data.pad: {cell.data.pad!r} does not fit model.init: {path} is of {name} "
                f"({pieces:,} pieces), trained on texts padded with "
                f"{'EOS' if pad == 'eos' else 'the padding token'}; set data.pad={pad!r}"
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

    Returned unchanged if either is not a square, for the check of shapes to report.
    """
    old, new = math.isqrt(posemb_1xLxW.shape[1]), math.isqrt(length)
    if old == new or old**2 != posemb_1xLxW.shape[1] or new**2 != length:
        return posemb_1xLxW
    grid = posemb_1xLxW.reshape(old, old, -1)
    grid = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    return grid.reshape(1, length, -1)


def _shape(a: Any) -> str:
    return "x".join(map(str, a.shape))
