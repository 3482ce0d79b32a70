"""Our study on emoji-36 as values: the set-up of the `emoji-*` grids.

SigLiT in small, in 36 languages: an EfficientNet-Lite0 trained on ImageNet is frozen, and a text
tower is trained from random values on Noto's and Fluent's drawings. It is tested on Twemoji's, whom
it has never seen, by recall@1 among 1,545 emoji in each language: Table 2, Table 9 and Fig. 8.

The learning rate is FACTOR * sqrt(min(B, 4096) / 256). In `emoji-lr` (294,912 examples, factors of
two, one seed that is used nowhere else) this factor has the best mean recall on val_artist with
both losses at B = 64, 256 and 1,024, and with softmax at 4,096. Sigmoid at 4,096 has 8.0 % with
half of it and 7.9 % with it.

All of these grids share the folder `emoji` under the record root.
"""

from __future__ import annotations

from collections.abc import Iterable

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Data,
    Eval,
    Loss,
    MeanPoolText,
    Model,
    MultilingualRetrieval,
    Sigmoid,
    Softmax,
    ValLoss,
    ViT,
    ZeroShot,
)
from sweeps.grids.rules import PowerRule
from sweeps.study import Assumption, Study

FOLDER = DATASET = "emoji"
SEEDS = (0, 1, 2)
TUNING_SEED = 100
# Examples: 294,912, 1,048,576 and 2,097,152; 16,384 divides them. With twice as many, sigmoid at
# B = 4,096 is no better (22.2 %, one seed): its validation loss rises from a third of the run on.
SHORT, LONG, LONGEST = 18 * 2**14, 2**20, 2**21
FACTOR = 8e-3
LOSSES: tuple[Loss, ...] = (Sigmoid(), Softmax())

DIM, WIDTH = 128, 96
SIGLIT = Model(
    image=CachedImage(embeddings=f"efficientnet-lite0-{DIM}", dim=DIM),
    text=MeanPoolText(width=WIDTH),
    embed_dim=DIM,
)

# Recall by language on the artist whom no run has seen, on line drawings, and on new emoji.
EVALS: tuple[Eval, ...] = (
    MultilingualRetrieval(dataset=DATASET, split="test_artist"),
    MultilingualRetrieval(dataset=DATASET, split="shift_artist"),
    MultilingualRetrieval(dataset=DATASET, split="test_emoji"),
    ZeroShot(split="test_artist"),
    ZeroShot(split="shift_artist"),
    ValLoss(split="test_pairs", every_percent=10),
)

ASSUMPTIONS = (
    Assumption(
        "frozen tower",
        "EfficientNet-Lite0, ImageNet-1k; 128 principal components, half whitened",
        "The only pretrained tower of 17 MB that a package has. With its 1,280 features and a "
        "trained projection a prototype was 4 points worse.",
    ),
    Assumption(
        "text tower",
        "mean of word pieces and one MLP; 16,000 pieces where a grid does not vary them",
        "The smallest transformer takes eight times as long.",
    ),
    Assumption(
        "learning rate",
        "0.008 * sqrt(min(B, 4096) / 256), both losses",
        "The best of five at 294,912 examples in `emoji-lr`, one seed; at B = 4,096 half of it is "
        "as good for sigmoid. Three of them are tried at 1,048,576 too, none at 2,097,152.",
    ),
    Assumption("optimizer", "Adam, b2 = 0.95, clipped at 1, 10 % warm-up", "As the prototype's."),
    Assumption(
        "languages",
        "36, equally frequent",
        "WebLI's 100 languages are far from it; the split train_web has them by web share.",
    ),
)


def emoji_cell(
    *,
    batch_size: int,
    loss: Loss = LOSSES[0],
    seed: int = 0,
    examples: int = SHORT,
    split: str = "train",
    tokenizer: str | None = None,
    model: Model = SIGLIT,
    factor: float = FACTOR,
    warmup_percent: float = 10,
    evals: tuple[Eval, ...] = EVALS,
) -> Cell:
    """A cell on emoji-36, with the settings that all grids share as defaults.

    Args:
      tokenizer: A file in the folder of the data set; None is the data set's own.
      factor: The learning rate at B = 256.
    """
    rate = PowerRule(value=factor, at=256, exponent=0.5, largest=4096)(batch_size)
    return Cell(
        model=model,
        data=Data(dataset=DATASET, split=split, text_length=16, tokenizer=tokenizer),
        loss=loss,
        optimizer=Adam(
            b2=0.95,
            weight_decay=1e-4,
            warmup_percent=warmup_percent,
            clip_norm=1.0,
            learning_rate=rate,
        ),
        budget=Budget(examples=examples),
        batch_size=batch_size,
        seed=seed,
        evals=evals,
    )


def emoji_study(
    *,
    name: str,
    question: str,
    cells: Iterable[Cell],
    paper: str = "",
    prepare: str = "study.interop.emoji:prepare",
    assumptions: tuple[Assumption, ...] = ASSUMPTIONS,
) -> Study:
    return Study(
        name=name,
        question=question,
        cells=tuple(cells),
        prepare=prepare,
        paper=paper,
        assumptions=assumptions,
        group=FOLDER,
        seconds=seconds,
    )


# CPU seconds on one core of a 2.8 GHz Xeon, of seven cells while other programs ran beside them.

PER_CELL = 4.0  # to open, compile, and evaluate in English
PER_LANGUAGES = 5.0  # to evaluate in 36 languages, once
PER_EXAMPLE = 8e-6
PER_PAIR = 10e-9
PER_IMAGE = 80e-6  # in a tower from scratch, of one cell; a worker decodes all images once, in 17 s
SAME_CAPTION = {"negative": 1.0, "masked": 1.4, "positive": 1.8}  # times that, by what they are


def seconds(cell: Cell) -> float:
    """Estimated time of `cell` on one core; within 20 % of those seven."""
    per_pair = PER_PAIR * SAME_CAPTION[cell.loss.same_caption]
    per_example = PER_EXAMPLE + per_pair * cell.batch_size
    if isinstance(cell.model.image, ViT):
        per_example += PER_IMAGE
    languages = sum(isinstance(e, MultilingualRetrieval) for e in cell.evals)
    return PER_CELL + languages * PER_LANGUAGES + cell.examples * per_example
