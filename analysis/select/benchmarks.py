"""Metrics that are measured on the paper's benchmarks, found by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
