"""`study data embed` with a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from study.config.cell import Pad, Resize
from study.data import embeddings
from study.data.formats.dataset import Dataset
from study.interop.embed import FrozenTowers
from study.interop.load import split_spec
from study.records.record import atomic_write
from sweeps.runner.display import Steps
from sweeps.study import StudyError


def write(
    folder: str | None,
    checkpoint: str | None,
    images: str | None,
    texts: str | None,
    tokenizer: str | None,
    pad: Pad | None,
    resize: Resize,
    image_size: int | None,
    out: str | None,
) -> None:
    """Writes `zimg` (N x E) and `ztxt` (M x E) of the sources that are given to `out`.

    Raises:
      StudyError: options that do not go together, or a file that cannot be written.
      DataError: a checkpoint or source that cannot be used.
    """
    if folder is not None:
        raise StudyError("give a data set FOLDER or --images, --texts and --out, not both")
    if checkpoint is None or out is None or not (images or texts):
        raise StudyError(
            "give a data set FOLDER, or --checkpoint FILE, --images or --texts or both, and --out"
        )
    if not out.endswith(".npz"):
        raise StudyError(f"--out {out}: its name must end in .npz")
    towers = FrozenTowers(checkpoint, image_size=image_size)
    arrays = {}
    with Steps() as steps:
        if images:
            arrays["zimg"] = towers.images(images, resize=resize, progress=steps)
    if texts:
        arrays["ztxt"] = towers.texts(texts, tokenizer=tokenizer, pad=pad)
    try:
        with atomic_write(Path(out)) as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise StudyError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    shapes = ", ".join(f"{name} {len(z)}x{z.shape[1]}" for name, z in arrays.items())
    print(f"{out}: {shapes}")


def cache(
    folder: str, checkpoint: str, image_size: int | None, resize: Resize, force: bool
) -> Path:
    """Caches the image embeddings of a data set's splits under the checkpoint's name."""
    dataset = Dataset.open(folder)
    towers = FrozenTowers(checkpoint, image_size=image_size)
    name = split_spec(checkpoint)[0].stem
    with Steps() as steps:
        return embeddings.embed(
            dataset, towers, name, resize=resize, workers=1, force=force, progress=steps
        )
