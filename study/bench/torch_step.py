"""Hugging Face's `SiglipModel` in PyTorch with AdamW: the same sizes as our cell, on this CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from study.config import Adam, Cell, Sigmoid, TextTransformer, ViT
from study.config.host import cores
from study.config.model import Vocabulary


def skip_reason(cell: Cell) -> str | None:
    """Why PyTorch cannot train this cell here; None if it can."""
    model = cell.model
    if not isinstance(model.image, ViT) or not isinstance(model.text, TextTransformer):
        return "SiglipModel trains both towers"
    if not isinstance(cell.loss, Sigmoid):
        return "SiglipModel has the sigmoid loss only"
    missing = [m for m in ("torch", "transformers") if importlib.util.find_spec(m) is None]
    return f"{' and '.join(missing)} not installed (extra: bench)" if missing else None


def torch_round(
    cell: Cell, vocabulary: Vocabulary, batches: dict[str, np.ndarray]
) -> Callable[[], None]:
    """A function that trains on all `batches`: `image` `NxBxHxWxC`, uint8, and `text` `NxBxL`."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    image, text, adam = cell.model.image, cell.model.text, cell.optimizer
    assert isinstance(image, ViT) and isinstance(text, TextTransformer) and isinstance(adam, Adam)
    torch.set_num_threads(cores())

    def sizes(tower: ViT | TextTransformer) -> dict[str, int]:
        v = tower.size
        return {
            "hidden_size": v.width,
            "intermediate_size": v.mlp,
            "num_hidden_layers": v.depth,
            "num_attention_heads": v.heads,
        }

    text_config: dict[str, Any] = sizes(text) | {
        "vocab_size": vocabulary.size,
        "max_position_embeddings": cell.data.text_length,
        "projection_size": cell.model.embed_dim,
        "bos_token_id": None,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    image_config = sizes(image) | {"image_size": image.image_size, "patch_size": image.patch}
    model = SiglipModel(SiglipConfig(text_config=text_config, vision_config=image_config))
    # Fused and without a copy of each gradient: PyTorch's fastest on a CPU.
    optimizer = torch.optim.AdamW(model.parameters(), lr=adam.learning_rate, fused=True)
    pixels_NxBxCxHxW = np.moveaxis(batches["image"], -1, 2).astype(np.float32) / 127.5 - 1
    images = [torch.tensor(a) for a in np.ascontiguousarray(pixels_NxBxCxHxW)]
    texts = [torch.tensor(a, dtype=torch.int64) for a in batches["text"]]

    def run() -> None:
        for pixels, tokens in zip(images, texts, strict=True):
            optimizer.zero_grad(set_to_none=True)
            model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), adam.clip_norm)
            optimizer.step()

    return run
