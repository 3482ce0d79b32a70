"""A study's wandb workspace as code: the same panels for every study, filled by its runs.

Runs are mirrored by `study.records.wandb_mirror`: group = the study's folder of records, id = the
cell's, config = the content of cell.json, and `examples_seen` as an ordinary column, since attempts
go back in steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from study.config.cell import Eval
from study.records.wandb_mirror import PROJECT
from sweeps.study import Study, StudyError

SEEN, BATCH_SIZE, LOSS = "examples_seen", "cell.batch_size", "cell.loss.kind"
FEW = 20  # panels of quality at most: 36 languages twice would be a wall of them


def quality(study: Study) -> list[str]:
    """The record keys of quality that the study's cells end with, the most common first."""
    keys: dict[str, None] = {}
    for evaluation in dict.fromkeys(e for cell in study.cells for e in cell.evals):
        keys |= dict.fromkeys(_keys(evaluation))
    return list(keys)[:FEW]


def workspace(study: Study, *, entity: str, project: str) -> Any:
    """The `wandb_workspaces.workspaces.Workspace`, not saved yet; needs no network."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    size, loss = panels.Config(BATCH_SIZE), panels.Config(LOSS)
    qualities = quality(study)

    def curve(title: str, keys: Sequence[str], **more: Any) -> Any:
        settings = {"x": SEEN, "title_x": "examples seen", "log_x": True, "groupby": size, **more}
        return panels.LinePlot(title=title, y=list(keys), **settings)

    def against_size(key: str) -> Any:
        return panels.ScatterPlot(title=key, x=size, y=panels.SummaryMetric(key), log_x=True)

    logits = [
        curve(f"logits of {words}", [f"train/{kind}_logit_{of}" for of in ("mean", "min", "max")])
        for kind, words in (("pos", "positives"), ("neg", "negatives"), ("kept", "kept negatives"))
    ]
    sections = {
        "Quality against batch size": [against_size(key) for key in qualities],
        "Training curves by batch size": [
            curve("training loss", ["train/loss"], log_y=True),
            curve("mean training loss since the last row", ["train/loss_mean"], log_y=True),
            curve("largest training loss since the last row", ["train/loss_max"], log_y=True),
            curve("loss on a fixed batch", [], metric_regex="^eval/fixed_loss/"),
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
        "Data wait": [curve("waiting for data", [], metric_regex="^data/")],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=study.name,
        sections=[
            ws.Section(name=name, panels=inside, is_open=i < 2)
            for i, (name, inside) in enumerate(sections.items())
        ],
        settings=ws.WorkspaceSettings(x_axis=SEEN, max_runs=len(study.cells)),
        runset_settings=ws.RunsetSettings(filters=_filters(ws, study), pinned_columns=[]),
    )


def spec(made: Any) -> dict[str, Any]:
    """The workspace as wandb stores it."""
    return made._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")


def place() -> tuple[str, str]:
    """Entity and project, as wandb's own variables say."""
    return os.environ.get("WANDB_ENTITY", ""), os.environ.get("WANDB_PROJECT", PROJECT)


def save(study: Study) -> str:
    """Saves the workspace under the default entity of the key; returns its address.

    Raises:
      StudyError: wandb did not take it. The message holds nothing of wandb's but the kind.
    """
    entity, project = place()
    try:
        import wandb

        made = workspace(study, entity=entity or str(wandb.Api().default_entity), project=project)
        made.save()
    except Exception as error:  # a message of wandb's could quote a key or an address
        raise StudyError(
            f"wandb did not save the workspace ({type(error).__name__}); try again, or "
            "`study dash --out FILE` writes it without a network"
        ) from None
    return made.url


def _filters(ws: Any, study: Study) -> list[Any]:
    """Runs of its folder; of a shared folder, its cells only."""
    group = ws.Metric("group") == study.group
    if study.group == study.name:
        return [group]
    return [group, ws.Metric("name").isin([cell.id for cell in study.cells])]


def _keys(evaluation: Eval) -> list[str]:
    dataset = getattr(evaluation, "dataset", None)
    head = "/".join(["eval", evaluation.kind, *([dataset] if dataset else []), evaluation.split])
    match evaluation.kind:
        case "zero_shot" | "few_shot":
            return [f"{head}/top1"]
        case "retrieval" | "multilingual":
            return [f"{head}/image_to_text_r1", f"{head}/text_to_image_r1"]
    return []
