"""Table 6: are the defaults good at every batch size? (paper App. C)

Cells, by their fields: sigmoid with all pairs, `model.image.kind` = vit, that differ in
`batch_size`, `optimizer.learning_rate` and `optimizer.weight_decay` and nothing else; more than one
setting at some batch size. The default is the paper's, 0.001 and 0.0001.
"""

from __future__ import annotations

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.plot import points, style
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import size_of, sources
from analysis.figures.tables.table import Entry, Labels, Table
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import by_group, pooled_means

SETTING = ("optimizer.learning_rate", "optimizer.weight_decay")
DEFAULT = (1e-3, 1e-4)
BEST, RATE, DECAY = "best of the sweep (%)", "best learning rate", "best weight decay"
QUALITY = {
    "default (lr 0.001, wd 0.0001)": "default (%)",
    "best of 9 in the sweep": BEST,
}


def table(inputs: Inputs) -> Table:
    entries = []
    for _, row in paper.reference("Table 6").iterrows():
        accuracy = row["metric"] == "ImageNet 0-shot accuracy"
        entries.append(
            Entry(
                row=(style.short(int(row["x"])),),
                column=QUALITY[row["series"]] if accuracy else row["metric"],
                source="paper",
                value=row["value"],
                digits=1 if accuracy else None,
            )
        )
    cells = panels.plain(with_fields(inputs.cells, SETTING))
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    own &= (cells["model.image.kind"] == "vit") & ~panels.multilingual(cells)
    panel = panels.select(cells[own], ("batch_size", *SETTING))
    used = (
        len(panel.cells.drop_duplicates(["batch_size", *SETTING]))
        > panel.cells["batch_size"].nunique()
    )
    metric = inputs.quality_of(panel.cells)
    if used:
        entries += _ours(panel, metric)
    return tables.build(
        title="Table 6: the defaults and the best of a sweep, SigLIP from scratch, 3B examples",
        head=("batch size",),
        entries=entries,
        rows=lambda row: size_of(row[0]),
        columns=[*QUALITY.values(), RATE, DECAY],
        notes=[
            "Tables 5 and 7 of the paper print other numbers for its defaults at 8k and 32k: 68.6, "
            "and 69.9 or 70.1"
        ],
        missing=[*panel.missing(), *points.unmeasured(panel, metric)] if used else [],
        provenance=sources([panel] if used else []),
    )


def _ours(panel: panels.Panel, metric: str) -> list[Entry]:
    means = pooled_means(by_group(panel.done, ["batch_size", *SETTING], metric))
    entries = []
    for size in sorted({size for size, *_ in means.means}):
        row: Labels = (style.short(int(size)),)
        settings = {key[1:]: value for key, value in means.means.items() if key[0] == size}
        if len(settings) < 2:
            continue
        if DEFAULT in settings:
            key = (size, *DEFAULT)
            entries.append(tables.ours(row, "default (%)", means.mean(key), means.counts[key]))
        best = max(settings, key=lambda setting: settings[setting])
        key = (size, *best)
        entries.append(tables.ours(row, BEST, means.mean(key), means.counts[key]))
        entries += [
            Entry(row=row, column=column, source="ours", value=value, digits=None)
            for column, value in zip((RATE, DECAY), best, strict=True)
        ]
    return entries
