"""Tokens of prompts and captions, cached for later evaluations and cells of this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from study.data.benchmarks.retrieval_texts import read_captions
from study.data.formats.dataset import Dataset
from study.data.tokenizer import Tokenizer
from study.evals import zero_shot

_MAX_ENTRIES = 256  # three splits of 36 languages are 108
_cache: dict[Any, Any] = {}


def prompt_tokens(dataset: Dataset, tokenizer: Tokenizer, *, canonical: bool) -> np.ndarray:
    """Tokens of every class name in every template, `P x L`, class by class."""
    return _get_or_make(
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
    """Tokens of all captions of N examples, `M x L`, and the example of each, int64 `M`."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        texts, owner_M = read_captions(dataset, split, index_N, language=language)
        return tokenizer(texts), owner_M

    examples = hashlib.sha256(index_N.tobytes()).hexdigest()
    key = (dataset.fingerprint, tokenizer.digest, tokenizer.length, split, language, examples)
    return _get_or_make(key, make)


def _get_or_make(key: Any, make: Callable[[], Any]) -> Any:
    # Not functools.lru_cache: data sets and indices are not hashable, their digests are.
    if key not in _cache:
        if len(_cache) >= _MAX_ENTRIES:
            _cache.clear()
        _cache[key] = make()
    return _cache[key]
