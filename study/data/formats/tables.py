"""Copies image-text tables into webdataset tars: Hugging Face `datasets` and img2dataset's parquet.

<source>/dataset_dict.json, train/data-00000-of-00002.arrow   `DatasetDict.save_to_disk`
         data-00000-of-00002.arrow                            `Dataset.save_to_disk`
         data/train-00000-of-00004.parquet                    as the Hugging Face hub keeps it
         00000.parquet                                        img2dataset, output_format=parquet

Tables are copied, not read in place: a parquet file is compressed by row groups of 100 and more
examples, so each random read would decode that many images. pyarrow alone reads them; nothing is
downloaded. Encoded images are copied unchanged, and all other columns that JSON can hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from study.data.formats import array_record
from study.data.formats.dataset import DataError
from study.data.formats.index_shards import IndexResult, index_shards
from study.data.formats.webdataset import write_shard
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.records.record import read_json, write_json
from study.records.storage import RecordError, bucket_errors, is_bucket

SUFFIXES = (".parquet", ".arrow")
BEGUN_FILE = "import.json"
IMAGE_KEYS = (*array_record.IMAGE_KEYS, "webp", "img")
TEXT_KEYS = (*array_record.TEXT_KEYS, "TEXT", "alt_text")
_ROWS = 64  # rows in memory as Python objects
_URL = re.compile(r"(^|_)ur[li]s?$", re.IGNORECASE)
_SPLITS = re.compile(r"train|test|validation|valid|val|dev")


def has_tables(source: Path) -> bool:
    """Whether `source` is a folder with tables in it or in its folders."""
    return any(True for _ in _tables(source))


def import_tables(
    source: Path,
    out: str | Path,
    *,
    splits: tuple[str, ...] = (),
    tokenizer: str | Path | None = None,
    train_pieces: int | None = None,
    image_key: str | None = None,
    text_key: str | None = None,
    workers: int = 2,
    progress: ProgressFn = no_progress,
) -> IndexResult:
    """Writes a tar to `out` for each table under `source`, and indexes the tars.

    Complete tars are kept, so an interrupted call can be repeated. A row without image or caption
    becomes an example that is replaced in training; rows whose image img2dataset could not download
    are left out, as in its tars.

    Arguments:
      source: a folder, or one in a bucket.
      splits: the splits to import; empty means all.
      tokenizer, train_pieces: see `index_shards`.
      image_key, text_key: the columns with image and caption; None takes the first of `IMAGE_KEYS`
        and `TEXT_KEYS`, or the only column of that type. Of several captions the first is used.
      workers: processes, each of which copies one table at a time.

    Raises:
      DataError: a missing split or column, a damaged table, images that are not in the table, or
        `out` holds another import.
    """
    out = Path(out)
    by_split = _find_splits(source)
    for split in splits:
        if split not in by_split:
            raise DataError(f"{source} has no split {split!r}; it has: {', '.join(by_split)}")
    tasks = [
        _Task(
            table=table,
            tar=out / f"{split}-{number:05d}.tar",
            number=number,
            image_key=image_key,
            text_key=text_key,
        )
        for split in splits or by_split
        for number, table in enumerate(by_split[split])
    ]
    begun = {
        "source": str(source),
        "image_key": image_key,
        "text_key": text_key,
        "tables": [f"{task.tar.name} {task.table.name}" for task in tasks],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.glob("*.tar")) and read_json(out / BEGUN_FILE) != begun:
            raise DataError(f"{out} holds other shards; remove them or choose another --out")
        write_json(out / BEGUN_FILE, begun)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror}; make room or choose another --out"
        ) from None
    missing = [task for task in tasks if not task.tar.exists()]
    for done, _ in enumerate(map_unordered(_copy, missing, workers=workers), start=1):
        progress("importing", len(tasks) - len(missing) + done, len(tasks))
    return index_shards(
        out, tokenizer=tokenizer, train_pieces=train_pieces, workers=workers, progress=progress
    )


# --- tables -------------------------------------------------------------------------------------


def _tables(source: Path) -> Iterator[Path]:
    for suffix in SUFFIXES:
        for path in source.rglob(f"*{suffix}"):
            if not path.name.startswith("cache-"):  # what `Dataset.map` leaves beside a table
                yield path


def _find_splits(source: Path) -> dict[str, list[Path]]:
    """The tables of each split, sorted; the split is in the name of the file or of its folder."""
    by_split = defaultdict(list)
    for path in sorted(_tables(source), key=str):
        if path.with_suffix(".tar").exists():
            raise DataError(
                f"{path} describes the tar beside it; index the tars in place with "
                f"`study data index {path.parent}`"
            )
        names = re.split(r"\W+", path.stem) + [path.parent.name] * (path.parent != source)
        split = next((name for name in names if _SPLITS.fullmatch(name)), "train")
        by_split[split].append(path)
    return dict(by_split)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema of a table, and its rows in batches."""
    try:
        with (
            bucket_errors(path, "read"),
            path.open("rb") if is_bucket(path) else pa.memory_map(str(path)) as file,
        ):
            if path.suffix == ".parquet":
                table = pyarrow.parquet.ParquetFile(file)
                yield table.schema_arrow, table.iter_batches(_ROWS)
            else:
                stream = pyarrow.ipc.open_stream(file)
                yield stream.schema, iter(stream)
    except RecordError as error:
        raise DataError(str(error)) from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read ({reason}); write or download it again") from None


def _find_columns(
    path: Path, schema: pa.Schema, image_key: str | None, text_key: str | None
) -> tuple[str, str]:
    """The columns with the image and the caption."""
    images = [field.name for field in schema if _holds(field.type, _is_bytes)]
    urls = [field.name for field in schema if _URL.search(field.name)]
    if not images and image_key is None and urls:
        raise DataError(
            f"{path} has addresses of images ({', '.join(urls)}) but no images, and none is "
            "downloaded here; download them with img2dataset, then run `study data index`"
        )
    texts = [field.name for field in schema if _holds(field.type, _is_text)]
    return (
        _choose(path, "image", image_key, images, IMAGE_KEYS),
        _choose(path, "text", text_key, texts, TEXT_KEYS),
    )


def _choose(
    path: Path, kind: str, key: str | None, candidates: list[str], usual: tuple[str, ...]
) -> str:
    names = [key] if key else [*usual, *candidates[: len(candidates) == 1]]
    for name in names:
        if name in candidates:
            return name
    problem = f"no column {key!r} of {kind}s" if key else f"no {kind} column ({', '.join(usual)})"
    fix = f"choose one with --{kind}-key: {', '.join(candidates)}"
    raise DataError(f"{path} has {problem}; {fix if candidates else 'nor any of another name'}")


def _holds(kind: pa.DataType, test: Any) -> bool:
    """Whether values of a column are bytes or texts: plain, in a list, or as `datasets.Image`."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and test(kind.field("bytes").type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return bool(test(kind.value_type))
    return bool(test(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


# --- rows ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """One table to copy into one tar."""

    table: Path
    tar: Path
    number: int
    image_key: str | None
    text_key: str | None


def _copy(task: _Task) -> None:
    with _open(task.table) as (schema, _):
        image, text = _find_columns(task.table, schema, task.image_key, task.text_key)
    examples = (
        (f"{task.number:05d}{i:07d}", _members(task, row, image, text))
        for i, row in enumerate(_read_rows(task.table))
        if "error_message" not in row or row.get("status", "success") == "success"
    )
    write_shard(task.tar, examples)


def _read_rows(table: Path) -> Iterator[dict[str, Any]]:
    with _open(table) as (_, batches):
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                yield from batch.slice(start, _ROWS).to_pylist()


def _members(task: _Task, row: dict[str, Any], image: str, text: str) -> dict[str, bytes]:
    """The members of an example; a missing image or caption has none."""
    data, caption = _first(row.pop(image)), _first(row.pop(text))
    if isinstance(data, dict):
        if data["bytes"] is None and data.get("path"):
            raise DataError(
                f"{task.table} holds the path of an image ({data['path']}), not its bytes; write "
                "the data set with `save_to_disk` or `push_to_hub`, which embed them"
            )
        data = data["bytes"]
    members = {} if data is None else {_kind(data): data}
    members |= {} if caption is None else {"txt": caption.encode()}
    if caption is None and members:
        return members  # an index counts an example as incomplete if it has no text and no json
    plain = {k: v for k, v in row.items() if isinstance(v, str | int | float | None)}
    return members | {"json": json.dumps(plain, ensure_ascii=False).encode()}


def _first(value: Any) -> Any:
    if isinstance(value, list):
        return value[0] if value else None
    return value


def _kind(data: bytes) -> str:
    """The extension of an image; the decoder looks at the bytes alone."""
    if data.startswith(b"\x89PNG"):
        return "png"
    return "webp" if data[8:12] == b"WEBP" else "jpg"
