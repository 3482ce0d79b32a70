"""The paper's own numbers, from `results/paper/reference.csv`, to stand beside ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

REFERENCE = Path(__file__).parents[1] / "results" / "paper" / "reference.csv"

# The panels of Fig. 2 with both losses: by the image tower that ours are chosen by.
FIG_2 = {"cached": "left", "vit": "middle"}


def reference(path: str | Path | None = None) -> pd.DataFrame:
    """The whole table: figure, panel, series, x_name, x, metric, value, unit, provenance.

    Raises:
      AnalysisError: there is no such file.
    """
    path = Path(path or REFERENCE)
    if not path.is_file():
        raise AnalysisError(f"the paper's numbers are not at {path}; give the file's path")
    return pd.read_csv(path)


def fig_2(image: str, path: str | Path | None = None) -> pd.DataFrame:
    """Zero-shot quality against batch size in the paper (Fig. 2 left for "cached", middle "vit").

    Returns: columns loss.kind, batch_size, value (% ImageNet top-1), panel; one row per point.
      The paper gives no seeds and no intervals.

    Raises:
      AnalysisError: there is no such file.
    """
    table = reference(path)
    table = table[(table["figure"] == "Fig. 2") & table["panel"].str.startswith(FIG_2[image])]
    frame = pd.DataFrame(
        {
            "loss.kind": table["series"].str.lower(),
            "batch_size": table["x"].astype("int64"),
            "value": table["value"],
            "panel": table["panel"],
        }
    )
    return frame.sort_values(["loss.kind", "batch_size"], ignore_index=True)
