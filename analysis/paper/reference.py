"""The paper's own numbers, from `reference.csv` in this package, to compare ours with."""

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

# The panels of Fig. 2 with both losses: by the image tower that ours are chosen by.
FIG_2 = {"cached": "left", "vit": "middle"}

# The paper's benchmarks, by how a data set of them is named here: letters and digits only.
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


def reference(path: str | Path | None = None) -> pd.DataFrame:
    """The whole table: figure, panel, series, x_name, x, metric, value, unit, provenance.

    What is not given is an empty string; `x` is text ("n/a" is the cell without a bias).

    Raises:
      AnalysisError: there is no such file.
    """
    return _read(Path(path) if path else None).copy()


@functools.cache
def _read(path: Path | None) -> pd.DataFrame:
    with _there(path).open("rb") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return table.assign(value=table["value"].astype(float))


def _there(path: str | Path | None) -> Traversable:
    file = Path(path) if path else REFERENCE
    if not file.is_file():
        raise AnalysisError(f"the paper's numbers are not at {file}; give the file's path")
    return file


def provenance(path: str | Path | None = None) -> str:
    """Which file of the paper's numbers a figure is drawn from, as a short hash."""
    digest = hashlib.sha256(_there(path).read_bytes()).hexdigest()[:10]
    return f"paper's numbers {digest}"


def of(figure: str, path: str | Path | None = None, *, panel: str = "") -> pd.DataFrame:
    """The rows of one figure or table, of the panel that begins so, with a batch size or count
    in `x` where it is one.

    Raises:
      AnalysisError: there is no such file.
    """
    table = reference(path)
    return table[(table["figure"] == figure) & table["panel"].str.startswith(panel)]


def fig_2(image: str, path: str | Path | None = None) -> pd.DataFrame:
    """Zero-shot quality against batch size in the paper (Fig. 2 left for "cached", middle "vit").

    Returns: columns loss.kind, batch_size, value (% ImageNet top-1), panel; one row per point.
      The paper gives no seeds and no intervals.

    Raises:
      AnalysisError: there is no such file.
    """
    table = of("Fig. 2", path, panel=FIG_2[image])
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
    """The paper's benchmark that a record's metric is measured on, or None.

    >>> benchmark("eval/zero_shot/imagenet/val/top1")
    'ImageNet'
    """
    parts = metric.split("/")
    if len(parts) != 5 or parts[0] != "eval":
        return None
    name = re.sub("[^a-z0-9]", "", parts[2].lower())
    return next((paper for paper, ours in BENCHMARKS.items() if name in ours), None)


def measured_on(
    metrics: Iterable[str], name: str, *, kind: str = "zero_shot", measure: str = "top1"
) -> str | None:
    """Which of the metrics is `measure` of an evaluation `kind` on the paper's benchmark `name`."""
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
