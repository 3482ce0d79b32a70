"""Claims about decay, beta2 and initial values, on made frames."""

import numpy as np
import pandas as pd
import pytest

from analysis.claims.made_cells import starts, update_norms
from analysis.claims.recipe import roughness
from analysis.select.fields import TOP1
from tests.analysis.claims.frames import frame, verdict

START = "b = -10, t' = log 10 is best"
DECAY = "decay on a pretrained tower hurts"
STEADY = "beta2 0.95 is steadier"


def table_4(no_bias=62.0):
    values = {(-10.0, 10.0): 63.0, (None, 10.0): no_bias, (0.0, 10.0): 61.7, (-10.0, 1.0): 61.0}
    return starts(values)


def test_the_default_start_must_beat_every_other():
    assert verdict(START, frame(table_4())).verdict == "reproduced"
    assert verdict(START, frame(table_4(64.0))).verdict == "contradicted"
    level = verdict(START, frame(table_4(63.0)))
    assert level.verdict == "undecided"
    assert "no bias" in level.sentence and "seeds" in level.decide


def test_cells_that_differ_in_more_than_the_axes_are_not_averaged():
    other = [row | {"optimizer.learning_rate": 9.0, "quality": 1.0} for row in table_4()[:2]]
    found = verdict(START, frame([*table_4(), *other]))
    assert (found.verdict, found.cells) == ("reproduced", 12)


def test_decay_on_a_pretrained_tower():
    pretrained = {"model.init": "augreg.npz:img", "model.image.kind": "vit"}

    def cells(gain, **more):
        return frame(
            pretrained | more | {"optimizer.image.wd_mult": decay, "quality": quality}
            for decay, quality in ((1.0, 60.0), (0.0, 60.0 + gain))
        )

    assert verdict(DECAY, cells(3.0)).verdict == "reproduced"
    assert verdict(DECAY, cells(-3.0)).verdict == "contradicted"
    assert verdict(DECAY, cells(3.0, **{"model.init": None})).verdict == "no data"
    probed = cells(3.0)
    probed["eval/few_shot/test/top1"] = 50.0 - probed[TOP1]  # the probe says the opposite
    assert verdict(DECAY, probed).verdict == "contradicted"


@pytest.fixture(scope="module")
def two_b2():
    return frame({"optimizer.b2": b2, "quality": 40.0} for b2 in (0.95, 0.999))


def norms(cells, spike):
    return update_norms(cells, np.random.default_rng(1), spike=spike)


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


def test_the_warm_up_is_no_spike():
    rising = [{"id": "a", "step": s, "train/update_norm": min(s, 10) / 10} for s in range(1, 101)]
    found = roughness(pd.DataFrame(rising), {"a"})["roughness"]
    assert found.tolist() == pytest.approx([0.0], abs=1e-9)
