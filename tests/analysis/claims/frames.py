"""Frames of made cells with a little noise, and their verdicts."""

import numpy as np

from analysis.claims import CLAIMS, judge
from analysis.claims.made_cells import (
    SCRATCH,
    SOFTMAX,
    add_noise,
    batch_panel,
    composition_panel,
    make_cells,
)
from analysis.select.fields import TOP1

__all__ = ["SCRATCH", "SOFTMAX", "VALIDATION", "batch_panel", "composition_panel", "frame"]

VALIDATION = "eval/zero_shot/val_font/top1"


def frame(rows, *, seeds=3, sd=0.1, metric=TOP1):
    """One cell per row and seed, or of the row's own "seed" alone."""
    cells = make_cells(rows, seeds=seeds, metric=metric)
    return add_noise(cells, np.random.default_rng(0), sd)


def verdict(name, cells, **more):
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    (found,) = judge(cells, claims=[claim], **more)
    return found


def verdicts(cells, names=None):
    """By name, of all claims or of those named."""
    claims = [claim for claim in CLAIMS if names is None or claim.name in names]
    return {found.name: found for found in judge(cells, claims=claims)}
