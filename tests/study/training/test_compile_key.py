"""Cells that differ in numbers alone share a program, which has none of these numbers in it."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from study.config import (
    Adam,
    AllPairs,
    Budget,
    CachedImage,
    Cell,
    Corruption,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Negatives,
    ParamGroup,
    Retrieval,
    Sigmoid,
    replace,
)
from study.config.model import Vocabulary
from study.models.sharding import make_mesh
from study.training.compile import start_program, train_program
from study.training.compile_key import compile_key

VOCABULARY, IMAGE = Vocabulary(50, eos=1, pad=1), (8,)
CELL = Cell(
    model=Model(image=CachedImage(embeddings="e", dim=8), text=MeanPoolText(width=8), embed_dim=8),
    batch_size=4,
    budget=Budget(steps=50),
)
OTHER = dataclasses.replace(
    CELL,
    seed=3,
    data=Data(dataset="another", corruption=Corruption(text=0.5)),
    evals=(Retrieval(split="val"),),
    budget=Budget(examples=1000),
    loss=Sigmoid(t_init=3.0, b_init="prior"),
    optimizer=Adam(
        learning_rate=3e-3,
        weight_decay=0.0,
        schedule="rsqrt",
        timescale_percent=10,
        schedule_examples=2000,
        warmup_percent=7,
        cooldown_examples=16,
        text=ParamGroup(lr_mult=0.1),
        loss_scalars=ParamGroup(lr_mult=2.0),
    ),
)


def program(cell):
    return train_program(
        cell, Execution(chunk_examples=40), VOCABULARY, IMAGE, make_mesh(jax.devices()[:1])
    )


@pytest.mark.parametrize("keep", [None, "random", "hard"])
def test_numbers_are_not_in_the_program_of_a_step(keep):
    cells = [
        replace(cell, "loss.pairs", Negatives(keep=keep, per_positive=k) if keep else AllPairs())
        for cell, k in ((CELL, 1.6), (OTHER, 3))
    ]
    made = program(cells[0])
    assert program(cells[1]) is made
    unreduced = dataclasses.replace(made, cell=cells[1])
    lowered = [p.loop.lower(*p.arguments).as_text() for p in (made, unreduced)]
    assert lowered[0] == lowered[1]


def test_numbers_are_not_in_the_program_of_the_first_state():
    mesh = make_mesh(jax.devices()[:1])
    starts = [start_program(c, VOCABULARY, IMAGE, mesh, None) for c in (CELL, OTHER)]
    lowered = [s.initialize.lower(*s.arguments).as_text() for s in starts]
    assert lowered[0] == lowered[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 8),
        ("data.text_length", 8),
        ("optimizer.b2", 0.9),
        ("optimizer.clip_norm", None),
        ("optimizer.loss_scalars.frozen", True),
        ("loss.b_init", None),
    ],
)
def test_what_changes_the_program_is_in_the_key(field, value):
    assert compile_key(replace(CELL, field, value)) != compile_key(CELL)
