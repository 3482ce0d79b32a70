"""The measurements of `study bench loss --json`, as a table.

`results/bench/loss.json` holds one such output under "results", beside the "hardware" that it was
measured on and the "command". The plain output of the command is read too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

MEASURED = Path(__file__).parents[1] / "results" / "bench" / "loss.json"
NEEDED = ("name", "kind", "batch_size", "dim", "cores", "seconds", "ratios", "temp_bytes")


def loss(path: str | Path | None = None) -> pd.DataFrame:
    """One row per contender and batch size that ran: `NEEDED` and what else it says.

    `attrs` has "hardware" and "provenance".

    Raises:
      AnalysisError: no such file, or no output of `study bench loss --json`.
    """
    path = Path(path or MEASURED)
    how = "`study bench loss --json > FILE` writes one"
    if not path.is_file():
        raise AnalysisError(f"no measurements at {path}; {how}")
    try:
        found = json.loads(path.read_text())
        about = found if isinstance(found, dict) else {"results": found}
        rows = [row for row in about["results"] if row.get("seconds") and "name" in row]
        table = pd.DataFrame([{**row} for row in rows])[[*NEEDED]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnalysisError(f"{path} is no output of `study bench loss --json`; {how}") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    table.attrs["hardware"] = about.get("hardware", "hardware not named")
    table.attrs["provenance"] = f"measurements {digest}"
    return table
