"""The data that studies on glyphs read beside the data set itself."""

from __future__ import annotations

from pathlib import Path

from study.data.parallel import ProgressFn, no_progress

NARROW = 16
ONE_VIEW = "glyphs-1view"  # each character in each font drawn once, and not in four ways
# As `study.data.glyphs.scenes` says, which takes long to import for a listing of studies.
SCENES, SCENES_TOWER, SCENES_DIM = "glyph-scenes", "hog-lda-96x2", 192


def one_view(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """The glyphs, and beside them the data set with a quarter of their examples.

    Raises:
      DataError: a disk that is full or read-only.
    """
    from study.data.glyphs.write import make_glyphs, prepare

    prepare(data_root, progress)
    make_glyphs(Path(data_root) / ONE_VIEW, views=1, progress=progress)


def narrow(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """The glyphs, and embeddings of NARROW dimensions beside the usual ones.

    Raises:
      DataError: a disk that is full or read-only.
    """
    from study.data.glyphs import hog_lda
    from study.data.glyphs.write import prepare

    hog_lda.embed(prepare(data_root, progress), dim=NARROW, progress=progress)


def everything(data_root: str | Path, progress: ProgressFn = no_progress) -> None:
    """All that any of the glyph studies reads.

    Raises:
      DataError: a disk that is full or read-only.
    """
    from study.data.glyphs import scenes
    from sweeps.grids.glyphs.pretrained import prepare

    one_view(data_root, progress)
    scenes.prepare(data_root, progress)
    prepare(data_root, progress)
