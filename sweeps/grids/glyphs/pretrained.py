"""The image tower that `glyphs-pretrained` starts from, trained here once."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from study.config import Cell, Execution, ValLoss
from study.data.parallel import ProgressFn, no_progress
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.recipe import MIDDLE, glyphs_cell

SEED = 200  # of nothing else
FILE = "glyphs-siglip-mu8.npz"
SIGLIP = glyphs.SIGLIP


def cell() -> Cell:
    """SigLIP from scratch, as long as the runs that start from its image tower."""
    trained = glyphs_cell(batch_size=256, seed=SEED, examples=2 * MIDDLE, model=SIGLIP)
    return dataclasses.replace(trained, evals=(ValLoss(split="val_font"),))


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """The glyphs, and beside them the image tower as a big_vision file; what is there is kept.

    Raises:
      DataError: a disk that is full or read-only.
    """
    from study.data.glyphs.write import prepare as glyphs_prepare

    root = Path(data_root)
    glyphs_prepare(root, progress)
    if (root / FILE).exists():
        return
    from study.interop import big_vision
    from study.training.checkpoint import Checkpoints
    from study.training.loop import train

    progress("pretraining an image tower", 0, 1)
    with tempfile.TemporaryDirectory(prefix="pretrain-", dir=root) as folder:
        execution = Execution(data_root=str(root), wandb=False)
        train(cell(), execution, folder=Path(folder), group="pretrain")
        checkpoints = Checkpoints(Path(folder) / "checkpoints")
        state = checkpoints.load_latest()
        checkpoints.close()
        assert state is not None
        big_vision.write(root / FILE, {"img": state["params"]["img"]})
    progress("pretraining an image tower", 1, 1)
