"""Benchmarks brought into our own format: shards to evaluate on, read like any other data.

The encoded images are copied as they are, beside a `dataset.json` without a tokenizer: evaluations
read the texts with the cell's. Each example's metadata hold "class" (its line in the class names),
"captions" (a list, or lists by language) and "source". `layouts` lists what is read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from study.data.benchmarks.layouts import Benchmark, Example, detect_layout
from study.data.formats.dataset import (
    CLASS_NAMES,
    DATASET_FILE,
    TEMPLATES,
    DataError,
    Dataset,
    write_manifest,
)
from study.data.formats.webdataset import write_shard
from study.data.parallel import ProgressFn, no_progress

SHARD_EXAMPLES = 4096


def import_benchmark(
    source: str | Path,
    out: str | Path,
    *,
    splits: tuple[str, ...] = (),
    images: str | Path | None = None,
    shard_examples: int = SHARD_EXAMPLES,
    progress: ProgressFn = no_progress,
) -> Dataset:
    """Writes the benchmark at `source` to `out` as a data set to evaluate on.

    Arguments:
      splits: those wanted; empty means all.
      images: where the images of a Karpathy JSON lie, if not beside it.

    Raises:
      DataError: no known layout, a missing split or file, damage, or `out` is in use.
    """
    source, out = Path(source), Path(out)
    found = detect_layout(source, images=None if images is None else Path(images))
    wanted = splits or tuple(found.splits)
    for split in wanted:
        if split not in found.splits:
            raise DataError(f"{source} has no split {split!r}; it has: {', '.join(found.splits)}")
        if not re.fullmatch(r"\w[\w.-]*", split):  # it becomes part of the names of files
            raise DataError(f"{source}: the split {split!r} is not a plain name; rename it")
    if (out / DATASET_FILE).exists():
        raise DataError(f"{out} holds a data set already; remove it or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = {}
        for split in wanted:
            written[split] = _write(found, split, out, shard_examples, progress)
        _lines_to(out / CLASS_NAMES, found.class_names)
        _lines_to(out / TEMPLATES, found.templates)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror}; make room or choose another --out"
        ) from None
    recipe = {"layout": found.layout, "source": source.name}
    return write_manifest(out, name=out.name, splits=written, recipe=recipe)


def _write(
    found: Benchmark, split: str, out: Path, shard_examples: int, progress: ProgressFn
) -> tuple[list[str], int]:
    names: list[str] = []
    total = 0
    examples = found.splits[split]()
    while True:
        part = [e for _, e in zip(range(shard_examples), examples, strict=False)]
        if not part:
            break
        names.append(f"{split}-{len(names):05d}.tar")
        rows = ((f"{total + i:09d}", _members(e, found)) for i, e in enumerate(part))
        total += write_shard(out / names[-1], rows)
        progress(f"importing {split}", total, total)
    if not names:
        raise DataError(f"the split {split} of this {found.layout} holds no example")
    return names, total


def _members(example: Example, found: Benchmark) -> dict[str, bytes]:
    about: dict[str, Any] = {"source": example.source}
    text = ""
    if example.label is not None:
        if not 0 <= example.label < len(found.class_names):
            raise DataError(
                f"{example.source} has the class {example.label}, but there are "
                f"{len(found.class_names)} class names"
            )
        about["class"] = example.label
        text = found.class_names[example.label]
    if example.captions is not None:
        about["captions"] = example.captions
        of_one = example.captions
        text = (of_one if isinstance(of_one, list) else next(iter(of_one.values())))[0]
    return {
        example.kind: example.image,
        "txt": text.encode(),
        "json": json.dumps(about, ensure_ascii=False).encode(),
    }


def _lines_to(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
