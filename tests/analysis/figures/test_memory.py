"""Memory in records: as columns, and as predicted against measured."""

import io

import pandas as pd
import pytest

from analysis.figures.base import Inputs
from analysis.figures.extra import memory
from analysis.figures.plot.figure_io import draw_each
from analysis.plans import compiled
from analysis.records.frame import MEMORY, cells

MIB = 2**20
V4_8 = {"kind": "TPU v4", "count": 4, "processes": 1}


def held(peak, compiled_bytes, source="device"):
    return {"peak_bytes": peak, "source": source, "compiled_bytes": compiled_bytes}


@pytest.fixture
def recorded(writer):
    """Of five cells: both numbers, twice; one of the two, twice; none."""
    given = {
        16: held(300 * MIB, 200 * MIB),
        32: held(900 * MIB, 400 * MIB, "process"),
        64: held(500 * MIB, None),
        128: held(None, 800 * MIB),
        256: None,
    }
    made = {size: writer.cell(size) for size in given}
    for size, value in given.items():
        writer.done(made[size], 50.0, memory=value, devices=V4_8)
    return writer.root, {size: cell.id for size, cell in made.items()}


def test_memory_becomes_columns_of_whole_bytes(recorded):
    table = cells(recorded[0]).set_index("batch_size")[[*MEMORY]]
    peak, source, predicted = MEMORY
    assert table[peak].dropna().to_dict() == {16: 300 * MIB, 32: 900 * MIB, 64: 500 * MIB}
    assert table[predicted].dropna().to_dict() == {16: 200 * MIB, 32: 400 * MIB, 128: 800 * MIB}
    assert table[source].dropna().to_dict() == {16: "device", 32: "process", 64: "device"} | {
        128: "device"
    }
    assert table.loc[256].isna().all()


def test_a_point_is_a_cell_with_both_numbers_and_the_rest_is_named(recorded):
    root, ids = recorded
    table = memory.data(Inputs(cells=cells(root)))
    assert table["id"].tolist() == [ids[16], ids[32]]
    assert (table["measured_bytes"] / table["predicted_bytes"]).tolist() == [1.5, 2.25]
    assert table["measured_by"].tolist() == ["device", "process"]
    missing = " ".join(table.attrs["missing"])
    assert f"{ids[64]} (not predicted)" in missing
    assert all(f"{ids[size]} (no measured peak)" in missing for size in (128, 256))


def test_a_plan_predicts_its_own_cells_on_its_own_machine_alone(recorded, tmp_path, monkeypatch):
    root, ids = recorded
    plan = [
        {"id": ids[16], "slice": "v4-8", "chips": 4, "fits": True, "hbm_gib": 0.25},
        {"id": ids[64], "slice": "v4-8", "chips": 4, "fits": False, "hbm_gib": 0.5},
        {"id": ids[32], "slice": "v4-16", "chips": 8, "fits": True, "hbm_gib": 0.5},
        {"id": ids[32], "slice": "v5p-8", "chips": 4, "fits": True, "hbm_gib": 0.5},
        {"id": ids[32], "slice": "v4-8", "chips": 4, "fits": None, "hbm_gib": 0.5},
    ]
    pd.DataFrame(plan).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"id": [ids[32]]}).to_csv(tmp_path / "b.csv", index=False)  # no plan
    monkeypatch.setattr(compiled, "PLANS", tmp_path)
    table = memory.data(Inputs(cells=cells(root)))
    planned = table[table["predicted_by"] == "plan"].set_index("id")["predicted_bytes"]
    assert planned.to_dict() == {ids[16]: 256 * MIB, ids[64]: 512 * MIB}
    assert not any("not predicted" in name for name in table.attrs["missing"])


def test_it_is_drawn_from_its_csv_filled_by_the_device_and_hollow_by_the_process(recorded):
    table = memory.data(Inputs(cells=cells(recorded[0])))
    fig = memory.draw(pd.read_csv(io.StringIO(table.to_csv(index=False))))
    axes = fig.axes[-1]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    hollow = [line.get_markerfacecolor() == "none" for line in points]
    assert hollow == [False, True]
    assert len({line.get_markeredgecolor() for line in points}) == 2
    diagonal = next(line for line in axes.lines if line not in points)
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()


def test_growth_of_a_process_is_compared_with_large_steps_alone(writer):
    """Old records hold it for every step, those of today for large ones."""
    for size, peak, mib in ((8, None, 2), (16, 3 * MIB, 99), (32, 3 * MIB, 100)):
        writer.done(writer.cell(size), 50.0, memory=held(peak, mib * MIB, "process"))
    device = writer.cell(64)
    writer.done(device, 50.0, memory=held(3 * MIB, 2 * MIB))
    table = memory.data(Inputs(cells=cells(writer.root)))
    assert table["batch_size"].tolist() == [32, 64]
    assert (table.attrs["small"], table.attrs["missing"]) == (2, [])
    text = " ".join(t.get_text() for t in memory.draw(table).texts)
    assert "2 cells with steps below 100 MiB" in " ".join(text.split())


def test_small_steps_on_cpu_alone_are_no_figure(writer):
    writer.done(writer.cell(16), 50.0, memory=held(3 * MIB, 8 * MIB, "process"))
    table = memory.data(Inputs(cells=cells(writer.root)))
    assert table.empty and "100 MiB" in table.attrs["why"]


def test_records_without_memory_say_so(writer, tmp_path):
    writer.done(writer.cell(16), 50.0)
    found = Inputs(cells=cells(writer.root))
    (drawn,) = draw_each({"memory": memory.memory}, {}, found, tmp_path / "figures")
    assert drawn.line == "memory: skipped, no record holds memory"


def test_no_cell_is_predicted_where_no_plan_is(tmp_path):
    assert compiled.peaks(tmp_path / "none").empty


def test_the_plans_in_results_name_compiled_peaks():
    table = compiled.peaks()
    assert len(table) and set(table["chip"]) == {"v4"}
    assert table["compiled_bytes"].between(2**30, 32 * 2**30).all()
