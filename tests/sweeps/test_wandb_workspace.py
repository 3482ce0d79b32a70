"""The wandb workspace of a study: as code, true to what runs log, and made without a network."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures.plot.style import STYLES
from analysis.wandb.offline import read_file, read_runs
from study.config import Budget, Execution, Retrieval, Softmax, ValLoss, ZeroShot, replace, to_dict
from study.config.hardware import get_chip
from study.losses import LogitStats
from study.training import loop, throughput
from study.training.loader import TrainLoader
from study.training.step import Metrics
from sweeps import wandb_workspace as dash
from sweeps.cli import dash as cli_dash
from sweeps.cli import panels as cli_panels
from sweeps.registry import load_study
from sweeps.study import Study, StudyError, flatten
from tests.sweeps.runner.test_secrets import CELL, KEY, TOKEN, planted, written  # noqa: F401

# wandb-workspaces 0.4.13 declares its models by Pydantic V1's validators. Remove with its first
# release that does not, at the latest with Pydantic 3, which will not load this one.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")

SECTIONS = [
    *("Question", "Quality against batch size", "Quality against pairs seen", "Training curves"),
    *("Curves by pairs seen", "t and b", "Logits", "Norms", "Throughput"),
]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def spec_of(study: Study) -> dict:
    return dash.to_json(dash.build(study))


def sections(spec: dict) -> dict[str, list[dict]]:
    found = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [p["config"] for p in section["panels"]] for section in found}


def keys(spec: dict) -> set[str]:
    """Every key of a run that the workspace reads: "SECTION:NAME", history's without a section."""
    found: set[str] = set()

    def walk(value) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            if value.keys() >= {"section", "name"}:
                found.add(f"{value['section']}:{value['name']}")
            found.update(value.get("metrics", []))
            found.update(value[k] for k in ("xAxis", "yAxis", "accessor") if k in value)
            found.update(value.get("columnPinned", {}))
            for item in value.values():
                walk(item)

    walk(spec["spec"]["section"]["panelBankConfig"]["sections"])
    walk(spec["spec"]["section"]["runSets"])
    return found


def test_every_section_is_there_and_full_without_a_network(no_network, tmp_path, capsys):
    out = tmp_path / "new" / "dash.json"
    assert cli_dash.dash("glyphs-bias", out=str(out)) == 0
    found = sections(json.loads(out.read_text()))
    assert list(found) == SECTIONS and all(found.values())
    assert cli_dash.dash("glyphs-bias", out=None) == 0
    printed = capsys.readouterr()
    assert sections(json.loads(printed.out[printed.out.index("{") :])).keys() == found.keys()
    assert "no API key" in printed.err


def test_the_panels_show_all_that_training_logs():
    logged = {f"train/{n}" for n in (*Metrics._fields, *LogitStats._fields) if n != "logits"}
    compared, of_paper = "train/same_captions", load_study("table-8")
    shown = keys(spec_of(of_paper))
    assert (logged | set(throughput.TIMING_METRICS)) - shown == {compared}
    masked = replace(of_paper.cells[0], "loss.same_caption", "masked")
    assert compared in keys(spec_of(dataclasses.replace(of_paper, cells=(masked,), matched=())))


PAGE = Path(__file__).parents[2] / "results" / "glyphs" / "demo" / "workspace.md"


def test_the_page_of_panels_names_every_key_and_is_that_of_the_present_workspace():
    spec = spec_of(load_study("demo"))
    panels = cli_panels.read_panels(spec)
    named = {key for panel in panels for key in (*panel.keys, panel.x) if key}
    panels_alone = {"spec": {"section": spec["spec"]["section"] | {"runSets": []}}}
    assert named == keys(panels_alone) - {"_step"}  # W&B's own count, of a section's settings

    def columns(text):
        return [line.split(" | ")[:4] for line in text.splitlines() if line.startswith("|")]

    empty = cli_panels.describe("demo", spec, pd.DataFrame(), pd.DataFrame())
    assert columns(PAGE.read_text()) == columns(empty)
    assert "study dash demo --panels" in PAGE.read_text()


def test_the_page_of_panels_has_the_values_that_a_panel_plots():
    spec = spec_of(load_study("demo"))
    none = float("nan")
    rows = pd.DataFrame(
        {
            "id": ["a", "a", "b", "b", "c"],
            "train/t": [10.0, 12.0, 9.0, 20.0, none],
            "eval/zero_shot/test_font/top1": [none, 4.0, none, 5.0, none],
        }
    )
    cells = pd.DataFrame({"batch_size": [16, 4096, 16], "loss.kind": ["sigmoid", "softmax", None]})
    lines = cli_panels.describe("demo", spec, cells, rows).splitlines()
    assert "| t | lines | `train/t` | `examples_seen` | 2 | 9 to 10 | 12 to 20 |" in lines
    top1 = "eval/zero_shot/test_font/top1"
    assert f"| {top1} | points | `summary:{top1}` | `batch_size` | 2 |  | 4 to 5 |" in lines
    assert any("loss.kind` |  | 2 | sigmoid, softmax | sigmoid, softmax |" in x for x in lines)
    assert any("batch_size` |  | 3 | 16 to 4,096 | 16 to 4,096 |" in x for x in lines)
    assert any("`train/mfu` | `examples_seen` | 0 |  |  |" in line for line in lines)


def test_the_workspace_is_printed_as_json_without_a_network(no_network, capsys):
    assert cli_dash.dash("demo", as_json=True) == 0
    out, err = capsys.readouterr()
    printed = cli_panels.read_panels(json.loads(out))  # ids of panels differ each time
    assert printed == cli_panels.read_panels(spec_of(load_study("demo"))) and err == ""
    with pytest.raises(StudyError, match="one of --out, --panels and --json"):
        cli_dash.dash("demo", as_json=True, panels=True)


@pytest.mark.slow
def test_a_run_logs_every_key_of_the_workspace_and_no_secret(
    planted,  # noqa: F811
    small_glyphs,
    tmp_path,
    monkeypatch,
    caplog,
    capfd,
):
    """A cell that is stopped and goes on, on what passes for an accelerator, with bad examples."""
    monkeypatch.setattr(throughput, "get_chip", lambda kind: get_chip("TPU v4"))
    metrics = TrainLoader.metrics

    def replaced_one(loader, step):
        loader.replaced += 1
        return metrics(loader, step)

    monkeypatch.setattr(TrainLoader, "metrics", replaced_one)
    split = "test_font"
    cell = dataclasses.replace(
        CELL,
        evals=(
            ZeroShot(split=split, every_percent=50),
            Retrieval(split=split, examples=64),
            ValLoss(split="val_font", examples=64),
        ),
    )
    budget = Budget(examples=2 * cell.examples)
    others = (dataclasses.replace(cell, loss=Softmax()), dataclasses.replace(cell, budget=budget))
    study = Study(name="s", question="Q?", cells=(cell, *others))
    execution = Execution(data_root=str(small_glyphs.parent), chunk_examples=64)
    folder = tmp_path / "s" / cell.id

    def train(stop=False):
        name = study.run_names[cell.id]
        loop.train(
            cell, execution, folder=folder, group="s", run_name=name, should_stop=lambda: stop
        )

    caplog.set_level(logging.DEBUG)
    with pytest.raises(loop.Stopped):
        train(stop=True)
    (first,) = folder.glob("wandb/offline-run-*/*.wandb")
    stopped = read_file(first)
    assert stopped.exit_code is None  # it will go on
    train()
    (run,) = read_runs(tmp_path)
    assert (run.state, run.history[-1]["attempt"]) == ("finished", 2)
    later = [row["_step"] for row in run.history if row["attempt"] == 2]
    assert later[0] > stopped.history[-1]["_step"]
    assert later == list(range(later[0], later[0] + len(later)))
    everything = written(tmp_path) + (caplog.text + "".join(capfd.readouterr())).encode()
    assert not any(secret.encode() in everything for secret in (KEY, TOKEN))

    history = {key for row in run.history for key in row}
    config = {f"cell.value.{key}" for key in flatten(to_dict(cell))}
    config |= {f"{key}.value" for key in run.config}
    logged = {
        *history,
        *(f"summary:{key}" for key in history),
        *(f"config:{key}" for key in config),
        *("run:group", "run:displayName", "run:state", "tags:__ALL__"),
    }
    assert keys(spec_of(study)) - logged == set()


def test_wandb_has_the_metrics_of_accelerators():
    """Its reader of offline runs names all that its monitors of GPUs and TPUs record."""
    import wandb

    core = (Path(wandb.__file__).parent / "bin" / "wandb-core").read_bytes()
    named = keys(spec_of(load_study("table-1"))) - keys(spec_of(load_study("demo")))
    system = {key.removeprefix("system/") for key in named if key.startswith("system/")}
    assert len(system) == 5
    for name in system:
        pattern = re.sub(r"\\\.0", r"\\.\\d+", re.escape(name))
        assert f"^{pattern}(".encode() in core, name


@pytest.mark.parametrize("name", ["demo", "glyphs-noise", "table-8", "paper"])
def test_cells_of_a_group_differ_in_the_seed_only(name):
    study = load_study(name)
    (run_set,) = spec_of(study)["spec"]["section"]["runSets"]
    paths = [key["name"].removeprefix("cell.value.") for key in run_set["grouping"]]
    assert paths[:2] == ["loss.kind", "batch_size"]
    groups = defaultdict(list)
    for cell in study.cells:
        fields = flatten(to_dict(cell))
        groups[str([fields.get(path) for path in paths])].append(cell)
    for cells in groups.values():
        assert len({dataclasses.replace(cell, seed=0, evals=()) for cell in cells}) == 1
        assert len({cell.seed for cell in cells}) == len(cells)


def test_colours_are_those_of_the_figures_and_darker_at_larger_batch_sizes():
    colours = spec_of(load_study("demo"))["spec"]["section"]["customRunColors"]
    assert {key: STYLES[key].colour for key in dash.COLOURS} == dash.COLOURS
    of_sigmoid = [c for key, c in colours.items() if "sigmoid" in key]
    assert of_sigmoid[:2] == [dash.COLOURS["sigmoid"]] * 2  # the loss, the largest batch
    blue = [int(colour[1:], 16) for colour in of_sigmoid[1:]]
    assert blue == sorted(blue) and len(set(blue)) == len(blue)
    assert len(blue) == len({cell.batch_size for cell in load_study("demo").cells})


def test_wandb_reads_the_workspace_as_it_was_written():
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces import internal

    for name in ("table-1", "glyphs-composition"):
        made = spec_of(load_study(name))
        read = internal.View.model_validate(json.loads(json.dumps(made)))
        assert dash.to_json(ws.Workspace._from_model(read)) == made


def test_filters_list_budgets_and_of_a_shared_folder_its_own_cells(no_network):
    for name, shared in (("fig-3", True), ("demo", False)):
        study = load_study(name)
        (run_set,) = spec_of(study)["spec"]["section"]["runSets"]
        filters = {f["key"]["name"]: f["value"] for f in run_set["filters"]["filters"]}
        assert filters["group"] == study.group
        assert (set(filters.get("name", [])) == {c.id for c in study.cells}) == shared
        budgets = {cell.budget.examples for cell in study.cells}
        assert filters["cell.value.budget.examples"] == sorted(budgets)


class FakeServer:
    """wandb's server as far as views go: `execute` answers what wandb-workspaces asks."""

    def __init__(self):
        self.views = []

    def execute(self, api, query, variables):
        if "upsertView" not in query:
            found = [v for v in self.views if v["name"] == variables["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}
        view = {**variables, "id": variables.get("id") or f"id-{len(self.views)}"}
        self.views = [v for v in self.views if v["id"] != view["id"]] + [view]
        return {"upsertView": {"view": view}}


def test_a_study_has_one_view_however_often_it_is_saved(monkeypatch):
    import wandb
    from wandb_workspaces.workspaces import interface, internal

    server = FakeServer()
    monkeypatch.setattr(internal, "execute_graphql", server.execute)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.example")
    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"default_entity": "lab"}))
    demo, changed = load_study("demo"), load_study("demo")
    object.__setattr__(changed, "question", "Another?")
    url = dash.save(demo)
    assert url.startswith("https://wandb.example/lab/batch-size-study?nw=")
    assert dash.save(changed) == url
    assert len(server.views) == 1 and "Another?" in server.views[0]["spec"]
    assert dash.save(load_study("demo-lr")) != url and len(server.views) == 2


def test_a_wandb_that_refuses_is_one_line_without_what_it_said(monkeypatch):
    import wandb

    def broken(*_, **__):
        raise wandb.Error("cannot log in with key 0123456789abcdef")

    monkeypatch.setattr(wandb, "Api", broken)
    with pytest.raises(StudyError) as caught:
        dash.save(load_study("demo"))
    assert "0123456789abcdef" not in str(caught.value) and "--out" in str(caught.value)
