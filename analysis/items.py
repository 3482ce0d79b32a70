"""Which evaluated examples a cell got right: `items/<metric, "/" as ".">.npy` of its record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def read_items(folder: str | Path, metric: str) -> np.ndarray | None:
    """Bool `N`, in the order of the split; None where the record does not hold them whole.

    Args:
      folder: `<root>/<study>/<cell id>`.
      metric: as the records name it, "eval/zero_shot/test_font/top1".
    """
    stem = Path(folder) / "items" / metric.replace("/", ".")
    try:
        examples = json.loads(stem.with_name(f"{stem.name}.json").read_bytes())["examples"]
        packed = np.load(stem.with_name(f"{stem.name}.npy"))
    except (OSError, ValueError, KeyError, TypeError):  # absent, or torn by a kill
        return None
    if packed.dtype != np.uint8 or len(packed) * 8 < examples:
        return None
    return np.unpackbits(packed, count=examples).astype(bool)
