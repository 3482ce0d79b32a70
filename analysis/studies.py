"""A study as tidy frames: its cells, its logged rows, the verdicts on it."""

from __future__ import annotations

import pandas as pd

from analysis.claims import to_frame
from analysis.figures.base import Inputs, as_inputs


def cells(study: Inputs | str, root: str = "runs") -> pd.DataFrame:
    """One row per cell: its fields, status and last metrics; see `frame.cells`.

    Args:
      study: its name, or what `figures.read_inputs` returned.
      root: folder or bucket of the records, or a snapshot.

    Raises:
      AnalysisError: no such root or study.
    """
    return as_inputs(study, root).cells


def rows(study: Inputs | str, root: str = "runs") -> pd.DataFrame:
    """One row per logged step of every cell, see `frame.rows`; arguments as for `cells`."""
    return as_inputs(study, root).rows


def verdicts(study: Inputs | str, root: str = "runs") -> pd.DataFrame:
    """One row per claim, see `claims.to_frame`; arguments as for `cells`."""
    return to_frame(as_inputs(study, root).verdicts)
