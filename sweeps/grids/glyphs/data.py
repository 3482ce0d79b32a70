"""Prepares the data that studies on glyphs read in addition to the glyphs themselves."""

from __future__ import annotations

from pathlib import Path

from study.data.parallel import ProgressFn, no_progress

NARROW = 16  # dimensions
ONE_VIEW = "glyphs-1view"  # each character in each font drawn once instead of four times
# The same as in `study.data.glyphs.scenes`, which is too slow to import for a list of studies.
SCENES, SCENES_TOWER, SCENES_DIM = "glyph-scenes", "hog-lda-96x2", 192


def one_view(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """Makes the glyphs, and the data set with a quarter of their examples.

    Raises:
      DataError: The disk is full or read-only.
    """
    from study.data.glyphs.write import make_glyphs, prepare

    prepare(data_root, progress)
    make_glyphs(Path(data_root) / ONE_VIEW, views=1, progress=progress)


def narrow(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """Makes the glyphs, and embeddings of NARROW dimensions in addition to the usual ones.

    Raises:
      DataError: The disk is full or read-only.
    """
    from study.data.glyphs import hog_lda
    from study.data.glyphs.write import prepare

    hog_lda.embed(prepare(data_root, progress), dim=NARROW, progress=progress)


def everything(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """Makes everything that the studies on glyphs read.

    Raises:
      DataError: The disk is full or read-only.
    """
    from study.data.glyphs import scenes
    from sweeps.grids.glyphs.pretrained import prepare

    one_view(data_root, progress)
    scenes.prepare(data_root, progress)
    prepare(data_root, progress)
