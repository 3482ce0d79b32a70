"""Writes the parameters of a cell as files that other implementations open: big_vision's here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study.config import CachedImage, Cell, Data, MeanPoolText, Model, TextTransformer, ViT
from study.data.formats.dataset import DataError
from study.interop import big_vision
from study.interop.big_vision import Tree
from study.interop.infer_model import infer_model
from study.interop.load import load_params, split_spec
from study.interop.torch_state import hash_files
from study.models.two_towers import bias


class Source(NamedTuple):
    """What is exported.

    Attributes:
      params: `study.training.step.State.params`, as numpy arrays, with any bias as `b`.
      model, data: those of the cell, with an image tower if `params` has one.
      cell: its id.
      step: of the checkpoint.
      tokenizer: the SentencePiece model of its texts, if it is known.
    """

    params: Tree
    model: Model
    data: Data
    cell: str
    step: int
    tokenizer: bytes | None = None

    @classmethod
    def of_cell(cls, cell: Cell, params: Tree, step: int) -> Source:
        towers: Tree = {name: params[name] for name in ("img", "txt", "t") if name in params}
        if (b := bias(params)) is not None:
            towers["b"] = np.asarray(b, np.float32).reshape(1)
        return cls(towers, cell.model, cell.data, cell.id, step)

    def add_image_tower(
        self, spec: str, about: dict[str, Any], *, image_size: int | None = None
    ) -> Source:
        """With the frozen image tower whose embeddings a SigLiT cell was trained on.

        Arguments:
          spec: its checkpoint, see `study.interop.load`.
          about: the tower.json of the embeddings; empty if it is not known.
          image_size: in pixels, if the checkpoint does not fix it.

        Raises:
          DataError: it is not that tower, or the cell has an image tower of its own.
        """
        if not isinstance(self.model.image, CachedImage):
            raise DataError(f"{self.cell} has an image tower of its own; leave out {spec}")
        path, part = split_spec(spec)
        tree = load_params(spec if part else f"{spec}:img")
        if "img" not in tree:
            raise DataError(f"{spec} is no image tower")
        recorded = about.get("sha256") if "checkpoint" in about else None
        if recorded not in (None, hash_files(path)):
            raise DataError(
                f"{path} is not the tower of the embeddings {self.model.image.embeddings!r}: they "
                f"were made with {about['checkpoint']}, whose SHA-256 starts with {recorded[:12]}"
            )
        inferred = infer_model({"img": tree["img"]}, image_size=image_size).model
        if inferred.embed_dim != self.model.embed_dim:
            raise DataError(
                f"{path} embeds images in width {inferred.embed_dim}, {self.cell} texts in "
                f"{self.model.embed_dim}"
            )
        return self._replace(
            params=self.params | tree,
            model=dataclasses.replace(self.model, image=inferred.image),
            data=dataclasses.replace(self.data, resize=about.get("resize", self.data.resize)),
        )


def export_big_vision(source: Source, out: Path) -> list[str]:
    """Writes `<cell id>.npz`, and `model.json`: the arguments of big_vision's two_towers.Model.

    Returns:
      What differs from training, a line each.

    Raises:
      DataError: big_vision has no such tower, or the files cannot be written.
    """
    model, notes = source.model, list[str]()
    if isinstance(model.text, MeanPoolText):
        raise DataError(
            f"{source.cell}: its text tower averages word pieces (kind 'mean_pool'), "
            "and big_vision has no such tower"
        )
    params = merge_bottleneck(source.params, model, notes)
    write_json(
        out / "model.json",
        {
            "model_name": "proj.image_text.two_towers",
            "model": _two_towers(model, params),
            "cell": source.cell,
            "step": source.step,
        },
    )
    big_vision.write(out / f"{source.cell}.npz", params)
    return notes


def _two_towers(model: Model, params: Tree) -> dict[str, Any]:
    text = model.text
    assert isinstance(text, TextTransformer)
    config: dict[str, Any] = {
        "text_model": "proj.image_text.text_transformer",
        "text": {
            "variant": text.variant,
            "depth": text.size.depth,
            "vocab_size": len(params["txt"]["Embed_0"]["embedding"]),
        },
        "out_dim": [None, model.embed_dim],
    }
    if isinstance(model.image, ViT):
        config["image_model"] = "vit"
        config["image"] = {
            "variant": model.image.variant,
            "depth": model.image.size.depth,
            "pool_type": model.image.pool,
            "posemb": model.image.posemb,
        }
        if "head" in params["img"]:
            config["out_dim"][0] = model.embed_dim
    if "b" in params:
        config["bias_init"] = float(params["b"][0])
    return config


def merge_bottleneck(params: Tree, model: Model, notes: list[str]) -> Tree:
    """Multiplies a factored token embedding, which both formats lack."""
    if not (isinstance(model.text, TextTransformer) and model.text.bottleneck):
        return params
    txt = dict(params["txt"])
    table_VxK, kernel_KxW = txt["Embed_0"]["embedding"], txt.pop("embed_projection")["kernel"]
    txt["Embed_0"] = {"embedding": table_VxK @ kernel_KxW}
    notes.append(f"the token embedding of rank {model.text.bottleneck} is written as one matrix")
    return params | {"txt": txt}


def write_json(path: Path, value: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
