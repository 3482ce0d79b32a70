"""Tables 2 and 9: multilingual pre-training by batch size (paper Sec. 4.3, App. D; Figs. 2 and 8).

Cells: see `analysis.select.multilingual`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.plot.style import format_size, parse_size
from analysis.figures.tables.table import PaperTable, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.select import multilingual
from analysis.select.benchmarks import benchmark
from analysis.select.multilingual import SCALED

IMAGENET, RECALL = "ImageNet 0-shot", "XM text to image"
LANGUAGES = ("avg", "de", "en", "hi", "ru", "zh")  # of Table 2
DIRECTIONS = {"I-T": "image_to_text", "T-I": "text_to_image"}


def data_2(inputs: Inputs) -> pd.DataFrame:
    """Zero-shot and recall@1 of some languages, by batch size."""
    rows = paper_rows(
        reference("Table 2"),
        row=lambda entry: (_label(entry["series"].partition("lang=")[2]),),
        column=lambda entry: format_size(int(entry["x"])),
    )
    panel = inputs.select(multilingual.by_batch_size)
    recall = multilingual.recall_by_language(panel.done, "text_to_image")
    metrics = {IMAGENET: inputs.quality_of(panel.done)}
    metrics |= {_label(name): recall[name] for name in LANGUAGES if name in recall}
    missing: list[str] = []
    for label, metric in metrics.items():
        rows += [
            mean | {"row": (label,), "column": format_size(size)}
            for size, mean in our_means(
                panel.done, ["batch_size"], metric, inputs.read_items
            ).items()
        ]
        missing += points.without_metric(panel, metric)
    return make_table(
        rows,
        title="Table 2: multilingual SigLIP by batch size (%, 30B examples in the paper)",
        head=("",),
        column_order=parse_size,
        panels=[panel],
        missing=missing,
        notes=_measured(metrics.values()) if len(panel.done) else (),
        apart=True,
    )


def _measured(metrics: Iterable[str]) -> list[str]:
    """What ours are measured on, where it is not what the paper's are."""
    others = [metric.split("/") for metric in metrics if benchmark(metric) is None]
    words = dict.fromkeys(
        f"{' '.join(kind.split('_'))} on {'/'.join(place)}" for _, kind, *place, _ in others
    )
    return [f"ours: {' and '.join(words)}"] if words else []


def _label(language: str) -> str:
    return f"{RECALL}, {language}" if language else IMAGENET


def data_9(inputs: Inputs) -> pd.DataFrame:
    """Recall@1 in both directions: one row per language, the mean of all last."""
    rows = paper_rows(
        reference("Table 9"),
        row=lambda entry: (entry["series"].removeprefix("lang="),),
        column=lambda entry: (
            ("I-T " if entry["panel"].startswith("image") else "T-I ")
            + format_size(int(entry["x"]))
            + (SCALED if "scaled-up" in entry["panel"] else "")
        ),
    )
    selection = multilingual.with_scaled_up(inputs.cells)
    missing: list[str] = []
    measured: list[str] = []
    for way, direction in DIRECTIONS.items():
        for panel, suffix in selection:
            metrics = multilingual.recall_by_language(panel.done, direction)
            for language, metric in metrics.items():
                rows += [
                    mean | {"row": (language,), "column": f"{way} {format_size(size)}{suffix}"}
                    for size, mean in our_means(
                        panel.done, ["batch_size"], metric, inputs.read_items
                    ).items()
                ]
            if "avg" in metrics:
                measured.append(metrics["avg"])
                missing += points.without_metric(panel, metrics["avg"])
    return make_table(
        rows,
        title="Table 9: XM3600 recall@1 (%), image to text (I-T) and text to image (T-I)",
        head=("language",),
        order=lambda labels: (labels[0] == "avg", labels[0]),
        column_order=lambda column: (
            column.startswith("T-I"),
            column.endswith(SCALED),
            parse_size(column.removesuffix(SCALED).split()[-1]),
        ),
        panels=[panel for panel, _ in selection],
        missing=missing,
        notes=_measured(measured),
        apart=True,
    )


table_2 = PaperTable("table_2", data_2)
table_9 = PaperTable("table_9", data_9)
