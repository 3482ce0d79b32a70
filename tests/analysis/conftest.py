"""Synthetic records: real cells written by the real writer, with effects that are known."""

import json

import numpy as np
import pytest

from study.cell import Adam, CachedImage, Cell, Data, Model, Sigmoid, Softmax, TextAverage, to_dict
from study.durations import Budget
from study.pairs import AllPairs, Negatives
from study.records import Record, Seen, write_failure

TOP1 = "eval/zero_shot/test_font/top1"


def make_cell(batch_size, kind="sigmoid", seed=0, *, keep=None, ratio=None, **fields):
    """A SigLiT cell on glyphs; any field of `Cell` can be given."""
    pairs = Negatives(keep=keep, per_positive=ratio) if keep else AllPairs()
    model = Model(image=CachedImage(embeddings="hog-lda", dim=96), text=TextAverage(), embed_dim=96)
    given = {
        "model": model,
        "data": Data(dataset="glyphs"),
        "loss": Softmax() if kind == "softmax" else Sigmoid(pairs=pairs),
        "optimizer": Adam(learning_rate=5e-3, warmup_percent=5.0),
        "budget": Budget(examples=300_000),
    }
    return Cell(batch_size=batch_size, seed=seed, **(given | fields))


def about(cell):
    return {
        "id": cell.id,
        "hash": cell.hash,
        "study": "synthetic",
        "cell": to_dict(cell),
        "code": "0",
        "versions": {},
        "devices": {},
        "dataset_fingerprint": "f" * 64,
        "parameters": 1000,
        "steps": cell.steps,
        "examples": cell.examples,
        "pairs_per_step": cell.pairs_per_step,
    }


def seen(cell, step):
    return Seen(step, step * cell.batch_size, step * cell.pairs_per_step)


class Writer:
    """Writes cells into `<root>/<study>`."""

    cell = staticmethod(make_cell)
    about = staticmethod(about)
    seen = staticmethod(seen)

    def __init__(self, root, study="synthetic"):
        self.root, self.study = root, study
        (root / study).mkdir(parents=True, exist_ok=True)

    def folder(self, cell):
        return self.root / self.study / cell.id

    def begin(self, cell, step=0):
        record = Record(self.folder(cell))
        record.begin(about(cell), seen=seen(cell, step))
        return record

    def done(self, cell, top1=None, status="done", **summary):
        """A finished cell whose last metrics are `summary` (underscores stand for "train/")."""
        metrics = {f"train/{name}": value for name, value in summary.items()}
        if top1 is not None:
            metrics[TOP1] = float(top1)
        record = self.begin(cell)
        record.row(seen(cell, cell.steps), **metrics)
        record.finish(
            seen(cell, cell.steps),
            status=status,
            summary=metrics,
            seconds={"total": 2.0, "train": 1.5},
        )
        return cell

    def failed(self, cell, error="out of memory"):
        self.begin(cell).close()
        write_failure(self.folder(cell), error=error)
        return cell

    def batch_panel(self, sigmoid, softmax, *, sd=0.3, seeds=2, rng=0, **fields):
        """One cell per batch size, loss and seed; the arguments map batch size to true quality."""
        noise = np.random.default_rng(rng)
        for loss, truth in (("sigmoid", sigmoid), ("softmax", softmax)):
            for size, value in truth.items():
                for seed in range(seeds):
                    cell = make_cell(size, loss, seed, **fields)
                    self.done(cell, value + sd * noise.standard_normal())

    def composition_panel(self, truth, *, batch_size=512, sd=0.3, seeds=2, rng=0):
        """`truth` maps (keep or None, ratio or None) to (quality, bias, positives, negatives)."""
        noise = np.random.default_rng(rng)
        for (keep, ratio), values in truth.items():
            for seed in range(seeds):
                cell = make_cell(batch_size, seed=seed, keep=keep, ratio=ratio)
                top1, b, pos, neg = np.asarray(values) + sd * noise.standard_normal(4)
                kept = neg + (3.0 if keep == "hard" else 0.0)
                logits = {"pos_logit_mean": pos, "neg_logit_mean": neg, "kept_logit_mean": kept}
                self.done(cell, top1, b=b, **logits)


@pytest.fixture
def writer(tmp_path):
    return Writer(tmp_path / "runs")


@pytest.fixture
def lines():
    """Turns rows into the text of a `metrics.jsonl`."""
    return lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
