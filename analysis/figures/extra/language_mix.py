"""English alone against many languages at equal examples, by batch size.

Cells: see `analysis.select.multilingual.by_mix`.
"""

from __future__ import annotations

import functools

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import ORDERED_STYLES
from analysis.records.scores import Score
from analysis.select import multilingual, panels
from analysis.select.multilingual import ENGLISH, MIXES
from analysis.select.panels import Panel
from analysis.stats.intervals import ASSUMPTION, by_group, group_means, paired_differences

EN, MEAN, COST = "English", "mean over languages", "cost to English"
FROM_SCRATCH = ", from scratch"
TOWERS = {multilingual.FROZEN: "", multilingual.SCRATCH: FROM_SCRATCH}


def data(inputs: Inputs) -> pd.DataFrame:
    """See `points`; x is the batch size, series the languages of the training examples.

    Panel "cost to English" is recall in English after English alone minus that after the series,
    paired by seed; its "simultaneous" intervals are for all its points. The names of panels of
    towers from scratch end with `FROM_SCRATCH`.
    """
    rows: list[Row] = []
    used: list[Panel] = []
    missing: list[str] = []
    for image, tower in TOWERS.items():
        panel = inputs.select(functools.partial(multilingual.by_mix, image=image))
        done = panel.done
        recall = multilingual.recall_by_language(done)
        if not len(done) or not {"en", "avg"} <= {*recall}:
            continue
        used.append(panel)
        missing += points.without_metric(panel, recall["avg"])
        named = done.assign(series=done["data.split"].map(MIXES), x=done["batch_size"])
        rows += points.our_points(named, EN + tower, recall["en"], inputs.read_items)
        rows += points.our_points(named, MEAN + tower, recall["avg"], inputs.read_items)
        rows += _costs(done, recall["en"], inputs, COST + tower)
    if not used:
        return points.make_table([])
    title = points.describe_panel(used[0]) + panels.describe_steps(used[0].cells)
    return points.make_table(rows, panels=used, missing=missing, title=title)


def _costs(done: pd.DataFrame, metric: str, inputs: Inputs, panel: str) -> list[Row]:
    rows: list[Row] = []
    groups: dict[tuple[str, int], list[Score]] = {}
    for mix in (mix for mix in MIXES if mix != ENGLISH):
        pairs = paired_differences(done, metric, levels=(ENGLISH, mix), axis="data.split")
        common = {"panel": panel, "source": "ours", "series": MIXES[mix], "metric": metric}
        rows += [
            common
            | {"kind": "seed", "x": int(row["batch_size"]), "value": float(row["difference"])}
            | {"seed": int(row["seed"])}
            for _, row in pairs.iterrows()
        ]
        groups |= {
            (mix, size): values
            for size, values in by_group(pairs, ["batch_size"], "difference").items()
        }
    means = group_means(groups, read_items=inputs.read_items)
    for mix, size in sorted(means.means):
        for kind, comparisons in (("mean", 1), ("simultaneous", len(means.means))):
            cost = means.contrast({(mix, size): 1.0}, comparisons=comparisons)
            rows.append(
                {"panel": panel, "source": "ours", "series": MIXES[mix], "metric": metric}
                | {"kind": kind, "x": int(size), "n": means.counts[mix, size]}
                | {"value": cost.estimate, "low": cost.low, "high": cost.high}
            )
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """Recall in English and its mean over languages by what was trained on, and the difference."""
    looks = dict(zip(MIXES.values(), ORDERED_STYLES, strict=False))
    every_name = [name + tower for tower in TOWERS.values() for name in (EN, MEAN, COST)]
    names = [name for name in every_name if (df["panel"] == name).any()]
    columns = layout.arrange(len(names), wide=3)
    fig, every = layout.make_figure(
        df,
        title="What languages cost English",
        caption=[
            "Text-to-image recall@1 at equal examples. Cost: English only minus the others, pairs "
            f"share a seed. Dots: {points.count_seeds(df[df['panel'] == names[0]])}; bars: 95 % "
            f"interval of the mean, {ASSUMPTION}; thin: simultaneous for all points of a tower "
            f"(Bonferroni). {style.CUT}"
        ],
        columns=columns,
        heights=1.9,
        legend=[looks[name].handle(name) for name in looks if (df["series"] == name).any()],
    )
    for axes, name in zip(every, names, strict=True):
        part = df[df["panel"] == name]
        costs = name.startswith(COST)
        if costs:
            axes.axhline(0, color="black", linewidth=0.8)
        for series in dict.fromkeys(part["series"]):
            mine, look = part[part["series"] == series], looks[series]
            style.dots(axes, mine, look, size=3.0)
            style.line(axes, style.means(mine).sort_values("x"), look)
            style.bars(axes, style.means(mine), look)
            for row in mine[mine["kind"] == "simultaneous"].itertuples():
                ends = [row.low, row.high]
                axes.plot([row.x] * 2, ends, color=look.colour, linewidth=0.5, alpha=0.7)
        if costs:
            style.limit_bars(axes, part["value"])
        axes.set_title(name, loc="left")
        axes.set_ylabel("points" if costs else "recall@1 (%)")
        style.batch_axis(axes, sorted({int(x) for x in part["x"]}))
    return fig


language_mix = Plot("language_mix", data, draw)
