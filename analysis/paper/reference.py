"""The paper's own numbers, from `reference.csv` in this package."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

REFERENCE = resources.files("analysis.paper") / "reference.csv"

# The panels of Fig. 2 with both losses, by `model.image.kind`.
FIG_2 = {"cached": "left", "vit": "middle"}

PRINTED_SIZES = {98_304: "98k", 307_200: "307k"}  # 96 * 1024 and 300 * 1024, as printed


def reference(
    figure: str | None = None, *, panel: str = "", path: str | Path | None = None
) -> pd.DataFrame:
    """The numbers that the paper prints.

    Args:
      figure: only those of this figure or table, "Fig. 2" or "Table 5"; None is all of them.
      panel: only the panels whose names begin so.
      path: another file in place of the package's own.

    Returns: columns figure, panel, series, x_name, x, metric, value, unit, provenance. What the
      paper does not give is an empty string; `x` is text ("n/a" is a cell without a bias).

    Raises:
      AnalysisError: the file does not exist.
    """
    table = _read(Path(path) if path else None)
    if figure is not None:
        table = table[table["figure"] == figure]
    return table[table["panel"].str.startswith(panel)].copy()


@functools.cache
def _read(path: Path | None) -> pd.DataFrame:
    with _file(path).open("rb") as stream:
        table = pd.read_csv(stream, dtype=str, keep_default_na=False)
    return table.assign(value=table["value"].astype(float))


def _file(path: str | Path | None) -> Traversable:
    file = Path(path) if path else REFERENCE
    if not file.is_file():
        raise AnalysisError(f"cannot find the paper's numbers at {file}; give the file's path")
    return file


def provenance(path: str | Path | None = None) -> str:
    """Which file of the paper's numbers a figure is drawn from, as a short hash."""
    digest = hashlib.sha256(_file(path).read_bytes()).hexdigest()[:10]
    return f"paper's numbers {digest}"


def fig_2(image: str, *, path: str | Path | None = None) -> pd.DataFrame:
    """Zero-shot quality by batch size in Fig. 2: its left panel for "cached", the middle for "vit".

    Returns: columns loss.kind, batch_size, value (% ImageNet top-1), panel; one row per point.
      The paper gives no seeds and no intervals.

    Raises:
      AnalysisError: the file does not exist.
    """
    table = reference("Fig. 2", panel=FIG_2[image], path=path)
    frame = pd.DataFrame(
        {
            "loss.kind": table["series"].str.lower(),
            "batch_size": table["x"].astype("int64"),
            "value": table["value"],
            "panel": table["panel"],
        }
    )
    return frame.sort_values(["loss.kind", "batch_size"], ignore_index=True)
