"""Synthetic records: real cells written by the real writer, with effects that are known."""

import numpy as np
import pytest

from study.config import (
    Adam,
    AllPairs,
    Budget,
    CachedImage,
    Cell,
    Data,
    MeanPoolText,
    Model,
    Negatives,
    Sigmoid,
    Softmax,
    to_dict,
)
from study.records.record import Progress, Record, write_failure

TOP1 = "eval/zero_shot/test_font/top1"


def make_cell(batch_size, kind="sigmoid", seed=0, *, keep=None, ratio=None, **fields):
    """A SigLiT cell on glyphs; any field of `Cell` can be given."""
    pairs = Negatives(keep=keep, per_positive=ratio) if keep else AllPairs()
    image = CachedImage(embeddings="hog-lda", dim=96)
    model = Model(image=image, text=MeanPoolText(), embed_dim=96)
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
        "group": "synthetic",
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
    return Progress(step, step * cell.batch_size, step * cell.pairs_per_step)


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

    def begin(self, cell, step=0, **more):
        record = Record(self.folder(cell))
        record.begin(about(cell) | more, seen=seen(cell, step))
        return record

    def done(self, cell, top1=None, status="done", memory=None, devices=None, **summary):
        """A finished cell whose last metrics are `summary`, each under "train/".

        memory: as DONE.json holds it; None is a record of before it did.
        """
        metrics = {f"train/{name}": value for name, value in summary.items()}
        if top1 is not None:
            metrics[TOP1] = float(top1)
        record = self.begin(cell, devices=devices or {})
        record.row(seen(cell, cell.steps), **metrics)
        more = {} if memory is None else {"memory": memory}
        record.finish(
            seen(cell, cell.steps),
            status=status,
            summary=metrics,
            seconds={"total": 2.0, "train": 1.5},
            **more,
        )
        return cell

    def measured(self, cell, metrics):
        """A finished cell with these metrics, by their full names."""
        record = self.begin(cell)
        record.row(seen(cell, cell.steps), **metrics)
        end = seen(cell, cell.steps)
        record.finish(end, status="done", summary=metrics, seconds={"total": 2.0})

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

    def simulated(self, cell, quality=60.0):
        """A finished cell with every metric that its evaluations name, along its run.

        Quality rises as the square root of the examples seen and ends at `quality`.
        """
        record = self.begin(cell)
        final = {}
        for part in (0.25, 0.5, 1.0):
            step = max(1, round(cell.steps * part))
            metrics = {
                "train/loss": 6.0 - 3.0 * part,
                "train/grad_norm": 2.0 - part,
                "train/update_norm": 1.0 - 0.5 * part,
                "train/t": 10.0,
                "train/pos_logit_mean": 1.0,
                "train/neg_logit_mean": -10.0,
                "train/kept_logit_mean": -8.0,
            }
            if cell.loss.kind == "sigmoid" and cell.loss.b_init is not None:
                metrics["train/b"] = -10.0 - part
            for evaluation in cell.evals:
                for key in metric_names(evaluation):
                    metrics[key] = quality * part**0.5
            record.row(seen(cell, step), **metrics)
            final = metrics
        record.finish(seen(cell, cell.steps), status="done", summary=final, seconds={"total": 2.0})
        return cell


LANGUAGES = ("de", "en", "he", "zh")


def metric_names(evaluation):
    """What `study.evals.evaluator` records of an evaluation."""
    dataset = getattr(evaluation, "dataset", None)
    head = "/".join(["eval", evaluation.kind, *([dataset] if dataset else []), evaluation.split])
    directions = ("image_to_text_r1", "text_to_image_r1")
    ends = {
        "zero_shot": ("top1",),
        "few_shot": ("top1",),
        "retrieval": directions,
        "val_loss": ("sigmoid", "softmax"),
        "multilingual_retrieval": (
            *directions,
            *(f"{language}_{way}" for language in LANGUAGES for way in directions),
        ),
    }
    return [f"{head}/{end}" for end in ends[evaluation.kind]]


@pytest.fixture(scope="session")
def paper_study(tmp_path_factory):
    """Every cell of the paper, finished: (root, cells); a cell's quality is `paper_quality`."""
    from sweeps.registry import load_study

    cells = load_study("paper").cells
    writer = Writer(tmp_path_factory.mktemp("paper") / "runs", "paper")
    for cell in cells:
        writer.simulated(cell, paper_quality(cell))
    return writer.root, cells


def paper_quality(cell):
    """What the simulated cells reach: sigmoid above softmax, more with the batch."""
    return 50.0 + np.log2(cell.batch_size) + (1.0 if cell.loss.kind == "sigmoid" else 0.0)


@pytest.fixture
def writer(tmp_path):
    return Writer(tmp_path / "runs")
