"""Describes existing shards in a dataset.json: splits, counts, tokenizer and fingerprint.

Nothing is copied. Each tar is scanned once, header by header, and its index kept next to it (of a
read-only bucket on this machine), so an interrupted run continues, and several machines may share
the work. The scan also finds examples without image or text.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from study.data import files
from study.data.files import Stat
from study.data.formats.array_record import SUFFIX, ArrayRecordReader
from study.data.formats.dataset import (
    CLASS_NAMES,
    DATASET_FILE,
    TEMPLATES,
    TOKENIZER,
    DataError,
    Dataset,
    read_manifest,
    sha256_files,
)
from study.data.formats.open_split import is_array_record
from study.data.formats.reader import BadExampleError, Reader
from study.data.formats.tar_index import IMAGE, INDEX_SUFFIX, JSON, TEXT, load_or_scan
from study.data.formats.webdataset import WebdatasetReader
from study.data.local_cache import derived
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.tokenizer import Tokenizer, train_tokenizer
from study.records.record import atomic_write, write_json
from study.records.storage import RecordError, is_bucket, mkdir

INDEXED = "indexed"  # recipe["kind"] of a data set that was indexed rather than made here
_TOKENIZER_TEXTS = 1_000_000
_CHUNK = 1 << 14  # captions that are fetched at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexResult:
    """The data set, its number of examples without image or text, and errors of skipped shards.

    Attributes:
      dataset: None while other machines have not indexed their part.
    """

    dataset: Dataset | None
    incomplete: int
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shard:
    """The contents of a shard, or the reason why it cannot be read."""

    path: Path
    examples: int = 0
    incomplete: int = 0
    digest: str = ""
    error: str = ""


def index_shards(
    source: str | Path,
    *,
    out: str | Path | None = None,
    splits: Mapping[str, str] | None = None,
    tokenizer: str | Path | None = None,
    train_pieces: int | None = None,
    image_key: str | None = None,
    text_key: str | None = None,
    hash_files: bool = False,
    skip_damaged: bool = False,
    workers: int = 2,
    part: tuple[int, int] = (0, 1),
    progress: ProgressFn = no_progress,
) -> IndexResult:
    """Writes `<out>/dataset.json`, or completes an existing one.

    The fingerprint covers names, keys and byte ranges of all examples (for ArrayRecord: sizes,
    counts, first and last records), the tokenizer, class names and templates.

    Arguments:
      source: a folder of shards, or a pattern such as "/data/cc12m/*.tar" or
        "gs://lab/cc12m-{00000..01242}.tar" (`study.data.files.expand`).
      out: the folder of dataset.json; None is `source`.
      splits: a pattern of shards for each split, relative to `source`; None takes the splits from
        file names (`val-00000.tar`, `coco-val.array_record-00000-of-00001`), else all is train.
      tokenizer: a SentencePiece model; None takes the only .model file in `out`.
      train_pieces: instead, train a model of this size on the captions of the first split.
      image_key, text_key: see `WebdatasetReader` and `ArrayRecordReader`.
      hash_files: also record the SHA-256 of every shard, which reads all of them.
      skip_damaged: skip shards that cannot be read instead of raising.
      workers: processes.
      part: (k, n): only every n-th shard from the k-th on, for n machines. Whichever finds all
        shards indexed writes dataset.json.

    Raises:
      DataError: no shards, a damaged one, no tokenizer, or a folder that cannot be written.
    """
    pattern = str(source) if set(str(source)) & set("*?[{") else None
    if pattern is not None and out is None:
        raise DataError(f"{pattern} is a pattern; name a folder for its {DATASET_FILE} with --out")
    base = Path() if pattern is not None else files.to_path(source)
    folder = files.to_path(out) if out is not None else base
    if pattern is None and not is_bucket(base) and not base.is_dir():
        raise DataError(f"no folder {base}; give a folder of shards, or a pattern in quotes")
    manifest = _read_unfinished(folder)
    paths = _find_shards(base, pattern, splits, manifest)
    image_key = image_key or manifest.get("image_key")
    text_key = text_key or manifest.get("text_key")
    try:
        cache = derived(folder) / "tars"
        mkdir(folder)
        scan = functools.partial(_scan, cache=cache, image_key=image_key, text_key=text_key)
        stats = files.stat_all(itertools.chain(*paths.values()))
        tasks = list(stats.items())
        mine = tasks[part[0] :: part[1]]
        shards: dict[Path, _Shard] = {}
        for done, shard in enumerate(map_unordered(scan, mine, workers=workers), start=1):
            shards[shard.path] = shard
            progress("scanning", done, len(mine))
        others = [(path, stat) for path, stat in tasks if path not in shards]
        if others and not _all_indexed(others):
            errors = tuple(shard.error for shard in shards.values() if shard.error)
            return IndexResult(dataset=None, incomplete=0, skipped=errors)
        shards |= {shard.path: shard for shard in map_unordered(scan, others, workers=workers)}
        count = len(tasks)
        errors = tuple(shard.error for shard in shards.values() if shard.error)
        if errors and not skip_damaged:
            raise DataError(
                f"{len(errors)} of {count} shards are damaged, the first: {errors[0]}; "
                "or skip them with --skip-damaged"
            )
        good = {
            split: [shards[path] for path in names if not shards[path].error]
            for split, names in paths.items()
        }
        good = {split: members for split, members in good.items() if members}
        if not good:
            raise DataError(f"no shard of {source} can be read; the first: {errors[0]}")
        reader = _open_shards(next(iter(good.values())), cache, image_key, text_key)
        if isinstance(reader, ArrayRecordReader):
            image_key, text_key = reader.image_key, reader.text_key
        if train_pieces is not None:
            tokenizer = _train_on_captions(reader, folder, train_pieces)
        model = _find_tokenizer(folder, tokenizer or manifest.get("tokenizer"))
        manifest |= {
            "name": manifest.get("name", files.to_path(files.absolute(folder)).name),
            "recipe": {"kind": INDEXED},
            "splits": {
                split: {
                    "shards": [_relative(shard.path, folder) for shard in members],
                    "examples": sum(shard.examples for shard in members),
                    "counts": [shard.examples for shard in members],
                }
                for split, members in good.items()
            },
            "tokenizer": _relative(model, folder),
            "channels": manifest.get("channels") or reader.channels(),
        }
        manifest |= {"image_key": image_key} if image_key else {}
        manifest |= {"text_key": text_key} if text_key else {}
        for key, file in (("class_names", CLASS_NAMES), ("templates", TEMPLATES)):
            if key not in manifest and files.exists(folder / file):
                manifest[key] = file
        keys = ("tokenizer", "class_names", "templates")
        hashes = sha256_files(folder, [manifest[key] for key in keys if key in manifest])
        digests = [f"{split} {s.digest}" for split, members in good.items() for s in members]
        listing = "\n".join([*digests, *hashes.values()])
        manifest["fingerprint"] = hashlib.sha256(listing.encode()).hexdigest()
        manifest.pop("sha256", None)
        if hash_files:
            names = [name for split in manifest["splits"].values() for name in split["shards"]]
            manifest["sha256"] = hashes | sha256_files(folder, names)
        write_json(folder / DATASET_FILE, manifest)
    except (OSError, RecordError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(
            f"cannot write {folder}: {reason or error}; choose another folder with --out"
        ) from None
    return IndexResult(
        dataset=Dataset.open(folder),
        incomplete=sum(shard.incomplete for members in good.values() for shard in members),
        skipped=errors,
    )


# --- shards -------------------------------------------------------------------------------------


def _find_shards(
    base: Path, pattern: str | None, splits: Mapping[str, str] | None, manifest: dict[str, Any]
) -> dict[str, list[Path]]:
    """The shards of each split, sorted by name."""
    if splits is None and pattern is None and isinstance(manifest.get("splits"), dict):
        splits = {
            name: entry.get("shards", []) if isinstance(entry, dict) else entry
            for name, entry in manifest["splits"].items()
        }
    if splits:
        paths = {name: _expand(base, patterns) for name, patterns in splits.items()}
        for name in paths:
            if not paths[name]:
                raise DataError(f"no shard of {base} matches {splits[name]} for the split {name}")
        return paths
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in _expand(base, pattern or ["*.tar", f"*{SUFFIX}*"]):
        if SUFFIX in path.name:  # coco-val.array_record-00000-of-00001
            split = path.name.split(SUFFIX)[0].rpartition("-")[2]
        else:  # val-00000.tar
            match = re.fullmatch(r"([A-Za-z]\w*)-\d+\.tar", path.name)
            split = match.group(1) if match else ""
        by_name[split or "train"].append(path)
    if not by_name:
        raise DataError(f"no shards (*.tar, *{SUFFIX}*) at {pattern or base}")
    return dict(by_name)


def _expand(base: Path, patterns: Any) -> list[Path]:
    paths = files.expand(base, patterns)
    return [path for path in paths if not path.name.endswith(INDEX_SUFFIX)]


def _all_indexed(shards: list[tuple[Path, Stat]]) -> bool:
    """Whether other machines have indexed these tars, to the last."""
    tars = {path: stat for path, stat in shards if not is_array_record(path)}
    indexes = {path: path.with_name(path.name + INDEX_SUFFIX) for path in tars}
    stats = files.stat_all(indexes.values())
    return all(
        index in stats and (not is_bucket(path) or stats[index].version > tars[path].version)
        for path, index in indexes.items()
    )


def _scan(
    task: tuple[Path, Stat], *, cache: Path, image_key: str | None, text_key: str | None
) -> _Shard:
    path, stat = task
    digest = hashlib.sha256(path.name.encode())
    try:
        if is_array_record(path):
            reader = ArrayRecordReader([path], image_key=image_key, text_key=text_key)
            digest.update(f"{stat.size} {len(reader)}".encode())
            for i in {0, len(reader) - 1} if len(reader) else set():
                digest.update(reader.record(i))
            return _Shard(path=path, examples=len(reader), digest=digest.hexdigest())
        index = load_or_scan(path, cache, stat=stat, publish=True)
    except DataError as error:
        return _Shard(path=path, error=str(error))
    for array in (index.keys_N, index.offsets_Nx3, index.sizes_Nx3):
        digest.update(array.tobytes())
    size_Nx3 = index.sizes_Nx3
    no_text_N = (size_Nx3[:, JSON] < 0) & (size_Nx3[:, TEXT] < 0)
    incomplete = int(((size_Nx3[:, IMAGE] <= 0) | no_text_N).sum())
    return _Shard(path=path, examples=len(index), incomplete=incomplete, digest=digest.hexdigest())


def _open_shards(
    shards: list[_Shard], cache: Path, image_key: str | None, text_key: str | None
) -> Reader:
    paths, counts = [shard.path for shard in shards], [shard.examples for shard in shards]
    if is_array_record(paths[0]):
        return ArrayRecordReader(paths, image_key=image_key, text_key=text_key, counts=counts)
    return WebdatasetReader(paths, text_key=text_key, cache=cache, counts=counts)


# --- the manifest -------------------------------------------------------------------------------


def _read_unfinished(folder: Path) -> dict[str, Any]:
    """The existing dataset.json, unless it describes a data set that was made here."""
    manifest = read_manifest(folder)
    if manifest is None:
        if files.exists(folder / DATASET_FILE):
            raise DataError(f"{folder / DATASET_FILE} is not a JSON object; fix or remove it")
        return {}
    if "fingerprint" in manifest and manifest.get("recipe", {}).get("kind") != INDEXED:
        raise DataError(
            f"{folder} was described by the program that wrote it; describe its shards in another "
            "folder with --out"
        )
    return manifest


def _relative(path: Path, folder: Path) -> str:
    """The path of a file in dataset.json: relative if it is inside `folder`, else absolute."""
    if is_bucket(path):
        return str(path).removeprefix(f"{str(folder).rstrip('/')}/")
    path = path.resolve()
    if is_bucket(folder):
        return str(path)
    folder = folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _find_tokenizer(folder: Path, name: str | Path | None) -> Path:
    if name is not None:
        model = files.join(folder, str(name))
        model = model if files.exists(model) else files.to_path(name)
    else:
        models = files.expand(folder, "*.model")
        if len(models) != 1:
            raise DataError(
                f"{folder} holds {len(models)} SentencePiece models; name one with --tokenizer, "
                "or train one on the captions with --train-tokenizer 32000"
            )
        model = models[0]
    Tokenizer(model, 2)  # raises if it cannot be used
    return model


def _train_on_captions(reader: Reader, folder: Path, pieces: int) -> Path:
    """Trains a tokenizer on the first captions and writes it to `folder`."""
    texts = []
    for i in range(min(len(reader), _TOKENIZER_TEXTS)):
        if i % _CHUNK == 0:
            reader.prefetch(np.arange(i, min(i + _CHUNK, len(reader))), image=False)
        try:
            texts.append(reader.text(i))
        except BadExampleError:
            continue
    if not any(text.strip() for text in texts):
        raise DataError("no caption to train a tokenizer on; see --text-key")
    path = folder / TOKENIZER
    with atomic_write(path) as file:
        file.write(train_tokenizer(texts, vocabulary=pieces))
    return path
