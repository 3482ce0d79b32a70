"""The paper's set-ups as values, from which the grids of its figures and tables are built.

"Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343v4). A run that appears in several
figures and tables is the same cell in each of their grids, with one id and one record: all of these
grids share the folder `paper` under the record root.

`sweeps.grids.paper.assumptions` lists the settings that the paper does not state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from study.config import (
    Adafactor,
    Budget,
    CachedImage,
    Cell,
    Data,
    Eval,
    Execution,
    Loss,
    Model,
    MultilingualRetrieval,
    Optimizer,
    Retrieval,
    Sigmoid,
    Softmax,
    TextTransformer,
    ValLoss,
    ViT,
    ZeroShot,
)
from study.data.files import exists, to_path
from study.data.formats.dataset import DATASET_FILE
from sweeps.study import Assumption, Matched, Study, StudyError

FOLDER = "paper"

# --- counts ---------------------------------------------------------------------------------------

MILLION, BILLION = 10**6, 10**9
K = 1024  # the paper's tables print 16k for 16384; its figures print 65, 131, 262 for 64k to 256k

# --- data -----------------------------------------------------------------------------------------

LIT = Data(dataset="lit", tokenizer="c4_en.model", lower_case="ascii")
WEBLI_EN = Data(dataset="webli-en", tokenizer="c4_en.model", lower_case="ascii", resize="bilinear")
WEBLI_100 = Data(dataset="webli-100", tokenizer="mc4.model", lower_case="ascii", resize="bilinear")

# How to bring each data set under the data root; quoted when one is missing.
SOURCES = {
    "lit": "image-text pairs of the LiT kind, then `study data index` and `study data "
    "embed`, as sweeps/grids/paper/table_8.py says",
    "webli-en": "English image-text shards, then `study data index`",
    "webli-100": "image-text shards in many languages, then `study data index`",
    "imagenet": "`study data import IMAGENET_FOLDER --out DATA/imagenet`",
    "imagenet_v2": "`study data import FOLDER --out DATA/imagenet_v2`",
    "objectnet": "`study data import FOLDER --out DATA/objectnet`",
    "coco": "`study data import dataset_coco.json --out DATA/coco`",
    "xm3600": "`study data import CROSSMODAL_FOLDER --out DATA/xm3600`",
    "pets": "`study data import FOLDER --out DATA/pets`",
    "cifar100": "`study data import FOLDER --out DATA/cifar100`",
}

# --- models ---------------------------------------------------------------------------------------

SIGLIT = Model(
    image=CachedImage(embeddings="vit-g14-288", dim=1408),
    text=TextTransformer(variant="B"),
    embed_dim=1408,
    dtype="bfloat16",
)
SIGLIP = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)
# Sec. 4.3: 100 languages, with the factored embedding of 250k word pieces.
MSIGLIP = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B", bottleneck=96),
    embed_dim=768,
    dtype="bfloat16",
)

# --- recipe (Sec. 4.1, App. A: the same for all batch sizes) --------------------------------------

ADAFACTOR = Adafactor(
    learning_rate=1e-3,
    weight_decay=1e-4,
    schedule="cosine",
    warmup_examples=200 * MILLION,
    clip_norm=1.0,
)
LOSSES: tuple[Loss, ...] = (Sigmoid(t_init=10.0, b_init=-10.0), Softmax(t_init=10.0))
SIGMOID, SOFTMAX = LOSSES

# --- evaluations ----------------------------------------------------------------------------------


def zero_shot(dataset: str, split: str = "test", *, every_percent: float = 100.0) -> ZeroShot:
    """Zero-shot accuracy with canonical prompts and the 0.875 central crop, as in big_vision."""
    return ZeroShot(
        dataset=dataset, split=split, crop=0.875, canonical=True, every_percent=every_percent
    )


IMAGENET = zero_shot("imagenet", "val", every_percent=10)
VALIDATION = ValLoss(split="val", every_percent=5)
EVALS: tuple[Eval, ...] = (IMAGENET, VALIDATION)
# Cached embeddings are of whole images, so there is nothing to crop.
CACHED_EVALS: tuple[Eval, ...] = (dataclasses.replace(IMAGENET, crop=1.0), VALIDATION)
XM3600 = MultilingualRetrieval(dataset="xm3600", split="test", every_percent=10)
MULTILINGUAL: tuple[Eval, ...] = (IMAGENET, XM3600, VALIDATION)
TABLE_4: tuple[Eval, ...] = (*EVALS, zero_shot("pets"), zero_shot("cifar100"))
TABLE_3: tuple[Eval, ...] = (
    *EVALS,
    zero_shot("imagenet_v2"),
    zero_shot("objectnet"),
    Retrieval(dataset="coco", split="test", examples=5000),
)

# --- cells ----------------------------------------------------------------------------------------


def siglit_cell(
    *,
    batch_size: int,
    budget: Budget | int,
    loss: Loss = SIGMOID,
    optimizer: Optimizer = ADAFACTOR,
) -> Cell:
    """Sec. 4.1: a B text tower from scratch on cached embeddings of the frozen ViT-g/14.

    Args:
      budget: An int is a number of examples.
    """
    return Cell(
        model=SIGLIT,
        data=LIT,
        loss=loss,
        optimizer=optimizer,
        budget=Budget(examples=budget) if isinstance(budget, int) else budget,
        batch_size=batch_size,
        evals=CACHED_EVALS,
    )


def siglip_cell(
    *,
    batch_size: int,
    budget: int,
    loss: Loss = SIGMOID,
    seed: int = 0,
    optimizer: Optimizer = ADAFACTOR,
    model: Model = SIGLIP,
    data: Data = WEBLI_EN,
    evals: tuple[Eval, ...] = EVALS,
) -> Cell:
    """Sec. 4.2: both B towers from scratch on English WebLI.

    Args:
      budget: Number of examples.
    """
    return Cell(
        model=model,
        data=data,
        loss=loss,
        optimizer=optimizer,
        budget=Budget(examples=budget),
        batch_size=batch_size,
        seed=seed,
        evals=evals,
    )


# --- where they run -------------------------------------------------------------------------------


def execution(cell: Cell) -> Execution:
    """TPU v4, as in the paper: a slice of 4 to 128 chips by model and batch size."""
    return Execution(slice=default_slice(cell), microbatch="auto")


def default_slice(cell: Cell) -> str:
    """A slice whose number of chips divides the batch size of `cell`."""
    image = cell.model.image
    if isinstance(image, CachedImage):
        if cell.batch_size <= 32 * K and cell.examples < 4 * BILLION:
            return "v4-8"
        return "v4-32" if cell.batch_size <= 256 * K else "v4-128"
    if image.size.width > 768:
        return "v4-256"
    if cell.examples > 10 * BILLION or cell.batch_size > 64 * K:
        return "v4-128"
    return "v4-32" if cell.batch_size <= 16 * K else "v4-64"


def paper_study(
    *,
    name: str,
    question: str,
    cells: Iterable[Cell],
    paper: str = "",
    assumptions: tuple[Assumption, ...] = (),
    hardware: str = "",
    matched: tuple[Matched, ...] = (),
) -> Study:
    """A study in the paper's set-ups; before it runs, `check_datasets` looks for its data sets."""
    return Study(
        name=name,
        question=question,
        cells=tuple(cells),
        execution=execution,
        prepare=check_datasets,
        paper=paper,
        assumptions=assumptions,
        hardware=hardware,
        group=FOLDER,
        matched=matched,
    )


def datasets(cells: Iterable[Cell]) -> tuple[str, ...]:
    """The names of the data sets that `cells` are trained and evaluated on, in order of use."""
    names: dict[str, None] = {}
    for cell in cells:
        names[cell.data.dataset] = None
        for evaluation in cell.evals:
            if (name := getattr(evaluation, "dataset", None)) is not None:
                names[name] = None
    return tuple(names)


def check_datasets(data_root: str | Path, *, cells: Iterable[Cell]) -> None:
    """Checks that the data sets of `cells` exist; none of them can be downloaded automatically.

    Raises:
      StudyError: Some are missing; the message says how to make each.
    """
    root = to_path(data_root)
    missing = [name for name in datasets(cells) if not exists(root / name / DATASET_FILE)]
    if missing:
        how = "; ".join(f"{name}: {SOURCES.get(name, '`study data index`')}" for name in missing)
        raise StudyError(f"{root} lacks {', '.join(missing)} (--data names another folder); {how}")
