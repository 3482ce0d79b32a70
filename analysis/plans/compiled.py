"""What XLA's memory analysis said of cells that were planned: the CSVs of `study plan --out`.

A plan names its machine by slice, a record by what JAX calls its devices; `MACHINES` joins them.
The plans are those of `results/plan` in a checkout. An installed package has none: there the peaks
are those that records hold themselves.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

PLANS = Path(__file__).parents[2] / "results" / "plan"
COLUMNS = ("id", "chip", "devices", "compiled_bytes")

# How the names of slices begin, and JAX devices per chip, by what JAX calls a device.
MACHINES = {
    "TPU v4": ("v4", 1),
    "TPU v5 lite": ("v5e", 1),
    "TPU v5e": ("v5e", 1),
    "TPU v5": ("v5p", 1),
    "TPU v5p": ("v5p", 1),
    "TPU v6 lite": ("v6e", 1),
    "TPU v6e": ("v6e", 1),
    "TPU7x": ("7x", 2),
    "TPU v7x": ("7x", 2),
}


def peaks(folder: str | Path | None = None) -> pd.DataFrame:
    """The compiled peaks of planned cells, one row per cell and machine.

    Columns: id, chip ("v4"), devices (JAX devices of the machine), compiled_bytes (per device, to
    the hundredth of a GiB that a plan gives). Peaks by formula are left out, and so are files that
    are no plan. Without such a folder there are no rows.
    """
    found = []
    for path in sorted(Path(folder or PLANS).glob("*.csv")):
        plan = pd.read_csv(path)
        if not {"id", "slice", "chips", "fits", "hbm_gib"} <= set(plan):
            continue
        plan = plan[plan["fits"].notna()]  # the compiler's word
        chip = plan["slice"].map(lambda name: str(name).partition("-")[0])
        each = dict(MACHINES.values())
        found.append(
            pd.DataFrame(
                {
                    "id": plan["id"],
                    "chip": chip,
                    "devices": plan["chips"] * chip.map(each),
                    "compiled_bytes": (plan["hbm_gib"] * 2**30).round(),
                }
            ).dropna()
        )
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(found, ignore_index=True)
    table = table.astype({"devices": "int64", "compiled_bytes": "int64"})
    return table.drop_duplicates(["id", "chip", "devices"], keep="last", ignore_index=True)


def of(cells: pd.DataFrame, folder: str | Path | None = None) -> pd.Series:
    """The planned peak of each of these cells on the very machine that it ran on; bytes or NaN."""
    if not {"devices.kind", "devices.count"} <= set(cells):
        return pd.Series(float("nan"), index=cells.index)
    known = peaks(folder).set_index(["id", "chip", "devices"])["compiled_bytes"].to_dict()
    chips = [MACHINES.get(kind, ("", 1))[0] for kind in cells["devices.kind"]]
    keys = zip(cells["id"], chips, cells["devices.count"].tolist(), strict=True)
    return pd.Series([known.get(key) for key in keys], index=cells.index, dtype="float64")
