"""A study's W&B workspace as code: quality over batch size by loss, and what it was made of.

`study.records.wandb_mirror` mirrors each cell as a run: group = the study's group, id = the cell's
id, config = cell.json. The workspace groups runs that differ in the seed only, by loss and batch
size first, so that every line and point of a panel averages over seeds and over nothing else. Its
filters list the budgets, to choose from. The x axis is a logged column, because W&B's own step does
not go back when an attempt resumes from a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from study.config import Eval, to_dict
from study.config.evals import metric_prefix
from study.records.wandb_mirror import PROJECT
from sweeps.study import Study, StudyError, flatten

SEEN, PAIRS = "examples_seen", "pairs_seen"
BATCH_SIZE, LOSS = "batch_size", "loss.kind"
BUDGETS = ("budget.examples", "budget.pairs", "budget.steps")
COLOURS = {"sigmoid": "#0b3c7d", "softmax": "#e08a00"}  # as in the figures
MAX_PANELS = 20  # of a section: multilingual retrieval alone has 72 keys
# Of the first chip of the host of process 0, which alone mirrors. wandb records no others there.
ACCELERATORS = {
    "utilisation (%)": ("system/tpu.0.dutyCycle", "system/gpu.0.gpu"),
    "TensorCore utilisation (%)": ("system/tpu.0.tensorcoreUtilization",),
    "memory in use (%)": ("system/tpu.0.hbmMemoryUsage", "system/gpu.0.memoryAllocated"),
}


def build(study: Study, *, entity: str | None = None) -> Any:
    """Builds the study's `wandb_workspaces.workspaces.Workspace`, without a network.

    Arguments:
      entity: owner of the project; by default $WANDB_ENTITY. The project is $WANDB_PROJECT.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    flat = [flatten(to_dict(cell)) for cell in study.cells]
    evals = dict.fromkeys(e for cell in study.cells for e in cell.evals)
    qualities = list(dict.fromkeys(key for e in evals for key in _quality_keys(e)))
    measured_often = (e for e in evals if e.every_percent < 100)  # others are points, not curves
    curves = list(dict.fromkeys(key for e in measured_often for key in _quality_keys(e)))
    size = panels.Config(f"cell.{BATCH_SIZE}")
    budgets = {path: values for path in BUDGETS if (values := _values(flat, path))}
    groups = group_fields(flat)

    def curve(title: str, *keys: str, x: str = SEEN, **more: Any) -> Any:
        settings = {"title_x": x.replace("_", " "), "log_x": True, **more}
        return panels.LinePlot(
            title=title,
            x=x,
            y=list(keys),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            **settings,
        )

    def scatter(key: str, x: Any) -> Any:
        return panels.ScatterPlot(title=key, x=x, y=panels.SummaryMetric(key), log_x=True)

    def coordinates(key: str) -> Any:
        axes = [panels.Config(f"cell.{path}") for path in (LOSS, *budgets, BATCH_SIZE)]
        columns = [
            panels.ParallelCoordinatesPlotColumn(metric=axis, log=axis.name != f"cell.{LOSS}")
            for axis in axes
        ]
        quality = panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(key))
        return panels.ParallelCoordinatesPlot(title=key, columns=[*columns, quality])

    sections = {
        "Question": [panels.MarkdownPanel(markdown=_explain(study))],
        "Quality against batch size": [
            *(scatter(key, size) for key in qualities[:MAX_PANELS]),
            *(coordinates(key) for key in qualities[:1]),
        ],
        "Quality against pairs seen": [
            scatter(key, panels.SummaryMetric(PAIRS)) for key in qualities[:MAX_PANELS]
        ],
        "Training curves": [
            curve("training loss", "train/loss", log_y=True),
            curve("mean training loss since the last row", "train/loss_mean", log_y=True),
            curve("largest training loss since the last row", "train/loss_max", log_y=True),
            *(curve(key, key) for key in curves[:MAX_PANELS]),
            curve("learning rate", "train/lr"),
        ],
        "Curves by pairs seen": [
            curve(key, key, x=PAIRS) for key in ("train/loss", *curves[:MAX_PANELS])
        ],
        "t and b": [curve("t", "train/t"), curve("b", "train/b")],
        "Logits": [
            curve(f"logits of {name}", *(f"train/{kind}_logit_{f}" for f in ("mean", "min", "max")))
            for kind, name in (
                *(("pos", "positives"), ("neg", "negatives")),
                ("kept", "negatives that are kept"),
            )
        ],
        "Norms": [
            *(
                curve(f"{of} norm", f"train/{of}_norm", log_y=True)
                for of in ("grad", "update", "param")
            ),
            *(
                curve(f"largest {of} norm since the last row", f"train/{of}_norm_max", log_y=True)
                for of in ("grad", "update")
            ),
        ],
        "Throughput": [
            curve("examples per second", "train/examples_per_s"),
            curve("model FLOPs utilisation, 0 to 1 (accelerators)", "train/mfu"),
            curve("share of the time spent waiting for data, 0 to 1", "train/data_wait_share"),
            curve("replaced examples, if any", "data/replaced_examples"),
            curve("attempt", "attempt"),
        ],
    }
    if any(cell.loss.same_caption != "negative" for cell in study.cells):
        sections["Logits"].append(curve("pairs with equal captions", "train/same_captions"))
    if any(study.execution_of(cell).slice for cell in study.cells):
        sections["Accelerators"] = [
            curve(title, *keys, x="RelativeTime(Process)", log_x=False)
            for title, keys in ACCELERATORS.items()
        ]
    columns = [f"config:{_key(path)}" for path in dict.fromkeys((*groups, *budgets, "seed"))]
    workspace = ws.Workspace(
        entity=os.environ.get("WANDB_ENTITY", "") if entity is None else entity,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=study.name,
        sections=[
            ws.Section(name=name, panels=section, is_open=name not in ("Logits", "Norms"))
            for name, section in sections.items()
            if section
        ],
        settings=ws.WorkspaceSettings(x_axis=SEEN, max_runs=len(study.cells)),
        runset_settings=ws.RunsetSettings(
            filters=_filters(ws, study, budgets),
            groupby=[ws.Config(f"cell.{path}") for path in groups],
            group_colors=_colours(ws, flat),
            order=[ws.Ordering(ws.Config(_key(path))) for path in (LOSS, BATCH_SIZE, "seed")],
            pinned_columns=[
                *("run:displayName", "run:state", *columns, "config:examples.value"),
                *(f"summary:{key}" for key in (SEEN, "attempt", *qualities[:2])),
                "tags:__ALL__",
            ],
        ),
    )
    workspace._internal_name = f"nw-{_view(study)}-v"  # the form of W&B's own names
    return workspace


def to_json(workspace: Any) -> dict[str, Any]:
    """The workspace as W&B stores it."""
    return workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")


def save(study: Study) -> str:
    """Saves the study's view, over the last one, and returns its URL.

    The view belongs to $WANDB_ENTITY, or the API key's default entity.

    Raises:
      StudyError: W&B refused it. The message names the error's class only, because W&B's own
        text may quote an API key.
    """
    try:
        import wandb
        from wandb_workspaces.workspaces import internal

        entity = os.environ.get("WANDB_ENTITY") or str(wandb.Api().default_entity)
        workspace = build(study, entity=entity)
        try:
            view = internal.get_view_dict(entity, workspace.project, _view(study))
        except ValueError:  # there is none
            pass
        else:
            workspace._internal_id = view["id"]
        workspace.save()
    except Exception as error:
        raise StudyError(
            f"wandb did not save the workspace ({type(error).__name__}); try again, or "
            "`study dash --out FILE` writes it without a network"
        ) from None
    return workspace.url


def group_fields(flat: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted paths of fields that divide cells into groups which differ in the seed only.

    Loss and batch size come first, then as few others as do it.
    """
    every = dict.fromkeys(path for fields in flat for path in fields)

    def count(chosen: Sequence[str]) -> int:
        return len({json.dumps([fields.get(path) for path in chosen]) for fields in flat})

    paths = [path for path in every if path not in ("seed", "evals") and count([path]) > 1]
    chosen = [LOSS, BATCH_SIZE]
    while count(chosen) < count(paths):
        chosen.append(max(paths, key=lambda path: count([*chosen, path])))
    return chosen


def _view(study: Study) -> str:
    """The name of the study's view in a URL: the same on every machine."""
    return hashlib.sha256(study.name.encode()).hexdigest()[:11]


def _key(path: str) -> str:
    """W&B's key of a cell's field: it stores the value of the config `cell` under "value"."""
    return f"cell.value.{path}"


def _values(flat: Sequence[dict[str, Any]], path: str) -> list[Any]:
    return sorted({fields[path] for fields in flat if fields.get(path) is not None})


def _explain(study: Study) -> str:
    return (
        f"**{study.question}**\n\nA line or point is the mean over seeds of cells that differ in "
        "nothing else; the band is their range. Blue is the sigmoid loss and orange the softmax "
        "loss, darker at larger batch sizes. To compare at one budget, keep one value in the "
        "filter on it. `study dash` writes this view again: save your own changes as another view."
    )


def _filters(ws: Any, study: Study, budgets: dict[str, list[Any]]) -> Any:
    """Selects the runs of the study's group, in a shared group its own cells, of all budgets."""
    filters = [ws.Metric("group") == study.group]
    if study.group != study.name:
        filters.append(ws.Metric("name").isin([cell.id for cell in study.cells]))
    by_budget = [ws.Config(_key(path)).isin(values) for path, values in budgets.items()]
    return ws.And(*filters, *([ws.Or(*by_budget)] if len(by_budget) > 1 else by_budget))


def _colours(ws: Any, flat: Sequence[dict[str, Any]]) -> dict[object, object]:
    """The colours of groups, which those within them inherit: hue by loss, shade by batch size."""
    sizes = _values(flat, BATCH_SIZE)
    colours: dict[object, object] = {}
    for loss in dict.fromkeys(fields[LOSS] for fields in flat):
        colours[loss] = COLOURS[loss]
        for rank, size in enumerate(reversed(sizes)):
            path = ws.GroupPath(loss, str(size))
            colours[path] = _lighten(COLOURS[loss], 0.7 * rank / len(sizes))
    return colours


def _lighten(colour: str, share: float) -> str:
    """A colour "#rrggbb" with this share of white."""
    parts = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def _quality_keys(evaluation: Eval) -> list[str]:
    prefix = metric_prefix(evaluation)
    match evaluation.kind:
        case "zero_shot" | "few_shot":
            return [f"{prefix}/top1"]
        case "retrieval" | "multilingual_retrieval":
            return [f"{prefix}/image_to_text_r1", f"{prefix}/text_to_image_r1"]
    return [f"{prefix}/softmax"]  # the loss that cells of both losses record
