"""What four v4 chips hold (paper Sec. 4.2): the Base model's step with our losses and with naive.

    python -m study.bench.chips > four-chips.csv

The paper says 4,096 examples with the sigmoid loss and 2,048 with the softmax. Each step here is
the whole batch at once with blocks computed again, without microbatches, and again with the
paper's formulas in place of our losses: the whole table of logits, texts gathered by the compiler.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from study.config import (
    Adafactor,
    Budget,
    Cell,
    Loss,
    Model,
    Sigmoid,
    Softmax,
    TextTransformer,
    ViT,
)
from study.config.hardware import GIB
from study.planning import tpu_compile
from study.planning.fits import ProgramSpec, RunSetting, compile_report, end_with_parent
from study.training.compile_key import memory_key

if TYPE_CHECKING:
    from study.losses import LogitStats
    from study.training.step import Embeddings

SLICE, VOCABULARY, CHUNK = "v4-8", 32_000, 8192
BASE = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)
CASES: tuple[tuple[Loss, int], ...] = ((Sigmoid(), 4096), (Softmax(), 4096), (Softmax(), 2048))
COLUMNS = (
    *("loss", "implementation", "batch_size", "fits"),
    *("needed_gib", "usable_gib", "cpu_seconds"),
)


def spec(loss: Loss, batch_size: int) -> ProgramSpec:
    cell = Cell(
        model=BASE,
        loss=loss,
        optimizer=Adafactor(),
        batch_size=batch_size,
        budget=Budget(steps=1000),
    )
    return ProgramSpec(
        cell=memory_key(cell, CHUNK),
        vocabulary=VOCABULARY,
        image_shape=(224, 224, 3),
        slice=SLICE,
        chunk_examples=CHUNK,
    )


def naive_loss(
    cell: Cell, z: Embeddings, params: Any, _key: Any, _keep: Any, _queue: Any, _mesh: Any
) -> tuple[Any, LogitStats]:
    """The paper's formulas word for word, without statistics."""
    import jax.numpy as jnp

    from study.losses import LogitStats, naive

    t = jnp.exp(params["t"][0])
    if isinstance(cell.loss, Sigmoid):
        loss = naive.sigmoid(z.zimg_BxE, z.ztxt_BxE, t, params["b"][0])
    else:
        loss = naive.softmax(z.zimg_BxE, z.ztxt_BxE, t)
    return loss, LogitStats(*[jnp.zeros(())] * len(LogitStats._fields))


def rows() -> Iterator[dict[str, Any]]:
    """One row of COLUMNS for each loss, batch size and way to make the loss."""
    for implementation, loss_fn in (("ours", None), ("naive", naive_loss)):
        for loss, batch_size in CASES:
            report = compile_report(
                spec(loss, batch_size), RunSetting(remat="nothing_saveable"), loss_fn=loss_fn
            )
            yield {
                "loss": loss.kind,
                "implementation": implementation,
                "batch_size": batch_size,
                "fits": report.fits,
                "needed_gib": round(report.needed_bytes / GIB, 2),
                "usable_gib": round(report.usable_bytes / GIB, 2),
                "cpu_seconds": report.cpu_seconds,
            }


def main() -> None:
    if sys.argv[1:] == ["child"]:
        end_with_parent()
        for row in rows():
            print(json.dumps(row), flush=True)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in tpu_compile.run_python(["-m", "study.bench.chips", "child"], stdin=""):
        writer.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
