"""Claims about duration, recipe, corruption, languages and matched pairs, on made frames."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, Evidence, judge
from analysis.claims.corruption import KINDS, PARTS, RETRIEVAL, SCENES
from analysis.claims.recipe import roughness
from analysis.figures.base import Inputs
from analysis.figures.paper import fig_7
from analysis.records.frame import COLUMNS
from analysis.select.panels import TOP1
from study.data.glyphs import scenes

BASE = {
    "status": "done",
    "examples": 1e6,
    "budget.examples": 1e6,
    "model.image.kind": "cached",
    "model.text.kind": "average",
    "data.dataset": "glyphs",
    "dataset_fingerprint": "f",
    "content": "",
    "loss.kind": "sigmoid",
    "loss.pairs.kind": "all",
    "loss.b_init": -10.0,
    "loss.t_init": 10.0,
    "optimizer.learning_rate": 1e-3,
    "batch_size": 256,
}
SOFTMAX = {"loss.kind": "softmax", "loss.pairs.kind": None, "loss.b_init": None}


def frame(rows, *, seeds=3, sd=0.1, metric=TOP1):
    """One cell per row and seed; "quality" is its true value."""
    rng, cells = np.random.default_rng(0), []
    for row in rows:
        for seed in range(seeds):
            cell = BASE | {k: v for k, v in row.items() if k != "quality"}
            cell[metric] = row["quality"] + sd * rng.standard_normal()
            size = cell["batch_size"]
            cell |= {"seed": seed, "id": f"cell-{len(cells)}", "examples_seen": cell["examples"]}
            cell.setdefault("pairs_seen", int(cell["examples"]) * size)
            cells.append(cell)
    table = pd.DataFrame(cells)
    return table.reindex(columns=list(dict.fromkeys((*COLUMNS, *table.columns))))


def verdict(name, cells, **more):
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    (found,) = judge(cells, claims=[claim], **more)
    return found


def budgets(short_gap, long_gap):
    return [
        {"batch_size": size, "budget.examples": n, "examples": n, "quality": 40 + gap}
        for n, gap_large in ((1e5, short_gap), (1e7, long_gap))
        for size, gap in ((128, 0.0), (512, 0.3), (4096, gap_large))
    ]


LONG = "large batch needs long training"


def test_a_large_batch_that_wins_only_when_trained_long():
    found = verdict(LONG, frame(budgets(-8.0, 2.0)))
    assert found.verdict == "reproduced"
    assert "B = 4096 (32 times B = 128) minus B = 128 is -7.9" in found.sentence
    assert "(24 steps of it)" in found.sentence
    assert verdict(LONG, frame(budgets(-8.0, -2.0))).verdict == "contradicted"
    assert verdict(LONG, frame(budgets(1.0, 2.0))).verdict == "contradicted"


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        # The largest has too few steps even in the long run; the middle one crosses.
        ({128: 40.0, 512: 30.0, 4096: 10.0}, {128: 60.0, 512: 63.0, 4096: 50.0}, "reproduced"),
        ({128: 40.0, 512: 30.0, 4096: 10.0}, {128: 60.0, 512: 55.0, 4096: 50.0}, "contradicted"),
        ({128: 40.0, 512: 39.95, 4096: 39.9}, {128: 60.0, 512: 60.05, 4096: 60.1}, "undecided"),
    ],
)
def test_the_best_batch_may_grow_though_the_largest_never_pays(short, long, expected):
    rows = [
        {"batch_size": size, "budget.examples": n, "examples": n, "quality": quality}
        for n, qualities in ((1e5, short), (1e7, long))
        for size, quality in qualities.items()
    ]
    found = verdict("best batch grows with the budget", frame(rows))
    assert found.verdict == expected
    if expected == "reproduced":
        assert "the clearest is B = 512" in found.sentence
        assert found.estimate == pytest.approx(3.0, abs=0.3)
        assert verdict(LONG, frame(rows)).verdict == "contradicted"


def test_one_budget_is_no_data():
    found = verdict(LONG, frame(budgets(-8.0, 2.0)[:3]))
    assert found.verdict == "no data"
    assert "budget.examples" in found.decide


def starts(**quality):
    values = {"default": 63.0, "none": 62.0, "zero": 61.7, "cold": 61.0} | quality
    where = {"default": (-10.0, 10.0), "none": (None, 10.0), "zero": (0.0, 10.0)}
    where["cold"] = (-10.0, 1.0)
    return [
        {"loss.b_init": b, "loss.t_init": t, "quality": values[name]}
        for name, (b, t) in where.items()
    ]


START = "b = -10, t' = log 10 is best"


def test_the_default_start_must_beat_every_other():
    assert verdict(START, frame(starts())).verdict == "reproduced"
    assert verdict(START, frame(starts(none=64.0))).verdict == "contradicted"
    level = verdict(START, frame(starts(none=63.0)))
    assert level.verdict == "undecided"
    assert "no bias" in level.sentence
    assert "seeds" in level.decide


def corrupted(kind, leads, *, redraw=False):
    shares = dict(zip(PARTS, KINDS[kind], strict=True))
    return [
        BASE
        | (SOFTMAX if loss == "softmax" else {})
        | {part: p * share for part, share in shares.items()}
        | {"data.corrupt.redraw": redraw if p else False}
        | {"quality": 40 - 20 * p + (lead if loss == "sigmoid" else 0.0)}
        for p, lead in leads.items()
        for loss in ("sigmoid", "softmax")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_corruption_is_judged_by_its_own_cells(kind):
    name = f"corrupted {kind}"
    cells = frame(corrupted(kind, {0.0: 1.0, 0.2: 2.0, 0.4: 3.0}))
    assert verdict(name, cells).verdict == "reproduced"
    assert {verdict(f"corrupted {other}", cells).verdict for other in KINDS if other != kind} == {
        "no data"
    }
    shrinks = frame(corrupted(kind, {0.0: 3.0, 0.2: 2.0, 0.4: 1.0}))
    assert verdict(name, shrinks).verdict == "contradicted"


def test_fixed_and_redrawn_corruption_must_both_bear_it_out():
    grows = corrupted("image", {0.0: 1.0, 0.4: 3.0})
    shrinks = corrupted("image", {0.4: -1.0}, redraw=True)
    found = verdict("corrupted image", frame([*grows, *shrinks]))
    assert found.verdict == "contradicted"
    assert "fixed" in found.sentence and "drawn anew" in found.sentence


DECAY = "decay on a pretrained tower hurts"


def test_decay_on_a_pretrained_tower():
    pretrained = {"model.init": "augreg.npz:img", "model.image.kind": "vit"}

    def cells(gain, **more):
        return frame(
            pretrained | more | {"optimizer.image.decay_times": decay, "quality": quality}
            for decay, quality in ((1.0, 60.0), (0.0, 60.0 + gain))
        )

    assert verdict(DECAY, cells(3.0)).verdict == "reproduced"
    assert verdict(DECAY, cells(-3.0)).verdict == "contradicted"
    assert verdict(DECAY, cells(3.0, **{"model.init": None})).verdict == "no data"
    probed = cells(3.0)
    probed["eval/few_shot/test/top1"] = 50.0 - probed[TOP1]  # the probe says the opposite
    assert verdict(DECAY, probed).verdict == "contradicted"


def norms(cells, spike):
    """Update norms of 100 lines; those at beta2 0.999 spike once, by this factor."""
    rng, lines = np.random.default_rng(1), []
    for name, b2 in zip(cells["id"], cells["optimizer.b2"], strict=True):
        for step in range(1, 101):
            high = spike if step == 60 and b2 == 0.999 else 1.0
            norm = high * math.exp(0.05 * rng.standard_normal())
            lines.append({"id": name, "step": step, "train/update_norm": norm})
    return pd.DataFrame(lines)


STEADY = "beta2 0.95 is steadier"


def test_steadiness_is_the_worst_spike_of_the_updates():
    cells = frame({"optimizer.b2": b2, "quality": 40.0} for b2 in (0.95, 0.999))
    found = verdict(STEADY, cells, read_rows=lambda: norms(cells, 8.0))
    assert found.verdict == "reproduced"
    assert 10**found.estimate == pytest.approx(8.0, rel=0.2)
    level = verdict(STEADY, cells, read_rows=lambda: norms(cells, 1.0))
    assert level.verdict == "undecided"
    assert verdict(STEADY, cells).verdict == "no data"


def test_steadiness_is_undecided_where_most_steps_were_not_logged():
    """The spike that a full log shows lies between the lines of a sparse one."""
    cells = frame({"optimizer.b2": b2, "quality": 40.0} for b2 in (0.95, 0.999))
    every = norms(cells, 8.0)
    sparse = every[every["step"] % 5 == 0]
    found = verdict(STEADY, cells, read_rows=lambda: sparse)
    assert found.verdict == "undecided"
    assert "as few as 20.0% of the steps" in found.sentence and "every step" in found.decide
    half = every[every["step"] % 2 == 0]
    assert verdict(STEADY, cells, read_rows=lambda: half).verdict == "reproduced"


def test_steadiness_sees_every_step_where_rows_carry_maxima():
    """The same sparse rows, each with the maximum over the five steps since the row before."""
    cells = frame({"optimizer.b2": b2, "quality": 40.0} for b2 in (0.95, 0.999))
    every = norms(cells, 8.0)
    every.loc[every["step"] == 58, "train/update_norm"] = every.loc[
        every["step"] == 60, "train/update_norm"
    ].to_numpy()
    every.loc[every["step"] == 60, "train/update_norm"] = 1.0  # the spike lies between two rows
    largest = every.groupby("id")["train/update_norm"].rolling(5).max().reset_index(0, drop=True)
    rows = every.assign(**{"train/update_norm_max": largest})
    rows = rows[rows["step"] % 5 == 0]
    found = verdict(STEADY, cells, read_rows=lambda: rows)
    assert found.verdict == "reproduced"
    assert 10**found.estimate == pytest.approx(8.0, rel=0.2)
    unseen = rows.drop(columns="train/update_norm_max")
    assert verdict(STEADY, cells, read_rows=lambda: unseen).verdict == "undecided"


def test_the_warm_up_is_no_spike():
    rising = [{"id": "a", "step": s, "train/update_norm": min(s, 10) / 10} for s in range(1, 101)]
    assert roughness(pd.DataFrame(rising))["roughness"].tolist() == pytest.approx([0.0], abs=1e-9)


LANGUAGES = "languages gain nothing past 32k"
RECALL = "eval/multilingual/xm3600/test/text_to_image_r1"


def test_languages_gain_nothing_past_the_papers_32k_or_the_grids_own():
    def cells(sizes, recalls):
        rows = [{"batch_size": b, "quality": q} for b, q in zip(sizes, recalls, strict=True)]
        return frame(rows, metric=RECALL)

    paper = (16_384, 32_768, 65_536, 131_072)
    small = verdict(LANGUAGES, cells((16, 64, 256, 1024), (30.0, 34.0, 34.1, 33.0)))
    # A quarter of the way up a grid of four is its smallest size.
    assert small.verdict == "contradicted" and "Beyond B = 16" in small.sentence
    found = verdict(LANGUAGES, cells(paper, (34.8, 34.9, 34.4, 33.6)))
    assert found.verdict == "reproduced" and "the paper's 32k" in found.sentence
    assert verdict(LANGUAGES, cells(paper, (30.0, 34.0, 38.0, 39.0))).verdict == "contradicted"


def matched(gain_same_pairs, gain_same_examples):
    hard = {"loss.pairs.kind": "negatives", "loss.pairs.keep": "hard"}
    hard |= {"loss.pairs.per_positive": 24.6, "examples": 1e7, "budget.examples": 1e7}
    return frame(
        [
            {"quality": 40.0},
            {"quality": 40.0 + gain_same_pairs - gain_same_examples}
            | {"examples": 1e7, "budget.examples": 1e7},
            hard | {"quality": 40.0 + gain_same_pairs, "pairs_seen": 256_000_000},
        ]
    )


def test_matched_pairs_are_told_from_longer_training():
    helps, beyond = "matched pairs help", "... beyond the longer training"
    cells = matched(6.0, 1.0)
    assert (verdict(helps, cells).verdict, verdict(beyond, cells).verdict) == (
        "reproduced",
        "reproduced",
    )
    cells = matched(6.0, -1.0)
    assert verdict(helps, cells).verdict == "reproduced"
    assert verdict(beyond, cells).verdict == "contradicted"
    few = cells.assign(pairs_seen=cells["pairs_seen"].where(cells["loss.pairs.kind"] == "all", 1e6))
    assert verdict(helps, few).verdict == "no data"


def test_cells_that_differ_in_more_than_the_axes_are_not_averaged():
    rows = starts()
    other = [row | {"optimizer.learning_rate": 9.0, "quality": 1.0} for row in rows[:2]]
    found = verdict(START, frame([*rows, *other]))
    assert (found.verdict, found.cells) == ("reproduced", 12)


def test_every_claim_says_which_cells_it_needs():
    nothing = frame([{"quality": 1.0, "status": "failed"}])
    for one in judge(nothing):
        assert one.verdict == "no data"
        assert one.decide.startswith("cells: ")


def test_five_hundred_cells_read_no_curves_that_no_claim_needs():
    def read_rows():
        raise AssertionError("no cell varies beta2")

    cells = frame(starts())
    evidence = Evidence(cells=cells, read_rows=read_rows)
    assert all(claim.test(evidence).verdict for claim in CLAIMS)


def test_fixed_and_redrawn_corruption_are_drawn_apart():
    rate = {"sigmoid": 1e-3, "softmax": 2e-3}
    fixed = corrupted("image", {0.0: 1.0, 0.4: 4.0})
    rows = [*fixed, *corrupted("image", {0.4: -1.0}, redraw=True)]
    cells = frame([row | {"optimizer.learning_rate": rate[row["loss.kind"]]} for row in rows])
    points = fig_7.data(Inputs(cells=cells))
    means = points[points["what"] == "mean"].set_index(["series", "x"])["value"]
    names = ("sigmoid", "softmax", "sigmoid, drawn anew", "softmax, drawn anew")
    assert set(means.index) == {(name, p) for name in names for p in (0.0, 0.4)}
    gaps = [means[(names[i], 0.4)] - means[(names[i + 1], 0.4)] for i in (0, 2)]
    assert gaps == pytest.approx([4.0, -1.0], abs=0.3)
    assert means[(names[0], 0.0)] == means[(names[2], 0.0)]
    assert verdict("corrupted image", cells).verdict == "contradicted"


def test_a_rate_for_each_loss_may_undo_what_corruption_does():
    rows = [
        row | {"optimizer.learning_rate": 1e-3 * times, "quality": row["quality"] - cost}
        for row in corrupted("text", {0.0: 2.0, 0.4: 4.0})
        for times in (0.5, 1.0, 2.0)
        # Sigmoid wants the middle rate always, softmax half of it once data are corrupted.
        for cost in [
            abs(math.log2(times)) * 3.0
            if row["loss.kind"] == "sigmoid" or not row["data.corrupt.text"]
            else 6.0 * math.log2(times)
        ]
    ]
    rows += corrupted("text", {0.2: 3.0})  # at the middle rate, which the paper's claim is held to
    cells = frame(rows)
    assert verdict("corrupted text", cells).verdict == "reproduced"
    found = verdict("corrupted: at the best rate too", cells)
    assert found.verdict == "contradicted"
    assert found.estimate == pytest.approx(2.0 - 6.0, abs=0.4)


@pytest.mark.parametrize(("gain", "expected"), [(2.0, "reproduced"), (-2.0, "contradicted")])
def test_what_corruption_does_is_compared_between_two_data_sets(gain, expected):
    few = {"data.dataset": "few", "dataset_examples": 1e4, "dataset_fingerprint": "g"}
    many = {"data.dataset": "many", "dataset_examples": 4e4}
    rows = [row | few for row in corrupted("text", {0.0: 3.0, 0.4: 1.0})]
    rows += [row | many for row in corrupted("text", {0.0: 2.0, 0.4: gain})]
    found = verdict("corrupted: distinct examples help", frame(rows))
    assert found.verdict == expected
    assert found.estimate == pytest.approx((gain - 2.0) - (1.0 - 3.0), abs=0.3)
    assert "With 40,000 distinct examples" in found.sentence and "with 10,000" in found.sentence


@pytest.mark.parametrize(("lead", "expected"), [(4.0, "reproduced"), (-1.0, "contradicted")])
def test_scenes_are_judged_by_retrieval_and_count_nowhere_else(lead, expected):
    assert SCENES == scenes.NAME
    name, glyphs = "corrupted: on scenes of two", corrupted("text", {0.0: 1.0, 0.4: 3.0})
    rows = [*corrupted("text", {0.0: 1.0, 0.4: lead}), *corrupted("text", {0.4: 5.0}, redraw=True)]
    others = {"data.dataset": SCENES, "dataset_fingerprint": "s"}
    of_scenes = frame([row | others for row in rows], metric=RETRIEVAL)
    cells = pd.concat([frame(glyphs), of_scenes], ignore_index=True)
    assert verdict(name, frame(glyphs)).verdict == "no data"
    alone, beside = (verdict("corrupted text", c) for c in (frame(glyphs), cells))
    assert (beside.verdict, beside.estimate) == (alone.verdict, alone.estimate)
    found = verdict(name, cells)
    assert (found.verdict, found.unit) == (expected, "points")
    assert found.estimate == pytest.approx(min(lead, 5.0) - 1.0, abs=0.3)
    assert "drawn anew" in found.sentence and "fixed" in found.sentence
