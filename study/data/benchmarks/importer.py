"""Copies published benchmarks into our own format, as data sets to evaluate on.

Encoded images are copied unchanged. The data set has no tokenizer, because evaluations read texts
with the cell's. The metadata of each example hold "class" (an index into the class names),
"captions" (a list, or lists by language) and "source". `layouts` reads the benchmarks.
"""

from __future__ import annotations

import itertools
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
    write_lines,
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
    """Writes the benchmark at `source` to `out`.

    Arguments:
      splits: the splits to import; empty means all.
      images: the folder of the images that a Karpathy JSON names; None is that of the JSON.

    Raises:
      DataError: an unknown layout, a missing split or file, damage, or `out` is in use.
    """
    source, out = Path(source), Path(out)
    benchmark = detect_layout(source, images=None if images is None else Path(images))
    splits = splits or tuple(benchmark.splits)
    for split in splits:
        if split not in benchmark.splits:
            known = ", ".join(benchmark.splits)
            raise DataError(f"{source} has no split {split!r}; it has: {known}")
        if not re.fullmatch(r"\w[\w.-]*", split):  # it becomes part of file names
            raise DataError(f"{source}: the split {split!r} is not a plain name; rename it")
    if (out / DATASET_FILE).exists():
        raise DataError(f"{out} holds a data set already; remove it or choose another --out")
    written = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for split in splits:
            names: list[str] = []
            total = 0
            examples = benchmark.splits[split]()
            while part := list(itertools.islice(examples, shard_examples)):
                names.append(f"{split}-{len(names):05d}.tar")
                rows = ((f"{total + i:09d}", _members(e, benchmark)) for i, e in enumerate(part))
                total += write_shard(out / names[-1], rows)
                progress(f"importing {split}", total, total)
            if not names:
                raise DataError(f"the split {split} of this {benchmark.layout} has no examples")
            written[split] = (names, total)
        write_lines(out / CLASS_NAMES, benchmark.class_names)
        write_lines(out / TEMPLATES, benchmark.templates)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror}; make room or choose another --out"
        ) from None
    recipe = {"layout": benchmark.layout, "source": source.name}
    return write_manifest(out, name=out.name, splits=written, recipe=recipe)


def _members(example: Example, benchmark: Benchmark) -> dict[str, bytes]:
    metadata: dict[str, Any] = {"source": example.source}
    text = ""
    if example.label is not None:
        if not 0 <= example.label < len(benchmark.class_names):
            raise DataError(
                f"{example.source} has the class {example.label}, but there are "
                f"{len(benchmark.class_names)} class names"
            )
        metadata["class"] = example.label
        text = benchmark.class_names[example.label]
    if example.captions is not None:
        metadata["captions"] = captions = example.captions
        text = (captions if isinstance(captions, list) else next(iter(captions.values())))[0]
    return {
        example.kind: example.image,
        "txt": text.encode(),
        "json": json.dumps(metadata, ensure_ascii=False).encode(),
    }
