"""Writes the parameters of a cell as a folder that transformers opens: a SigLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from safetensors.numpy import save_file

from study.config import Data, MeanPoolText, Model, TextTransformer, ViT
from study.data.formats.dataset import DataError
from study.interop import hugging_face
from study.interop.big_vision import Tree
from study.interop.export import Source, merge_bottleneck, write_json
from study.interop.torch_state import INDEX, State
from study.models.vit import sincos2d

_PROBE = "a photo of a cat"
SHARD_BYTES = 5 * 10**9  # of a .safetensors file; above it, transformers shards too


def export_hugging_face(source: Source, out: Path, *, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Writes a folder for `transformers.SiglipModel`, or `SiglipTextModel` without an image tower.

    Arguments:
      shard_bytes: largest size of a file of parameters, unless a single one is larger.

    Returns:
      What differs from training, a line each.

    Raises:
      DataError: a SiglipModel has no such tower, or the files cannot be written.
    """
    params, model, notes = source.params, source.model, list[str]()
    if reasons := _refusals(model, params):
        raise DataError(f"{source.cell} is not a Hugging Face SigLIP: {'; '.join(reasons)}")
    params = merge_bottleneck(params, model, notes)
    pieces = None
    if source.tokenizer is not None:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=source.tokenizer)
        rows = len(params["txt"]["Embed_0"]["embedding"])
        if pieces.vocab_size() != rows:
            raise DataError(
                f"the tokenizer has {pieces.vocab_size():,} pieces, the text "
                f"tower of {source.cell} {rows:,}; give the data set that the cell was trained on"
            )
    text = _text_config(model, params, source.data, pieces)
    if isinstance(model.image, ViT):
        params = _add_missing(params, model.image, notes)
        image = _image_config(model.image, params)
        write_json(
            out / "config.json",
            {
                "architectures": ["SiglipModel"],
                "model_type": "siglip",
                "dtype": "float32",
                "text_config": text,
                "vision_config": image,
            },
        )
        write_json(
            out / "preprocessor_config.json", _preprocessor(model.image, params, source.data, notes)
        )
    else:
        scalars = {"t": np.exp(params["t"][0])}
        if "b" in params:
            scalars["b"] = params["b"][0]
        shown = ", ".join(f"{name} is {value:.6g}" for name, value in scalars.items())
        notes.append(f"a SiglipTextModel holds neither t nor b: {shown}")
        params = {"txt": params["txt"]}
        write_json(out / "config.json", {"architectures": ["SiglipTextModel"], **text})
    if pieces is not None:
        assert source.tokenizer is not None
        _write_tokenizer(source.tokenizer, pieces, source.data, out, notes)
    if model.dtype != "float32":
        notes.append(f"the towers were trained with {model.dtype} products, these compute float32")
    about = {"format": "pt", "cell": source.cell, "step": str(source.step)}
    _write_shards(hugging_face.to_state(params), out, about, shard_bytes)
    return notes


def _refusals(model: Model, params: Tree) -> list[str]:
    """Why a SiglipModel cannot hold these towers."""
    reasons = []
    if isinstance(model.text, MeanPoolText):
        reasons.append("its text tower averages word pieces, a SiglipModel's is a transformer")
    if isinstance(model.image, ViT):
        if model.image.pool != "map":
            reasons.append(
                f"its image tower has pool={model.image.pool!r}, a SiglipModel's has 'map'"
            )
        if "head" in params["img"]:
            reasons.append(
                f"its image tower ends with a projection to {model.embed_dim}, a SiglipModel's "
                "does not"
            )
    return reasons


def _add_missing(params: Tree, image: ViT, notes: list[str]) -> Tree:
    """Parameters that a SiglipModel needs and the cell has as constants."""
    params = dict(params)
    if image.posemb == "sincos2d":
        table_1xLxW = sincos2d(image.grid, image.grid, image.size.width)
        params["img"] = params["img"] | {"pos_embedding": table_1xLxW}
        notes.append("the fixed position embedding 'sincos2d' is written as a learned one")
    if "b" not in params:
        params["b"] = np.zeros(1, np.float32)
        notes.append("the loss has no bias, so logit_bias is 0: the logits are for a softmax only")
    return params


def _size(variant: Any) -> dict[str, Any]:
    return {
        "hidden_size": variant.width,
        "intermediate_size": variant.mlp,
        "num_hidden_layers": variant.depth,
        "num_attention_heads": variant.heads,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
    }


def _text_config(model: Model, params: Tree, data: Data, pieces: Any) -> dict[str, Any]:
    assert isinstance(model.text, TextTransformer)
    table_VxW = params["txt"]["Embed_0"]["embedding"]
    eos = pad = None
    if pieces is not None:
        eos = pieces.eos_id()
        pad = eos if data.pad == "eos" else pieces.pad_id()
    return {
        "model_type": "siglip_text_model",
        **_size(model.text.size),
        "vocab_size": len(table_VxW),
        "max_position_embeddings": params["txt"]["pos_embedding"].shape[1],
        "projection_size": model.embed_dim,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }


def _image_config(image: ViT, params: Tree) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        **_size(image.size),
        "image_size": image.image_size,
        "patch_size": image.patch,
        "num_channels": params["img"]["embedding"]["kernel"].shape[2],
    }


def _preprocessor(image: ViT, params: Tree, data: Data, notes: list[str]) -> dict[str, Any]:
    channels = params["img"]["embedding"]["kernel"].shape[2]
    if channels == 1:
        notes.append("images have one channel: convert them to mode L before the processor")
    if data.resize == "bilinear":
        notes.append("images were resized without antialiasing, the processor resizes with it")
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"height": image.image_size, "width": image.image_size},
        "resample": {"bicubic": 3, "bilinear": 2}[data.resize],  # as Pillow numbers them
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
    }


def _write_tokenizer(model: bytes, pieces: Any, data: Data, out: Path, notes: list[str]) -> None:
    """The files of a SiglipTokenizer, if it can use this SentencePiece model."""
    unk = pieces.id_to_piece(pieces.unk_id())
    # How it encodes a text. Gemma's model, for one, has no prefix, and would get other pieces.
    encoded = pieces.encode(f"{unk}\u2581{_PROBE}")[len(pieces.encode(unk)) :]
    if encoded != pieces.encode(_PROBE):
        notes.append("no tokenizer is written: a SiglipTokenizer would encode texts otherwise")
        return
    eos = pieces.id_to_piece(pieces.eos_id())
    pad = eos if data.pad == "eos" else pieces.id_to_piece(pieces.pad_id())
    special = {"eos_token": eos, "pad_token": pad, "unk_token": unk}
    write_json(out / "special_tokens_map.json", special)
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "processor_class": "SiglipProcessor",
            **special,
            "do_lower_case": data.lower_case is not None,
            "model_max_length": data.text_length,
            # Without a mask: the towers attend to padding, as in training.
            "model_input_names": ["input_ids"],
        },
    )
    try:
        (out / "spiece.model").write_bytes(model)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from None
    notes.append("SiglipTokenizer removes punctuation, which the cell's texts kept")
    if data.lower_case == "ascii":
        notes.append("SiglipTokenizer lowers all capitals, the cell lowered A to Z only")
    if not data.sticky_eos:
        notes.append("SiglipTokenizer ends every text with EOS, the cell only those that fit")


def _write_shards(state: State, out: Path, about: dict[str, str], shard_bytes: int) -> None:
    """One `model.safetensors`, or shards and their index, with transformers' names."""
    shards: list[State] = [{}]
    free = shard_bytes
    for name, a in state.items():
        if a.nbytes > free and shards[-1]:
            shards.append({})
            free = shard_bytes
        shards[-1][name] = a
        free -= a.nbytes
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [
            f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
        ]
        write_json(
            out / f"model{INDEX}",
            {
                "metadata": {"total_size": sum(a.nbytes for a in state.values())},
                "weight_map": {k: name for name, s in zip(names, shards, strict=True) for k in s},
            },
        )
    try:
        for name, shard in zip(names, shards, strict=True):
            save_file(shard, out / name, metadata=about)
            # safetensors makes a file that only its owner can read.
            (out / name).chmod((out / "config.json").stat().st_mode)
    except Exception as error:  # safetensors raises its own type for a full disk
        raise DataError(
            f"cannot write {out}: {error}; make room or choose another folder"
        ) from None
