"""Runs a cell's evaluations on given parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from study.config import (
    AllPairs,
    Cell,
    Data,
    Eval,
    FewShot,
    MultilingualRetrieval,
    Retrieval,
    Sigmoid,
    ValLoss,
    ViT,
    ZeroShot,
)
from study.config.budget import schedule_points
from study.config.evals import metric_prefix
from study.data.benchmarks.retrieval_texts import read_languages
from study.data.formats.dataset import DataError, Dataset
from study.data.formats.open_split import open_split
from study.data.order import indices
from study.data.sources import Source, load_labels, open_source
from study.data.tokenizer import Tokenizer
from study.evals import few_shot, retrieval, zero_shot
from study.evals.encode import SIZE, cached_encoder
from study.evals.token_cache import caption_tokens, prompt_tokens
from study.losses import sigmoid_loss, softmax_loss
from study.models.sharding import make_mesh


class Result(NamedTuple):
    """Results of the evaluations at one step.

    Attributes:
      metrics: values by record key, in percent except for losses.
      items: whether each example is right, by record key, for metrics that are a mean of it.
    """

    metrics: dict[str, float]
    items: dict[str, np.ndarray]


class Evaluator:
    """All evaluations of a cell, and the steps after which each is due.

    Arguments:
      mesh: the devices that hold the parameters.
      batch_size: examples embedded at a time over all devices.

    Raises:
      DataError: a data set, split, label or class list that an evaluation needs is missing or
        empty.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: Dataset,
        tokenizer: Tokenizer,
        mesh: Mesh,
        batch_size: int = SIZE,
    ):
        self._cell, self._tokenizer = cell, tokenizer
        # Nothing else affects a tower.
        data = Data(text_length=cell.data.text_length)
        model = dataclasses.replace(cell.model, init=None)
        self._encoder = cached_encoder(model, data, tokenizer.vocabulary, batch_size, mesh)
        self._due = {e: frozenset(schedule_points(e.every_percent, cell.steps)) for e in cell.evals}
        self._datasets: dict[str | None, Dataset] = {None: dataset}
        for evaluation in cell.evals:  # fail before training, not after it
            name: str | None = getattr(evaluation, "dataset", None)
            if name is not None and name not in self._datasets:
                self._datasets[name] = Dataset.open(dataset.folder.parent / name)
            self._check(evaluation)

    @property
    def steps(self) -> set[int]:
        """The steps after which something is due."""
        return set().union(*self._due.values())

    def run(self, step: int, params: Any) -> Result:
        """Runs the evaluations that are due at `step`. Every process of the mesh must call it.

        Arguments:
          params: of the model, replicated or sharded on the mesh.
        """
        result = Result({}, {})
        classifiers: dict[Any, np.ndarray] = {}
        for evaluation in (e for e, steps in self._due.items() if step in steps):
            hits: dict[str, np.ndarray] = {}
            values: dict[str, float] = {}
            match evaluation:
                case ZeroShot():
                    key = (evaluation.dataset, evaluation.canonical)
                    if key not in classifiers:
                        classifiers[key] = self._classifier(evaluation, params)
                    hits = {"top1": self._zero_shot(evaluation, params, classifiers[key])}
                case Retrieval():
                    hits = self._retrieval(evaluation, params)
                case MultilingualRetrieval():
                    values = self._multilingual(evaluation, params)
                case FewShot():
                    values = self._few_shot(evaluation, params)
                case ValLoss():
                    values = self._val_loss(evaluation, params)
            name = metric_prefix(evaluation)
            values |= {key: 100.0 * float(hit_N.mean()) for key, hit_N in hits.items()}
            result.items.update({f"{name}/{key}": hit_N for key, hit_N in hits.items()})
            result.metrics.update({f"{name}/{key}": value for key, value in values.items()})
        return result

    # --- each kind of evaluation ------------------------------------------------------------------

    def _classifier(self, evaluation: ZeroShot, params: Any) -> np.ndarray:
        dataset = self._dataset(evaluation)
        tokens_PxL = prompt_tokens(dataset, self._tokenizer, canonical=evaluation.canonical)
        ztxt_PxE = self._encoder.embed_texts(params, tokens_PxL)
        return zero_shot.classifier(ztxt_PxE, classes=len(dataset.class_names))

    def _zero_shot(self, evaluation: ZeroShot, params: Any, zclass_CxE: np.ndarray) -> np.ndarray:
        source = self._source(evaluation)
        zimg_NxE = self._encoder.embed_images(params, source, np.arange(source.size))
        label_N = load_labels(self._dataset(evaluation), evaluation.split)
        return zero_shot.correct(zimg_NxE, zclass_CxE, label_N)

    def _retrieval(self, evaluation: Retrieval, params: Any) -> dict[str, np.ndarray]:
        source = self._source(evaluation)
        index_N = _sample(evaluation.examples, source.size)
        tokens_MxL, image_M = caption_tokens(
            self._dataset(evaluation), evaluation.split, self._tokenizer, index_N
        )
        zimg_NxE = self._encoder.embed_images(params, source, index_N)
        return retrieval.hits(zimg_NxE, self._encoder.embed_texts(params, tokens_MxL), image_M)

    def _multilingual(self, evaluation: MultilingualRetrieval, params: Any) -> dict[str, float]:
        dataset, source = self._dataset(evaluation), self._source(evaluation)
        index_N = np.arange(source.size)
        zimg_NxE = self._encoder.embed_images(params, source, index_N)
        recall: dict[str, list[float]] = {"image_to_text_r1": [], "text_to_image_r1": []}
        values = {}
        for language in evaluation.languages or read_languages(dataset, evaluation.split):
            tokens_MxL, image_M = caption_tokens(
                dataset, evaluation.split, self._tokenizer, index_N, language=language
            )
            ztxt_MxE = self._encoder.embed_texts(params, tokens_MxL)
            hits = retrieval.hits(zimg_NxE, ztxt_MxE, image_M)
            for key, by_language in recall.items():
                values[f"{language}_{key}"] = 100.0 * float(hits[key].mean())
                by_language.append(values[f"{language}_{key}"])
        return values | {key: float(np.mean(each)) for key, each in recall.items()}

    def _few_shot(self, evaluation: FewShot, params: Any) -> dict[str, float]:
        dataset = self._dataset(evaluation)
        train, test = self._source(evaluation, evaluation.train_split), self._source(evaluation)
        class_N = load_labels(dataset, evaluation.train_split)
        classes = len(dataset.class_names)
        picks = [
            few_shot.pick(class_N, classes=classes, shots=evaluation.shots, seed=seed)
            for seed in range(evaluation.seeds)
        ]
        index_K = np.unique(np.concatenate(picks))
        few_KxF = self._encoder.image_features(params, train, index_K)
        test_MxF = self._encoder.image_features(params, test, np.arange(test.size))
        accuracy_SxL = [
            [
                100.0 * float(hits.mean())
                for hits in few_shot.correct(
                    few_KxF[np.searchsorted(index_K, pick_N)],
                    class_N[pick_N],
                    test_MxF,
                    load_labels(dataset, evaluation.split),
                    classes=classes,
                    l2=evaluation.l2,
                )
            ]
            for pick_N in picks
        ]
        mean_L = np.mean(accuracy_SxL, axis=0).tolist()
        others = zip(evaluation.l2[1:], mean_L[1:], strict=True)
        return {"top1": mean_L[0]} | {f"top1_l2_{l2:g}": value for l2, value in others}

    def _val_loss(self, evaluation: ValLoss, params: Any) -> dict[str, float]:
        """The softmax loss, and for cells trained with it the sigmoid loss, of held-out pairs."""
        source = self._source(evaluation)
        index_N = _sample(evaluation.examples, source.size)
        zimg_NxE = self._encoder.embed_images(params, source, index_N)
        ztxt_NxE = self._encoder.embed_texts(params, source.text(index_N))
        sigmoid = isinstance(self._cell.loss, Sigmoid)
        t, b = (np.asarray(params.get(name, [0.0]), np.float32)[0] for name in ("t", "b"))
        mesh = make_mesh(jax.local_devices()[:1])
        losses = _both_losses(zimg_NxE, ztxt_NxE, np.exp(t), b, mesh=mesh)
        return {k: float(v) for k, v in losses.items() if sigmoid or k == "softmax"}

    # --- data ------------------------------------------------------------------------------------

    def _dataset(self, evaluation: Eval) -> Dataset:
        return self._datasets[getattr(evaluation, "dataset", None)]

    def _source(self, evaluation: Eval, split: str | None = None) -> Source:
        cell, dataset = self._cell, self._dataset(evaluation)
        channels = None
        if dataset is not self._datasets[None] and isinstance(cell.model.image, ViT):
            # The tower takes as many channels as its training images have.
            own = self._datasets[None]
            channels = own.channels or open_split(own, cell.data.split).channels()
        return open_source(
            dataset,
            split or evaluation.split,
            cell.model.image,
            # Examples are scored one by one, so none may replace a bad one.
            dataclasses.replace(cell.data, max_bad_share=0.0),
            crop=getattr(evaluation, "crop", 1.0),
            channels=channels,
        )

    def _check(self, evaluation: Eval) -> None:
        dataset = self._dataset(evaluation)
        splits = [evaluation.split]
        if isinstance(evaluation, FewShot):
            splits.append(evaluation.train_split)
        for split in splits:
            if not dataset.split(split).examples:
                raise DataError(
                    f"{evaluation.kind}: the split {split} of {dataset.folder} has no examples; "
                    "evaluate on another"
                )
        if isinstance(evaluation, FewShot) and not dataset.class_names:
            raise DataError(f"few_shot: the data set {dataset.name} has no class names")
        if isinstance(evaluation, ZeroShot) and not (dataset.class_names and dataset.templates):
            raise DataError(
                f"zero_shot: {dataset.name} has {len(dataset.class_names)} class names and "
                f"{len(dataset.templates)} templates, and needs at least one of each; evaluate "
                "retrieval on it"
            )
        if isinstance(evaluation, MultilingualRetrieval):
            known = read_languages(dataset, evaluation.split)
            if missing := [one for one in evaluation.languages if one not in known]:
                raise DataError(
                    f"the data set {dataset.name} has no captions in {', '.join(missing)}; "
                    f"it has: {', '.join(known)}"
                )


def _sample(examples: int, size: int) -> np.ndarray:
    """Indices of a fixed random sample of a split, the same for every cell."""
    return indices(np.arange(min(examples, size)), size=size, seed=0)


@functools.partial(jax.jit, static_argnames="mesh")
def _both_losses(
    zimg_NxE: jax.Array, ztxt_NxE: jax.Array, t: jax.Array, b: jax.Array, *, mesh: Mesh
) -> dict[str, jax.Array]:
    z, key = (zimg_NxE, ztxt_NxE), jnp.uint32(0)  # not used: no negatives are drawn
    return {
        "softmax": softmax_loss(*z, t, mesh=mesh)[0],
        "sigmoid": sigmoid_loss(*z, t, b, pairs=AllPairs(), key=key, mesh=mesh)[0],
    }
