"""The paper's set-ups as values: what the grids of its figures and tables are made of.

"Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343v4). Two cells that are the same
run in the paper are equal values here, whatever figure lists them, so they have one id and one
record: all of these grids share the folder `paper` under the root of records.

What the paper does not say is in `sweeps.grids.paper.assumptions`, one named assumption each.
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
from sweeps.study import Assumption, Matched, Study, StudyError

FOLDER = "paper"

# --- counts ---------------------------------------------------------------------------------------

MILLION, BILLION = 10**6, 10**9
K = 1024  # the paper's tables print 16k for 16384; its figures print 65, 131, 262 for 64k to 256k

# --- data -----------------------------------------------------------------------------------------

LIT = Data(dataset="lit", tokenizer="c4_en.model", lower_case="ascii")
WEBLI_EN = Data(dataset="webli-en", tokenizer="c4_en.model", lower_case="ascii", resize="bilinear")
WEBLI_100 = Data(dataset="webli-100", tokenizer="mc4.model", lower_case="ascii", resize="bilinear")

# How each data set comes to be under the data root; what lacks one of them says this.
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
    """Canonical prompts and the 0.875 central crop, as the code base evaluates."""
    return ZeroShot(
        dataset=dataset, split=split, crop=0.875, canonical=True, every_percent=every_percent
    )


IMAGENET = zero_shot("imagenet", "val", every_percent=10)
VALIDATION = ValLoss(split="val", every_percent=5)
EVALS: tuple[Eval, ...] = (IMAGENET, VALIDATION)
# Cached embeddings are of whole images, which no evaluation can crop.
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
    examples: int,
    loss: Loss = SIGMOID,
    seed: int = 0,
    budget: Budget | None = None,
    optimizer: Optimizer = ADAFACTOR,
) -> Cell:
    """Sec. 4.1: a B text tower from scratch beside cached embeddings of the frozen ViT-g/14."""
    return Cell(
        model=SIGLIT,
        data=LIT,
        loss=loss,
        optimizer=optimizer,
        budget=budget or Budget(examples=examples),
        batch_size=batch_size,
        seed=seed,
        evals=CACHED_EVALS,
    )


def siglip_cell(
    *,
    batch_size: int,
    examples: int,
    loss: Loss = SIGMOID,
    seed: int = 0,
    optimizer: Optimizer = ADAFACTOR,
    model: Model = SIGLIP,
    data: Data = WEBLI_EN,
    evals: tuple[Eval, ...] = EVALS,
) -> Cell:
    """Sec. 4.2: both B towers from scratch on English WebLI."""
    return Cell(
        model=model,
        data=data,
        loss=loss,
        optimizer=optimizer,
        budget=Budget(examples=examples),
        batch_size=batch_size,
        seed=seed,
        evals=evals,
    )


def msiglip_cell(*, batch_size: int) -> Cell:
    """Sec. 4.3: 100 languages, 30B examples, the factored embedding of 250k pieces."""
    return siglip_cell(
        batch_size=batch_size,
        examples=30 * BILLION,
        model=MSIGLIP,
        data=WEBLI_100,
        evals=MULTILINGUAL,
    )


# --- where they run -------------------------------------------------------------------------------


def execution(cell: Cell) -> Execution:
    """TPU v4, as in the paper: the smallest slice of Table 1's kind for such a model and batch."""
    return Execution(slice=default_slice(cell), microbatch="auto")


def default_slice(cell: Cell) -> str:
    """4 to 128 chips; every batch size of the paper is a multiple of its slice's chips."""
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
    """A study in the paper's set-ups: its data sets are asked for before anything starts."""
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
    """The data sets that cells train and are evaluated on."""
    found: dict[str, None] = {}
    for cell in cells:
        found[cell.data.dataset] = None
        for evaluation in cell.evals:
            if (name := getattr(evaluation, "dataset", None)) is not None:
                found[name] = None
    return tuple(found)


def check_datasets(data_root: str | Path, *, cells: Iterable[Cell]) -> None:
    """Checks that the data sets of cells are there; none of them can be fetched for the user.

    Raises:
      StudyError: which are missing, and how each is brought in.
    """
    root = Path(data_root)
    missing = [name for name in datasets(cells) if not (root / name).is_dir()]
    if missing:
        how = "; ".join(f"{name}: {SOURCES.get(name, '`study data index`')}" for name in missing)
        raise StudyError(f"{root} lacks {', '.join(missing)} (--data names another folder); {how}")
