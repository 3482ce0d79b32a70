"""The paper's own numbers, from `reference.csv` in this package."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

REFERENCE = resources.files("analysis.paper") / "reference.csv"

# The panels of Fig. 2 with both losses, by `model.image.kind`.
FIG_2 = {"cached": "left", "vit": "middle"}

PRINTED_SIZES = {98_304: "98k", 307_200: "307k"}  # 96 * 1024 and 300 * 1024, as printed

# The paper's benchmarks, and names of data sets that hold them, letters and digits only.
BENCHMARKS = {
    "ImageNet": ("imagenet", "imagenet1k", "imagenet2012", "ilsvrc2012"),
    "ImageNet-v2": ("imagenetv2", "imagenetv2matchedfrequency"),
    "ImageNet ReaL": ("imagenetreal",),
    "ObjectNet": ("objectnet",),
    "Oxford-IIIT Pet": ("pets", "oxfordiiitpet", "oxfordpets", "oxfordpet"),
    "CIFAR-100": ("cifar100",),
    "COCO": ("coco", "cococaptions", "mscoco", "coco2014", "cocokarpathy"),
    "XM3600": ("xm3600", "crossmodal3600", "xm"),
}


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


def benchmark(metric: str) -> str | None:
    """The paper's benchmark that a metric is measured on, or None.

    >>> benchmark("eval/zero_shot/imagenet/val/top1")
    'ImageNet'
    """
    parts = metric.split("/")
    if len(parts) != 5 or parts[0] != "eval":
        return None
    name = re.sub("[^a-z0-9]", "", parts[2].lower())
    return next((paper for paper, ours in BENCHMARKS.items() if name in ours), None)


def find_metric(
    metrics: Iterable[str], name: str, *, kind: str = "zero_shot", measure: str = "top1"
) -> str | None:
    """The first of the metrics that is `measure` of an evaluation `kind` on this benchmark."""
    return next(
        (
            metric
            for metric in sorted(metrics)
            if benchmark(metric) == name
            and metric.split("/")[1] == kind
            and metric.split("/")[-1] == measure
        ),
        None,
    )
