"""The measurements of `study bench loss --json`, as a table.

`measured/loss.json` in this package holds one such output under "results", beside the "hardware"
that it was measured on and the "command". The plain output of the command is read too.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

MEASURED = resources.files("analysis") / "measured" / "loss.json"
NEEDED = ("name", "kind", "batch_size", "dim", "cores", "seconds", "ratios", "temp_bytes")


def loss(path: str | Path | None = None) -> pd.DataFrame:
    """One row per contender and batch size that ran: `NEEDED` and what else it says.

    `attrs` has "hardware" and "provenance".

    Raises:
      AnalysisError: no such file, or no output of `study bench loss --json`.
    """
    file = Path(path) if path else MEASURED
    how = "`study bench loss --json > FILE` writes one"
    if not file.is_file():
        raise AnalysisError(f"no measurements at {file}; {how}")
    try:
        found = json.loads(file.read_text())
        about = found if isinstance(found, dict) else {"results": found}
        rows = [row for row in about["results"] if row.get("seconds") and "name" in row]
        table = pd.DataFrame([{**row} for row in rows])[[*NEEDED]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnalysisError(f"{file} is no output of `study bench loss --json`; {how}") from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:10]
    table.attrs["hardware"] = about.get("hardware", "hardware not named")
    table.attrs["provenance"] = f"measurements {digest}"
    return table
