"""From a folder of records to a file that holds the report."""

from __future__ import annotations

import contextlib
from pathlib import Path

from analysis.errors import AnalysisError
from analysis.figures.base import Inputs, read_inputs
from analysis.report.page import html
from analysis.report.study_info import StudyInfo


def read(root: str | Path, stated: StudyInfo, *, metric: str | None = None) -> Inputs:
    """The study's records.

    Raises:
      AnalysisError: no such root or study.
    """
    return read_inputs(
        root, stated.study, metric=metric, planned=stated.planned, records=stated.records
    )


def write(
    path: str | Path, root: str | Path, stated: StudyInfo, *, metric: str | None = None
) -> Inputs:
    """Writes the page, the whole file or nothing; returns what it was made from.

    Raises:
      AnalysisError: no such root or study, or the file cannot be written.
    """
    inputs = read(root, stated, metric=metric)
    text = html(inputs, stated)
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise AnalysisError(
            f"cannot write {path}: {error.strerror or error}; choose another --out"
        ) from error
    return inputs
