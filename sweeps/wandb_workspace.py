"""A study's W&B workspace as code: the same panels for every study.

`study.records.wandb_mirror` mirrors each cell as a run: group = the study's group, id = the cell's
id, config = cell.json. The x axis is the logged column `examples_seen`, because W&B's own step does
not go back when an attempt resumes from a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from study.config import Eval
from study.records.wandb_mirror import PROJECT
from sweeps.study import Study, StudyError

SEEN, BATCH_SIZE, LOSS = "examples_seen", "cell.batch_size", "cell.loss.kind"
MAX_QUALITY_PANELS = 20  # multilingual retrieval alone has 72 keys


def build(study: Study, *, entity: str | None = None) -> Any:
    """Builds the study's `wandb_workspaces.workspaces.Workspace`, without a network.

    Arguments:
      entity: owner of the project; by default $WANDB_ENTITY. The project is $WANDB_PROJECT.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    size, loss = panels.Config(BATCH_SIZE), panels.Config(LOSS)
    evals = dict.fromkeys(e for cell in study.cells for e in cell.evals)
    qualities = list(dict.fromkeys(key for e in evals for key in _quality_keys(e)))
    qualities = qualities[:MAX_QUALITY_PANELS]

    def curve(title: str, keys: Sequence[str], **more: Any) -> Any:
        settings = {"x": SEEN, "title_x": "examples seen", "log_x": True, "groupby": size, **more}
        return panels.LinePlot(title=title, y=list(keys), **settings)

    def against_size(key: str) -> Any:
        return panels.ScatterPlot(title=key, x=size, y=panels.SummaryMetric(key), log_x=True)

    logits = [
        curve(f"logits of {name}", [f"train/{kind}_logit_{of}" for of in ("mean", "min", "max")])
        for kind, name in (("pos", "positives"), ("neg", "negatives"), ("kept", "kept negatives"))
    ]
    sections = {
        "Quality against batch size": [against_size(key) for key in qualities],
        "Training curves by batch size": [
            curve("training loss", ["train/loss"], log_y=True),
            curve("mean training loss since the last row", ["train/loss_mean"], log_y=True),
            curve("largest training loss since the last row", ["train/loss_max"], log_y=True),
            curve("loss on a fixed batch", [], metric_regex="^eval/val_loss/"),
            *(curve(key, [key]) for key in qualities[:3]),
            curve("training loss by loss", ["train/loss"], groupby=loss, log_y=True),
            curve("learning rate", ["train/lr"]),
        ],
        "t and b": [curve("t", ["train/t"]), curve("b", ["train/b"])],
        "Logits": logits,
        "Norms": [
            curve(f"{of} norm", [f"train/{of}_norm"], log_y=True)
            for of in ("grad", "update", "param")
        ]
        + [
            curve(f"largest {of} norm since the last row", [f"train/{of}_norm_max"], log_y=True)
            for of in ("grad", "update")
        ],
        "Throughput": [
            curve("examples per second", ["train/examples_per_s"]),
            curve("attempt", ["attempt"]),
        ],
        "Data wait": [
            curve("share of the time spent waiting for data", ["train/data_wait_share"]),
            curve("replaced examples", ["data/replaced_examples"]),
        ],
    }
    return ws.Workspace(
        entity=os.environ.get("WANDB_ENTITY", "") if entity is None else entity,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=study.name,
        sections=[
            ws.Section(name=name, panels=section, is_open=i < 2)
            for i, (name, section) in enumerate(sections.items())
        ],
        settings=ws.WorkspaceSettings(x_axis=SEEN, max_runs=len(study.cells)),
        runset_settings=ws.RunsetSettings(filters=_filters(ws, study), pinned_columns=[]),
    )


def to_json(workspace: Any) -> dict[str, Any]:
    """The workspace as W&B stores it."""
    return workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")


def save(study: Study) -> str:
    """Saves the workspace, by default under the API key's default entity; returns its URL.

    Raises:
      StudyError: W&B refused it. The message names the error's class only, because W&B's own
        text may quote an API key.
    """
    try:
        import wandb

        entity = os.environ.get("WANDB_ENTITY") or str(wandb.Api().default_entity)
        workspace = build(study, entity=entity)
        workspace.save()
    except Exception as error:
        raise StudyError(
            f"wandb did not save the workspace ({type(error).__name__}); try again, or "
            "`study dash --out FILE` writes it without a network"
        ) from None
    return workspace.url


def _filters(ws: Any, study: Study) -> Any:
    """Selects the runs of the study's group, and in a shared group those of its own cells."""
    group = ws.Metric("group") == study.group
    if study.group == study.name:
        return ws.And(group)
    return ws.And(group, ws.Metric("name").isin([cell.id for cell in study.cells]))


def _quality_keys(evaluation: Eval) -> list[str]:
    dataset = getattr(evaluation, "dataset", None)
    head = "/".join(["eval", evaluation.kind, *([dataset] if dataset else []), evaluation.split])
    match evaluation.kind:
        case "zero_shot" | "few_shot":
            return [f"{head}/top1"]
        case "retrieval" | "multilingual_retrieval":
            return [f"{head}/image_to_text_r1", f"{head}/text_to_image_r1"]
    return []
