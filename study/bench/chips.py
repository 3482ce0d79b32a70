"""What four v4 chips hold (paper Sec. 4.2): the Base model's step with our losses and with naive.

    python -m study.bench.chips > four-chips.csv

The paper says 4,096 examples with the sigmoid loss and 2,048 with the softmax. Each step here is
the whole batch at once with blocks computed again, without microbatches, and once more with the
paper's formulas in place of our losses: the whole table of logits, texts gathered by the compiler.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from study.config.budget import Budget
from study.config.cell import Adafactor, Cell, Loss, Model, Sigmoid, Softmax, TextTransformer, ViT
from study.config.hardware import GIB
from study.planning import tpu_compile
from study.planning.fits import ProgramSpec, RunSetting, canonical, compiled, end_with_parent

SLICE, VOCABULARY, CHUNK = "v4-8", 32_000, 8192
BASE = Model(
    image=ViT(variant="B/16", image_size=224),
    text=TextTransformer(variant="B"),
    embed_dim=768,
    dtype="bfloat16",
)
CASES: tuple[tuple[Loss, int], ...] = ((Sigmoid(), 4096), (Softmax(), 4096), (Softmax(), 2048))
COLUMNS = ("loss", "made_by", "batch_size", "fits", "needed_gib", "usable_gib", "cpu_seconds")


def shape(loss: Loss, batch_size: int) -> ProgramSpec:
    cell = Cell(
        model=BASE,
        loss=loss,
        optimizer=Adafactor(),
        batch_size=batch_size,
        budget=Budget(steps=1000),
    )
    return ProgramSpec(
        cell=canonical(cell, CHUNK),
        vocabulary=VOCABULARY,
        image_shape=(224, 224, 3),
        slice=SLICE,
        chunk_examples=CHUNK,
    )


@contextlib.contextmanager
def naive_losses() -> Iterator[None]:
    """Steps that are made meanwhile take the paper's formulas word for word."""
    import jax.numpy as jnp

    from study.losses import LogitStats, naive
    from study.training import step

    nothing = LogitStats(*[jnp.zeros(())] * len(LogitStats._fields))

    def sigmoid(zimg: Any, ztxt: Any, t: Any, b: Any, **_: Any) -> Any:
        return naive.sigmoid(zimg, ztxt, t, b), nothing

    def softmax(zimg: Any, ztxt: Any, t: Any, **_: Any) -> Any:
        return naive.softmax(zimg, ztxt, t), nothing

    with (
        mock.patch.object(step, "sigmoid_loss", sigmoid),
        mock.patch.object(step, "softmax_loss", softmax),
    ):
        yield


def rows() -> Iterator[dict[str, Any]]:
    """One row of COLUMNS for each loss, batch size and way to make the loss."""
    from study.training.compile import _program

    for made_by in ("ours", "naive"):
        for loss, batch_size in CASES:
            _program.cache_clear()  # it does not know that the losses differ
            patched = naive_losses() if made_by == "naive" else contextlib.nullcontext()
            with patched:
                answer = compiled(shape(loss, batch_size), RunSetting(remat=True))
            yield {
                "loss": loss.kind,
                "made_by": made_by,
                "batch_size": batch_size,
                "fits": answer.fits,
                "needed_gib": round(answer.needed_bytes / GIB, 2),
                "usable_gib": round(answer.usable_bytes / GIB, 2),
                "cpu_seconds": answer.cpu_seconds,
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
