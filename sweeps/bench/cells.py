"""study run sweeps/bench/cells.py --data bench-data

The forty small cells of `study bench sweep` and `study bench chaos`: SigLiT as in `demo`, on few
characters, with all that a cell does besides training (evaluations, checkpoints, rows).
"""

from __future__ import annotations

from pathlib import Path

from study.config import (
    Adam,
    Budget,
    CachedImage,
    Cell,
    Data,
    Execution,
    MeanPoolText,
    Model,
    Sigmoid,
    Softmax,
    ValLoss,
    ZeroShot,
)
from sweeps.study import Study

DATASET = "bench-glyphs"
CHARACTERS, DIM = 400, 96
BATCH_SIZES = (16, 64, 256, 1024)
SEEDS = tuple(range(5))
EXAMPLES = 150_000  # as in `demo`

MODEL = Model(
    image=CachedImage(embeddings=f"hog-lda-{DIM}", dim=DIM),
    text=MeanPoolText(width=DIM),
    embed_dim=DIM,
)


def prepare(data_root: str | Path) -> None:
    """Writes a glyphs data set of few characters to `<data_root>/bench-glyphs`, in seconds."""
    from study.data.glyphs import hog_lda
    from study.data.glyphs.write import write_glyphs

    dataset = write_glyphs(
        Path(data_root) / DATASET, views=1, workers=1, limit_characters=CHARACTERS
    )
    hog_lda.embed(dataset, dim=DIM, workers=1)


def study() -> Study:
    cells = [
        Cell(
            model=MODEL,
            data=Data(dataset=DATASET, text_length=16),
            loss=loss,
            optimizer=Adam(
                learning_rate=1e-2 * (batch_size / 256) ** 0.5, b2=0.95, warmup_percent=5
            ),
            budget=Budget(examples=EXAMPLES),
            batch_size=batch_size,
            seed=seed,
            evals=(
                ZeroShot(split="val_font"),
                ValLoss(split="val_font", every_percent=25),
            ),
        )
        for seed in SEEDS
        for batch_size in BATCH_SIZES
        for loss in (Sigmoid(), Softmax())
    ]
    return Study(
        name="bench",
        question="What does the runner add to the training, and what does it survive?",
        cells=tuple(cells),
        execution=Execution(),
        prepare="sweeps.bench.cells:prepare",
    )
