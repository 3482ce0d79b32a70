"""What the pages take their numbers from: verdicts, tables and snapshots under `results/`."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.claims import OURS, Verdict
from analysis.claims.formatting import from_json
from analysis.errors import AnalysisError
from analysis.records import frame
from analysis.records.snapshot import MANIFEST
from analysis.report.provenance import code_versions, core_hours

ORDER = ("glyphs", "emoji", "beyond")  # of studies on a page; others follow by name
SNAPSHOT, CLAIMS = "snapshot", "claims.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """The folder `results/`: `<study>/snapshot`, `<study>/claims.json`, and any CSV below it."""

    folder: Path

    @functools.cached_property
    def studies(self) -> list[str]:
        """The studies with a snapshot and verdicts."""
        names = [
            path.parent.parent.name
            for path in self.folder.glob(f"*/{SNAPSHOT}/{MANIFEST}")
            if (path.parent.parent / CLAIMS).exists()
        ]
        known = {name: rank for rank, name in enumerate(ORDER)}
        return sorted(names, key=lambda name: (known.get(name, len(ORDER)), name))

    @functools.cache  # noqa: B019
    def verdicts(self, study: str) -> dict[str, Verdict]:
        """The verdicts on a study, by claim.

        Raises:
          AnalysisError: none were written.
        """
        path = self.folder / study / CLAIMS
        try:
            return {one.name: one for one in from_json(path.read_text(encoding="utf-8"))}
        except (OSError, ValueError, TypeError) as error:
            raise AnalysisError(
                f"{path}: no verdicts; `study claims --json` writes them"
            ) from error

    @functools.cache  # noqa: B019
    def facts(self, study: str) -> dict[str, str | int | float]:
        """What a snapshot is, by name: numbers of cells and claims, hours, code."""
        cells = frame.cells(self.folder / study / SNAPSHOT, self.record_folder(study))
        papers = Counter(v.verdict for v in self.verdicts(study).values() if v.section != OURS)
        return {
            "cells": len(cells),
            "core hours": core_hours(cells),
            "code": code_versions(cells),
            "claims": sum(papers.values()),
            **{f"{kind} claims": papers[kind] for kind in ("reproduced", "contradicted")},
            **{f"{kind} claims": papers[kind] for kind in ("undecided", "no data")},
        }

    def record_folder(self, study: str) -> str:
        """The folder of a study's records in its snapshot, which has the study's name or is one."""
        held = frame.studies(self.folder / study / SNAPSHOT)
        return study if study in held else held[0]

    @functools.cache  # noqa: B019
    def table(self, path: str) -> pd.DataFrame:
        """A CSV under `results/`, every value as text.

        Raises:
          AnalysisError: there is none.
        """
        try:
            return pd.read_csv(self.folder / path, dtype=str, keep_default_na=False)
        except OSError as error:
            raise AnalysisError(f"no table {self.folder / path}") from error
