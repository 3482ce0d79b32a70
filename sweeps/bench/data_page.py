"""The results of `study bench data` and `study bench bucket` as rows, and as pages."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from study.bench.data import Result
from study.bench.loaders import CONTENDERS
from sweeps.bench.history import describe_commit, describe_machine

HEAD = (
    "input",
    "from",
    "loader",
    "examples/s",
    "CPU-s per 1,000",
    "ours / its rate",
    "its / our CPU",
    "processes",
    "memory, MiB",
    "bytes per example",
    "requests per 1,000",
    "with a neighbour",
    "shards in a batch",
)
RIGHT = frozenset(range(3, len(HEAD)))
_LIBRARIES = ("grain", "array_record", "webdataset", "torch", "gcsfs", "numpy", "pillow")
_NOTES = """\
    study bench data --bucket --out results/bench

writes this page and `data.json`. Each loader runs in a process of its own, and they take turns:
{rounds} rounds of {seconds} s, in which a loader goes on where it stopped. Rates, CPU time and
ratios are of all rounds together. All do the same work: they decode {images:,} JPEGs of 256 x 340
pixels, resize them to {image_size} and tokenize the captions, in batches of {batch_size}; or they
read {embeddings:,} rows of float16 and their tokens, in batches of {row_batch_size:,} (webdataset
tokenizes the captions; its rows are .npy members). Each has {workers} threads or processes. Shards
are in the page cache.

- A ratio above 1 is in favour of ours, which is read in global order from disk and in blocks order
  from the bucket.
- CPU time and memory are those of all processes of a loader. A page that n processes share counts
  as 1/n; mapped files that are in memory count.
- The bucket is fake-gcs-server on loopback. Its CPU time is not counted as the loader's, but the
  cores are shared. Ours reads by ranges, as of a set too large to be copied to the machine; in
  blocks order images are read in windows of 8 blocks of 32, so that a round takes several.
- How well a loader shuffles is simulated for 32 shards of 8,192 examples: the share of examples in
  a batch of 1,024 that have one of their 16 neighbours on either side in it, and the shards that a
  batch is from. Ours in blocks order has the default blocks there.
"""

BUCKET_HEAD = (
    "order",
    "disk, examples/s",
    "bucket, examples/s",
    "bucket / disk",
    "disk waits",
    "bucket waits",
    "bytes per example",
    "requests per 1,000",
    "equal",
    "after a kill too",
)
_BUCKET_NOTES = """\
    study bench bucket --out results/bench

writes this page and `bucket.json`. The same small SigLIP cell trains on {examples:,} glyphs at
B = {batch_size}, from a folder and from a Google Cloud Storage server on loopback in turn, {rounds}
times each, in processes of their own; the rate is that of the training steps.

- "waits" is the largest share of the time between two rows in which the device waited for data.
- "equal": all runs recorded the same metrics, bit for bit. "after a kill too": so did a run from
  the bucket that was killed at its first checkpoint and started again.
- "copied" are shards that fit into the cache of this machine ($STUDY_DATA_CACHE_GB), which is empty
  when a run starts; the others are read by ranges.
- The server shares the cores of the training.
"""


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The items under `HEAD`."""
    return [(r.case, r.place, _label(r.name), *_numbers(r)) for r in results]


def write(results: Sequence[Result], folder: Path, options: dict[str, Any]) -> list[Path]:
    """Writes data.json, and data.md from it. Raises as `write_json_of` does.

    Arguments:
      options: the arguments of `study.bench.data.bench`.
    """
    recorded, page = write_json_of(results, folder / "data.json", options), folder / "data.md"
    page.write_text(render(json.loads(recorded.read_text())))
    return [recorded, page]


def bucket_rows(results: Sequence[Any]) -> list[tuple[str, ...]]:
    """The items under `BUCKET_HEAD`, of results of `study.bench.bucket_training`."""
    return [
        (
            f"{r.order}, copied" if r.copies else r.order,
            f"{r.disk_per_s:,.0f}",
            f"{r.bucket_per_s:,.0f}",
            _median(r.ratios),
            f"{r.disk_wait:.1%}",
            f"{r.bucket_wait:.1%}",
            f"{r.sent:,.0f}",
            f"{1000 * r.requests:,.3g}",
            "yes" if r.equal else "NO",
            {True: "yes", False: "NO", None: ""}[r.resumed_equal],
        )
        for r in results
    ]


def write_bucket(results: Sequence[Any], folder: Path, options: dict[str, Any]) -> list[Path]:
    """Writes bucket.json and bucket.md. Raises as `write_json_of` does."""
    recorded, page = write_json_of(results, folder / "bucket.json", options), folder / "bucket.md"
    about = json.loads(recorded.read_text())
    title, notes = "Training from a bucket", _BUCKET_NOTES.format(**options)
    right = range(1, len(BUCKET_HEAD) - 2)
    page.write_text(_page(title, notes, about, BUCKET_HEAD, bucket_rows(results), right))
    return [recorded, page]


def write_json_of(results: Sequence[Any], path: Path, options: dict[str, Any]) -> Path:
    """Writes results with options, date, commit, machine and versions of libraries.

    Raises:
      StudyError: the code does not run from a checkout.
    """
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": describe_commit(),
        "machine": describe_machine(),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
        "options": options,
        "results": [dataclasses.asdict(result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n")
    return path


def render(about: dict[str, Any]) -> str:
    """The page that shows a data.json."""
    results = [Result(**values) for values in about["results"]]
    title = "Loading data: ours, webdataset, Grain and PyTorch"
    return _page(title, _NOTES.format(**about["options"]), about, HEAD, rows(results), RIGHT)


def _page(
    title: str,
    notes: str,
    about: dict[str, Any],
    head: Sequence[str],
    items: Sequence[Sequence[str]],
    right: Collection[int],
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"# {title}\n",
        notes,
        f"{about['date']}, commit {about['commit']}, {about['machine']}; {versions}.\n",
        "| " + " | ".join(head) + " |",
        "|" + "|".join("---:" if i in right else "---" for i in range(len(head))) + "|",
        *("| " + " | ".join(row) + " |" for row in items),
    ]
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    if name not in CONTENDERS:
        return "Grain, webdataset tars"
    return (CONTENDERS[name].__doc__ or name).rstrip(".")


def _numbers(r: Result) -> tuple[str, ...]:
    if r.not_available:
        return (f"not available: {r.not_available}", *("" for _ in HEAD[4:]))
    assert r.per_s is not None and r.cpu_s is not None and r.pss is not None
    return (
        f"{r.per_s:,.0f}",
        f"{r.cpu_s:.3g}",
        "" if r.ratio is None else f"{r.ratio:.3g}",
        "" if r.cpu_ratio is None else f"{r.cpu_ratio:.3g}",
        str(r.processes),
        f"{r.pss / 2**20:,.0f}",
        "" if r.sent is None else f"{r.sent:,.0f}",
        "" if r.requests is None else f"{1000 * r.requests:.3g}",
        "" if r.with_neighbour is None else f"{r.with_neighbour:.0%}",
        "" if r.shards is None else f"{r.shards:.3g}",
    )


def _median(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3g}" if ratios else ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
