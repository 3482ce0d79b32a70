"""Claims about beta2, on made frames and norms."""

import numpy as np
import pandas as pd
import pytest

from analysis.claims.made_cells import logged_norms
from analysis.figures.base import Inputs
from analysis.figures.extra import data_change
from analysis.figures.paper import fig_5
from analysis.stats.spikes import spikes
from tests.analysis.claims.frames import frame, verdict
from tests.analysis.figures.pictures import check

STEADY = "beta2 0.95 is steadier"
CHANGED = "beta2 0.95 is calmer after a change"


@pytest.fixture(scope="module")
def two_b2():
    return frame({"optimizer.b2": b2, "quality": 40.0} for b2 in (0.95, 0.999))


def norms(cells, spike):
    return logged_norms(cells, np.random.default_rng(1), spike=spike)


def test_steadiness_is_the_worst_spike_of_the_updates(two_b2):
    found = verdict(STEADY, two_b2, read_rows=lambda: norms(two_b2, 8.0))
    assert found.verdict == "reproduced"
    assert 10**found.estimate == pytest.approx(8.0, rel=0.2)
    assert verdict(STEADY, two_b2, read_rows=lambda: norms(two_b2, 1.0)).verdict == "undecided"
    assert verdict(STEADY, two_b2).verdict == "no data"


def test_steadiness_is_undecided_where_most_steps_were_not_logged(two_b2):
    """The spike that a full log shows lies between the rows of a sparse one."""
    every = norms(two_b2, 8.0)
    found = verdict(STEADY, two_b2, read_rows=lambda: every[every["step"] % 5 == 0])
    assert found.verdict == "undecided"
    assert "only 20.0% of the steps" in found.sentence and "every step" in found.decide
    half = verdict(STEADY, two_b2, read_rows=lambda: every[every["step"] % 2 == 0])
    assert half.verdict == "reproduced"


def test_steadiness_sees_every_step_where_rows_carry_maxima(two_b2):
    """The same sparse rows, each with the maximum over the five steps since the row before."""
    every, norm = norms(two_b2, 8.0), "train/update_norm"
    spikes = every["step"] == 60
    every.loc[every["step"] == 58, norm] = every.loc[spikes, norm].to_numpy()  # between two rows
    every.loc[spikes, norm] = 1.0
    largest = every.groupby("id")[norm].rolling(5).max().reset_index(0, drop=True)
    rows = every.assign(**{f"{norm}_max": largest})
    rows = rows[rows["step"] % 5 == 0]
    found = verdict(STEADY, two_b2, read_rows=lambda: rows)
    assert found.verdict == "reproduced"
    assert 10**found.estimate == pytest.approx(8.0, rel=0.2)
    unseen = rows.drop(columns=f"{norm}_max")
    assert verdict(STEADY, two_b2, read_rows=lambda: unseen).verdict == "undecided"


def test_what_comes_before_is_no_spike():
    falling = pd.DataFrame({"id": "a", "step": range(1, 101)})
    falling = falling.assign(norm=np.where(falling["step"] <= 10, 1.0 / falling["step"], 0.1))
    found = spikes(falling, "norm", after={"a": 10.0})
    assert found["worst"].tolist() == pytest.approx([0.0], abs=1e-9)
    assert found["spikes"].tolist() == [0.0]
    assert spikes(falling, "norm", after={"a": 0.0})["worst"].item() > 0.1


def test_spikes_are_counted_in_percent_of_the_rows():
    rows = pd.DataFrame({"id": "a", "step": range(1, 101), "norm": 1.0})
    rows.loc[[20, 50, 80], "norm"] = [2.9, 3.1, 10.0]
    found = spikes(rows, "norm", after={"a": 0.0})
    assert (found["spikes"].item(), found["worst"].item()) == (2.0, pytest.approx(1.0))


@pytest.fixture(scope="module")
def stressed(two_b2):
    """The same cells, and those whose data change after 20 of 100 steps."""
    ends = "data.corruption.until_examples"
    rows = [{"optimizer.b2": b2, "quality": 40.0, ends: 20 * 256} for b2 in (0.95, 0.999)]
    rows = [row | {"optimizer.kind": "adam", "data.corruption.image": 1.0} for row in rows]
    plain = [
        {name: value for name, value in row.items() if not name.startswith("data.")} for row in rows
    ]
    return frame([*rows, *plain])


def test_a_change_of_the_data_is_judged_apart_and_by_the_gradients(stressed):
    changes = stressed["data.corruption.until_examples"].notna()
    rows = norms(stressed, 8.0)
    calm = norms(stressed, 1.0)
    plain = rows["id"].isin(stressed["id"][~changes])
    only_changed = pd.concat([rows[~plain], calm[plain]])
    found = verdict(CHANGED, stressed, read_rows=lambda: only_changed)
    assert found.verdict == "reproduced"
    assert 10**found.estimate == pytest.approx(8.0, rel=0.2)
    assert "stress test" in found.sentence and found.cells == 6
    assert verdict(STEADY, stressed, read_rows=lambda: only_changed).verdict == "undecided"
    one = only_changed.assign(**{"train/grad_norm": calm["train/grad_norm"]})
    assert verdict(CHANGED, stressed, read_rows=lambda: one).verdict == "undecided"
    before = rows["step"] <= 20
    early = pd.concat([rows[before], calm[~before]]).sort_values(["id", "step"])
    early.loc[early["step"] == 10, ["train/update_norm", "train/grad_norm"]] = 50.0
    assert verdict(CHANGED, stressed, read_rows=lambda: early).verdict == "undecided"


def test_the_figures_of_beta2_keep_the_change_of_the_data_apart(stressed):
    inputs = Inputs(cells=stressed, read_rows=lambda: norms(stressed, 8.0))
    table = data_change.data(inputs)
    panels = set(table["panel"])
    assert len(panels) == 4 and sum("plain" in panel for panel in panels) == 2
    worst = table[table["kind"] == "mean"].set_index(["panel", "series"])["value"]
    for panel in panels:
        assert worst[panel, "beta2 = 0.999"] == pytest.approx(8.0, rel=0.2)
        assert worst[panel, "beta2 = 0.95"] < 1.5
    assert any("not the paper's run" in note for note in table.attrs["notes"])
    check(data_change.data_change.draw(table))
    changed = stressed["id"][stressed["data.corruption.until_examples"].notna()]
    assert set(fig_5.data(inputs)["id"].dropna()) == set(stressed["id"]) - set(changed)
