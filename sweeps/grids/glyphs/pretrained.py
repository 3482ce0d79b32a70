"""study run glyphs-pretrained

SigLIP on glyphs from a pretrained image tower, with and without its weight decay, and from random
towers, three seeds: zero-shot and few-shot curves. `prepare` pretrains the tower once (about two
minutes) and keeps it under the data root.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from study.config import Cell, Eval, Execution, FewShot, ParamGroup, ValLoss, ZeroShot
from study.data.parallel import ProgressFn, no_progress
from sweeps.grids.glyphs.recipe import MIDDLE, SEEDS, glyphs_study
from sweeps.grids.glyphs.scratch import OPTIMIZER, SIGLIP, scratch_cell
from sweeps.study import Assumption, Study

FILE = "glyphs-siglip-nu12.npz"  # the image tower, under the data root
PRETRAINING_SEED = 200  # used for nothing else
BATCH_SIZE = 256
EXAMPLES = 2 * MIDDLE
EVALS: tuple[Eval, ...] = (
    ZeroShot(split="val_font"),
    ZeroShot(split="test_font", every_percent=12.5),
    FewShot(split="test_font", shots=1, seeds=1, every_percent=12.5),
    ValLoss(split="val_font", every_percent=10),
)


def cell(*, seed: int, image: ParamGroup | None) -> Cell:
    """A run from random towers (None), or from the pretrained image tower, trained as `image`."""
    model = SIGLIP if image is None else dataclasses.replace(SIGLIP, init=f"{FILE}:img")
    return scratch_cell(
        batch_size=BATCH_SIZE,
        seed=seed,
        examples=EXAMPLES,
        model=model,
        optimizer=dataclasses.replace(OPTIMIZER, image=image or ParamGroup()),
        evals=EVALS,
    )


def study() -> Study:
    images = (None, ParamGroup(lr_mult=0.1), ParamGroup(lr_mult=0.1, wd_mult=0.0))
    return glyphs_study(
        name="glyphs-pretrained",
        question="On glyphs: does weight decay harm a pretrained image tower?",
        cells=[cell(seed=seed, image=image) for seed in SEEDS for image in images],
        paper="Fig. 4",
        prepare="sweeps.grids.glyphs.pretrained:prepare",
        assumptions=(
            Assumption(
                "pretraining",
                "SigLIP on the same glyphs, another seed and text tower",
                "The paper's tower has seen labelled images. The only such tower in a package, "
                "EfficientNet-Lite0, is convolutional; the towers that train here are ViTs.",
            ),
            Assumption(
                "few-shot",
                "one example of each of 7,336 classes",
                "Ten would need 4 GB of targets.",
            ),
            Assumption(
                "weight decay",
                f"{OPTIMIZER.weight_decay:g}",
                "As in the other grids, and the paper's.",
            ),
        ),
    )


def pretraining_cell() -> Cell:
    """The run that makes the tower: SigLIP from scratch, as long as the runs that start from it."""
    return scratch_cell(
        batch_size=BATCH_SIZE,
        seed=PRETRAINING_SEED,
        examples=EXAMPLES,
        evals=(ValLoss(split="val_font"),),
    )


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """Makes the glyphs, and the image tower as a big_vision file; keeps what exists.

    Raises:
      DataError: The disk is full or read-only.
    """
    from study.data.glyphs.write import prepare as prepare_glyphs

    root = Path(data_root)
    prepare_glyphs(root, progress)
    if (root / FILE).exists():
        return
    from study.interop import big_vision
    from study.training.checkpoint import load_checkpoint, saved_steps
    from study.training.loop import train

    progress("pretraining an image tower", 0, 1)
    with tempfile.TemporaryDirectory(prefix="pretrain-", dir=root) as folder:
        execution = Execution(data_root=str(root), wandb=False)
        train(pretraining_cell(), execution, folder=Path(folder), group="pretrain")
        checkpoints = Path(folder) / "checkpoints"
        state = load_checkpoint(checkpoints, saved_steps(checkpoints)[-1], part="params")
        big_vision.write(root / FILE, {"img": state["params"]["img"]})
    progress("pretraining an image tower", 1, 1)
