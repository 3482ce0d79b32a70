"""A cell: checked when built, equal cells have equal ids, JSON round trip."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import pytest

import study.config.cell
from study.config import (
    Adafactor,
    Adam,
    AllPairs,
    Blocks,
    Budget,
    CachedImage,
    Cell,
    CellError,
    Corruption,
    Data,
    Execution,
    FewShot,
    Groups,
    Lion,
    MeanPoolText,
    Model,
    MultilingualRetrieval,
    Negatives,
    ParamGroup,
    Retrieval,
    Sigmoid,
    Softmax,
    ValLoss,
    ZeroShot,
    from_dict,
    replace,
    to_dict,
)
from study.config.cell import explain
from study.config.evals import metric_prefix

CELLS = [
    Cell(batch_size=512),
    Cell(batch_size=512, loss=Softmax()),
    Cell(batch_size=64, loss=Sigmoid(pairs=Negatives(keep="hard", per_positive=1.6))),
    Cell(batch_size=64, loss=Sigmoid(pairs=Groups(size=16), b_init="prior")),
    Cell(batch_size=64, loss=Sigmoid(b_init=None), budget=Budget(pairs=10**12)),
    Cell(
        batch_size=32,
        model=Model(image=CachedImage(embeddings="x", dim=96), text=MeanPoolText(), embed_dim=96),
        optimizer=Adam(warmup_percent=5),
        evals=(ZeroShot(split="val"), ValLoss(split="val", every_percent=50)),
    ),
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.id)
def test_json_round_trip_keeps_the_id(cell):
    again = from_dict(json.loads(json.dumps(to_dict(cell))))
    assert again == cell
    assert again.id == cell.id
    assert hash(again) == hash(cell)


def test_ids_tell_all_cells_apart_and_are_stable():
    """A changed id orphans every record: this one was taken when the format was fixed."""
    assert len({cell.id for cell in CELLS}) == len(CELLS)
    assert Cell(batch_size=512, loss=Softmax()).id == "b512-softmax-s0-35ad6697"


def test_an_id_is_computed_once_and_is_no_part_of_the_value(monkeypatch):
    hashed = []
    monkeypatch.setattr(study.config.cell, "to_dict", lambda c: hashed.append(c) or to_dict(c))
    read, unread = (from_dict(to_dict(CELLS[1])) for _ in range(2))
    assert {read.id for _ in range(3)} | {read.hash[:8]} == {CELLS[1].id, CELLS[1].id[-8:]}
    assert sum(value is read for value in hashed) == 1
    assert (read, hash(read), to_dict(read)) == (unread, hash(unread), to_dict(unread))
    assert pickle.loads(pickle.dumps(read)) == unread
    other = dataclasses.replace(read, seed=7)
    assert other.id == from_dict(to_dict(other)).id != read.id


def test_every_field_is_in_the_hash():
    base = CELLS[5]
    changes = {
        "batch_size": 64,
        "seed": 1,
        "loss.t_init": 5,
        "loss.b_init": 0,
        "loss.bias": "relative",
        "loss.same_caption": "masked",
        "loss.same_side": "texts",
        "loss.queue_examples": 64,
        "optimizer.b2": 0.999,
        "optimizer.b1_half_life_examples": 1000,
        "optimizer.b2_half_life_examples": 1000,
        "optimizer.weight_decay_time_examples": 1000,
        "optimizer.warmup_percent": 6,
        "model.text.width": 64,
        "model.text.bottleneck": 12,
        "data.text_length": 8,
        "data.lower_case": "ascii",
        "data.pad": "pad",
        "data.corruption.image": 0.1,
        "data.order": "blocks",
        "data.mix": {"glyphs": 1, "twin": 1},
        "model.dtype": "bfloat16",
        "model.init": "a.npz:txt",
        "optimizer.text.frozen": True,
        "budget.examples": 70_000,
    }
    ids = {replace(base, path, value).id for path, value in changes.items()}
    assert len(ids | {base.id}) == len(changes) + 1
    masked = replace(base, "loss.same_caption", "masked")  # without it the next has no effect
    assert replace(masked, "loss.same_by", "class").id not in {masked.id, *ids}


def test_a_mix_is_the_same_however_it_is_written():
    base = CELLS[0]
    cells = [replace(base, "data.mix", mix) for mix in (
        {"glyphs": 4, "coco": 2}, {"coco": 1, "glyphs": 2}, [["glyphs", 2], ["coco", 1]]
    )]  # fmt: skip
    assert len({cell.id for cell in cells}) == 1
    assert from_dict(to_dict(cells[0])) == cells[0] != base
    assert cells[0].data.datasets == ("coco", "glyphs")


def test_the_fields_of_an_order_are_set_one_by_one():
    cell = replace(replace(CELLS[0], "data.order", "blocks"), "data.order.size", 64)
    assert cell.data.order == Blocks(size=64)
    assert replace(cell, "data.order", "global") == CELLS[0]


def test_files_that_say_only_whether_to_rematerialise_are_read():
    assert [Execution(remat=old).remat for old in (True, False)] == ["nothing_saveable", None]


def test_execution_is_not_in_the_cell():
    names = {f.name for f in dataclasses.fields(Execution)}
    assert not names & {f.name for f in dataclasses.fields(Cell)}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("optimizer.b3", 1, ["b3", "b2"]),
        ("optimiser.b2", 1, ["optimiser", "optimizer"]),
        ("optimizer.b2", 1.5, ["optimizer.b2", "1.5", "less than or equal to 1"]),
        ("batch_size", "many", ["batch_size", "many", "integer"]),
        ("loss.kind", "hinge", ["loss", "hinge", "sigmoid", "softmax"]),
        ("budget.examples", 10, ["10", "batch_size=512"]),
        ("optimizer.learning_rate", float("nan"), ["learning_rate"]),
        ("seed", 2**32, ["seed = 4294967296", "less than 4294967296"]),
        ("seed", -1, ["seed = -1", "greater than or equal to 0"]),
        ("data.corruption.seed", 2**32, ["data.corruption.seed = 4294967296", "less than"]),
        ("loss.b_init", float("nan"), ["loss.b_init = nan", "finite number, or 'prior'"]),
        ("loss.pairs.kind", "hardest", ["loss.pairs", "hardest", "negatives"]),
        ("data.order", "random", ["data.order", "random", "'global', 'blocks'"]),
        ("data.order.size", 64, ["data.order has no field 'size'"]),
        ("data.mix", {"glyphs": 1, "coco": 0}, ["data.mix", "weight of coco is 0", "above 0"]),
        ("data.mix", {"glyphs": 1, "coco": 0.5}, ["data.mix", "weight of coco is 0.5", "whole"]),
        ("data.mix", [["glyphs", 1], ["glyphs", 2]], ["data.mix", "named once"]),
        ("data.mix", {"glyphs": 1}, ["data.mix", "the only data set"]),
        ("data.mix", {"coco": 1, "cc3m": 1}, ["data.mix", "glyphs is not among cc3m, coco"]),
        ("data.mix", "glyphs:1", ["data.mix = 'glyphs:1'", '{"cc12m": 3, "coco": 1}']),
    ],
)
def test_a_wrong_value_is_one_line_with_what_is_allowed(path, value, words):
    with pytest.raises(CellError) as error:
        replace(Cell(batch_size=512), path, value)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (Groups(size=48), ["48", "batch_size=64"]),
        (Negatives(keep="hard", per_positive=64), ["64", "63"]),
        (Negatives(keep="hard", per_positive=1.6, scope="row"), ["1.6", "whole"]),
    ],
)
def test_pairs_that_the_batch_does_not_have_are_refused(pairs, words):
    with pytest.raises(ValueError, match=r"per_positive|size") as error:
        Cell(batch_size=64, loss=Sigmoid(pairs=pairs))
    for word in words:
        assert word in str(error.value)


CACHED = dataclasses.replace(
    CELLS[5],
    evals=(
        ZeroShot(split="a"),
        Retrieval(split="a"),
        FewShot(split="a"),
        MultilingualRetrieval(dataset="d", split="a"),
    ),
)
PIXELS = dataclasses.replace(CACHED, model=Model())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": Data(flip=True)}, "data.flip: "),
        ({"data": Data(resize="bilinear")}, "data.resize: 'bilinear' .*embed --resize"),
        *(
            (
                {"evals": (dataclasses.replace(evaluation, crop=0.875),)},
                rf"evals: crop=0.875 of eval/{evaluation.kind}/",
            )
            for evaluation in CACHED.evals
        ),
        ({"optimizer": Adam(image=ParamGroup(lr_mult=0.1))}, "optimizer.image: .* no image tower"),
        ({"optimizer": Lion(image=ParamGroup(wd_mult=0))}, "optimizer.image: "),
        ({"optimizer": Adafactor(image=ParamGroup(frozen=True))}, "optimizer.image: "),
    ],
)
def test_what_cannot_act_on_cached_embeddings_is_refused_and_acts_on_images(change, named):
    with pytest.raises(ValueError, match=named) as error:
        dataclasses.replace(CACHED, **change)
    assert len(explain(error.value).splitlines()) == 1
    assert dataclasses.replace(PIXELS, **change).id != PIXELS.id


def test_freezing_all_there_is_beside_cached_embeddings_is_refused():
    frozen = Adam(text=ParamGroup(frozen=True), loss_scalars=ParamGroup(frozen=True))
    with pytest.raises(ValueError, match="nothing would be trained"):
        dataclasses.replace(CACHED, optimizer=frozen)
    dataclasses.replace(PIXELS, optimizer=frozen)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ParamGroup(frozen=True, lr_mult=0.1), "lr_mult and wd_mult have no effect"),
        (lambda: ParamGroup(frozen=True, wd_mult=0), "lr_mult and wd_mult have no effect"),
        (lambda: Adam(loss_scalars=ParamGroup(wd_mult=0)), "loss_scalars.wd_mult: 0 has no effect"),
        (
            lambda: Lion(weight_decay=0, text=ParamGroup(wd_mult=2)),
            "text.wd_mult: 2 has no effect with weight_decay=0",
        ),
        (lambda: Corruption(resample_each_epoch=True), "seed have no effect"),
        (lambda: Corruption(seed=3), "seed have no effect"),
        (lambda: Corruption(until_examples=64), "until_examples and seed have no effect"),
    ],
)
def test_a_setting_without_effect_is_refused(make, named):
    with pytest.raises(ValueError, match=named) as error:
        make()
    assert len(explain(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ZeroShot(split="a"), ZeroShot(split="a", crop=0.5)),
        (Retrieval(split="a", examples=10), Retrieval(split="a", examples=20)),
        (ValLoss(split="a"), ValLoss(split="a", every_percent=50)),
    ],
)
def test_evaluations_that_would_overwrite_each_other_are_refused(one, other):
    dataclasses.replace(PIXELS, evals=(one, dataclasses.replace(other, split="b")))
    with pytest.raises(ValueError, match=rf"evals: .*{metric_prefix(one)}, .*overwrite"):
        dataclasses.replace(PIXELS, evals=(one, other))


def test_pair_counts_are_exact_at_the_papers_largest_batch():
    batch = 2**20
    assert AllPairs().count(batch) == batch * batch
    assert AllPairs().count(batch) * 17166 > 2**53
    assert Groups(size=512).count(batch) == batch * 512
    assert Negatives(keep="hard", per_positive=1.6).count(16384) == 16384 + 26214


def test_budget_counts_whole_steps():
    cell = Cell(batch_size=1000, budget=Budget(examples=65_536))
    assert (cell.steps, cell.examples) == (65, 65_000)
    matched = dataclasses.replace(
        cell, loss=Sigmoid(pairs=Groups(size=10)), budget=Budget(pairs=65 * 10**6)
    )
    assert matched.steps * matched.pairs_per_step == cell.steps * cell.pairs_per_step


def test_building_cells_needs_no_jax():
    code = "import sys, study.config.cell, study.records.record; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
