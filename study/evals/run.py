"""Runs a cell's evaluations on given parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from study.cell import Cell, FixedLoss, Retrieval, Sigmoid, ZeroShot
from study.data.dataset import Dataset
from study.data.sources import labels, open_source
from study.data.stream import indices
from study.data.tokens import Tokenizer
from study.durations import every
from study.evals import retrieval, zero_shot
from study.evals.encode import encoder
from study.losses import sigmoid_loss, softmax_loss
from study.pairs import AllPairs


class Result(NamedTuple):
    """Metrics by record key, and per-example correctness where the metric is a mean of it."""

    metrics: dict[str, float]
    items: dict[str, np.ndarray]


class Evaluator:
    """All evaluations of a cell, and at which steps each is due.

    Raises:
      DataError: a split, label or class list that an evaluation needs is not there.
    """

    def __init__(self, cell: Cell, dataset: Dataset, tokenizer: Tokenizer):
        self._cell, self._dataset, self._tokenizer = cell, dataset, tokenizer
        self._encoder = encoder(cell.model, cell.data, tokenizer.vocabulary)
        self._due = {e: frozenset(every(e.every_percent, cell.steps)) for e in cell.evals}
        for evaluation in cell.evals:  # a missing split is found before training, not after
            dataset.split(evaluation.split)

    @property
    def steps(self) -> set[int]:
        """The steps after which something is due."""
        return set().union(*self._due.values())

    def run(self, step: int, params: Any) -> Result:
        """What is due at `step`."""
        metrics: dict[str, float] = {}
        items: dict[str, np.ndarray] = {}
        zclass_CxE = None
        for evaluation, due in self._due.items():
            if step not in due:
                continue
            name = f"eval/{evaluation.kind}/{evaluation.split}"
            match evaluation:
                case ZeroShot():
                    if zclass_CxE is None:
                        zclass_CxE = self._classifier(params)
                    found = {f"{name}/top1": self._zero_shot(evaluation, params, zclass_CxE)}
                case Retrieval():
                    image, text = self._retrieval(evaluation, params)
                    found = {
                        f"{name}/image_to_text_r1": image,
                        f"{name}/text_to_image_r1": text,
                    }
                case FixedLoss():
                    found = {}
                    for loss, value in self._fixed_loss(evaluation, params).items():
                        metrics[f"{name}/{loss}"] = value
            items |= found
            metrics |= {key: 100.0 * float(hits.mean()) for key, hits in found.items()}
        return Result(metrics, items)

    def _classifier(self, params: Any) -> np.ndarray:
        ztxt_PxE = self._encoder.text(params, _prompts(self._dataset, self._tokenizer))
        return zero_shot.classifier(ztxt_PxE, classes=len(self._dataset.class_names))

    def _zero_shot(self, evaluation: ZeroShot, params: Any, zclass_CxE: np.ndarray) -> np.ndarray:
        split = self._split(evaluation.split)
        zimg_NxE = self._encoder.image(params, split.batch(np.arange(split.size))["image"])
        return zero_shot.correct(zimg_NxE, zclass_CxE, labels(self._dataset, evaluation.split))

    def _retrieval(self, evaluation: Retrieval, params: Any) -> tuple[np.ndarray, np.ndarray]:
        return retrieval.correct(*self._fixed(evaluation, params))

    def _fixed_loss(self, evaluation: FixedLoss, params: Any) -> dict[str, float]:
        """The softmax loss of every cell; the sigmoid loss of those that learn a bias."""
        zimg_NxE, ztxt_NxE = self._fixed(evaluation, params)
        sigmoid = isinstance(self._cell.loss, Sigmoid)
        b = params["b"][0] if "b" in params else np.float32(0)
        losses = _both_losses(zimg_NxE, ztxt_NxE, np.exp(params["t"][0]), b)
        return {k: float(v) for k, v in losses.items() if sigmoid or k == "softmax"}

    def _fixed(self, evaluation: Retrieval | FixedLoss, params: Any) -> tuple[Any, Any]:
        """Embeddings of the same examples of a split for every cell of a study."""
        split = self._split(evaluation.split)
        count = min(evaluation.examples, split.size)
        batch = split.batch(indices(np.arange(count), size=split.size, seed=0))
        image = self._encoder.image(params, batch["image"])
        return image, self._encoder.text(params, batch["text"])

    def _split(self, name: str) -> Any:
        cell = self._cell
        return open_source(self._dataset, name, cell.model.image, cell.data.text_length)


@jax.jit
def _both_losses(
    zimg_NxE: jax.Array, ztxt_NxE: jax.Array, t: jax.Array, b: jax.Array
) -> dict[str, jax.Array]:
    key = jnp.uint32(0)  # no negative is drawn
    return {
        "softmax": softmax_loss(zimg_NxE, ztxt_NxE, t)[0],
        "sigmoid": sigmoid_loss(zimg_NxE, ztxt_NxE, t, b, pairs=AllPairs(), key=key)[0],
    }


def _prompts(dataset: Dataset, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens of every class name in every template, kept for the next cell of this process."""
    key = (dataset.fingerprint, tokenizer.digest, tokenizer.length)
    if key not in _PROMPTS:
        _PROMPTS.clear()
        _PROMPTS[key] = tokenizer(
            [t.replace("{}", name) for name in dataset.class_names for t in dataset.templates]
        )
    return _PROMPTS[key]


_PROMPTS: dict[tuple[str, str, int], np.ndarray] = {}
