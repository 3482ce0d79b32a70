"""Table 2: multilingual pre-training by batch size (paper Sec. 4.3; Fig. 2 right).

Cells, by their fields: those of Fig. 2 right, sigmoid with all pairs and a multilingual evaluation
in `evals`.
"""

from __future__ import annotations

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.paper import fig_2, fig_8
from analysis.figures.plot import points, style
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import size_of, sources
from analysis.figures.tables.table import Entry, Table
from analysis.stats.intervals import by_group, pooled_means

IMAGENET, RECALL = "ImageNet 0-shot", "XM text to image"
LANGUAGES = ("avg", "de", "en", "hi", "ru", "zh")


def table(inputs: Inputs) -> Table:
    printed = paper.reference("Table 2")
    entries = [
        Entry(
            row=_row(row["series"]),
            column=style.short(int(row["x"])),
            source="paper",
            value=row["value"],
        )
        for _, row in printed.iterrows()
    ]
    panel = inputs.chosen(fig_2.by_language)
    done = panel.done
    metrics = {(IMAGENET,): inputs.quality_of(done)}
    recall = fig_8.languages(done, "text_to_image")
    metrics |= {(f"{RECALL}, {name}",): recall[name] for name in LANGUAGES if name in recall}
    missing = panel.missing() if len(panel.cells) else []
    for row, metric in metrics.items():
        means = pooled_means(by_group(done, ["batch_size"], metric))
        entries += [
            tables.ours(row, style.short(int(size)), means.mean(size), n)
            for size, n in means.counts.items()
        ]
        missing += points.unmeasured(panel, metric)
    return tables.build(
        title="Table 2: multilingual SigLIP by batch size (%, 30B examples in the paper)",
        head=("",),
        entries=entries,
        columns=size_of,
        missing=missing,
        provenance=sources([panel]),
    )


def _row(series: str) -> tuple[str]:
    _, _, language = series.partition("lang=")
    return (f"{RECALL}, {language}" if language else IMAGENET,)
