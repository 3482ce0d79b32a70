"""Claims about decay and initial values, on made frames."""

from analysis.claims.made_cells import starts
from analysis.select.fields import TOP1
from tests.analysis.claims.frames import frame, verdict

START = "b = -10, t' = log 10 is best"
DECAY = "decay on a pretrained tower hurts"


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
