"""Tokens that evaluations read, kept for the next evaluation and the next cell of this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from study.data.benchmarks.retrieval_texts import read_captions
from study.data.formats.dataset import Dataset
from study.data.tokenizer import Tokenizer
from study.evals import zero_shot

_MOST = 64
_KNOWN: dict[Any, Any] = {}


def prompt_tokens(dataset: Dataset, tokenizer: Tokenizer, *, canonical: bool) -> np.ndarray:
    """Tokens of every class name in every template, `P x L`, class by class."""
    return _kept(
        (dataset.fingerprint, tokenizer.digest, tokenizer.length, "prompts", canonical),
        lambda: tokenizer(
            zero_shot.prompts(dataset.class_names, dataset.templates, canonical=canonical)
        ),
    )


def caption_tokens(
    dataset: Dataset,
    split: str,
    tokenizer: Tokenizer,
    index_N: np.ndarray,
    *,
    language: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of all captions of these examples, `M x L`, and which of the N each belongs to."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        texts, owner_M = read_captions(dataset, split, index_N, language=language)
        return tokenizer(texts), owner_M

    which = hashlib.sha256(index_N.tobytes()).hexdigest()
    key = (dataset.fingerprint, tokenizer.digest, tokenizer.length, split, language, which)
    return _kept(key, make)


def _kept(key: Any, make: Callable[[], Any]) -> Any:
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST:
            _KNOWN.clear()
        _KNOWN[key] = make()
    return _KNOWN[key]
