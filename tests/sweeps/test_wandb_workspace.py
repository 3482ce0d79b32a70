"""The wandb workspace of a study: as code, complete, and made without a network."""

from __future__ import annotations

import json

import pytest

from sweeps import wandb_workspace as dash
from sweeps.cli import dash as cli_dash
from sweeps.registry import load_study
from sweeps.study import StudyError

# wandb-workspaces 0.4.13 declares its models by Pydantic V1's validators. Remove with its first
# release that does not, at the latest with Pydantic 3, which will not load this one.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")

SECTIONS = [
    *("Quality against batch size", "Training curves by batch size", "t and b", "Logits"),
    *("Norms", "Throughput", "Data wait"),
]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def sections(spec: dict) -> dict[str, list[dict]]:
    found = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [p["config"] for p in section["panels"]] for section in found}


def test_every_section_is_there_and_full_without_a_network(no_network, tmp_path, capsys):
    out = tmp_path / "new" / "dash.json"
    assert cli_dash.dash("glyphs-bias", out=str(out)) == 0
    found = sections(json.loads(out.read_text()))
    assert list(found) == SECTIONS and all(found.values())
    assert {p["xAxis"] for p in found["Quality against batch size"]} == {
        "config:cell.value.batch_size"
    }
    assert "summary:eval/zero_shot/test_font/top1" in {
        p["yAxis"] for p in found["Quality against batch size"]
    }
    curves = [p for name in SECTIONS[1:] for p in found[name]]
    assert {p["xAxis"] for p in curves} == {"examples_seen"}
    assert cli_dash.dash("glyphs-bias", out=None) == 0
    printed = capsys.readouterr()
    assert sections(json.loads(printed.out[printed.out.index("{") :])).keys() == found.keys()
    assert "no API key" in printed.err


def test_the_panels_show_what_records_are_made_of():
    """Every column that training logs by itself is on some panel."""
    from study.losses import LogitStats
    from study.training.step import Metrics

    spec = dash.to_json(dash.build(load_study("table-8")))
    shown = {key for panels in sections(spec).values() for p in panels for key in
             p.get("metrics", [])}  # fmt: skip
    logged = {f"train/{n}" for n in (*Metrics._fields, *LogitStats._fields) if n != "logits"}
    assert logged <= shown


def test_a_study_that_shares_its_folder_shows_its_own_cells_only(no_network):
    for name, shared in (("fig-3", True), ("demo", False)):
        study = load_study(name)
        made = dash.to_json(dash.build(study))
        (run_set,) = made["spec"]["section"]["runSets"]
        filters = {f["key"]["name"]: f["value"] for f in run_set["filters"]["filters"]}
        assert filters["group"] == study.group
        assert (set(filters.get("name", [])) == {c.id for c in study.cells}) == shared


def test_a_wandb_that_refuses_is_one_line_without_what_it_said(monkeypatch):
    import wandb

    def broken(*_, **__):
        raise wandb.Error("cannot log in with key 0123456789abcdef")

    monkeypatch.setattr(wandb, "Api", broken)
    with pytest.raises(StudyError) as caught:
        dash.save(load_study("demo"))
    assert "0123456789abcdef" not in str(caught.value) and "--out" in str(caught.value)
