"""Describes existing shards in a dataset.json: splits, counts, tokenizer and fingerprint.

Nothing is copied. Each tar is scanned once, header by header, and its index kept; the scan also
finds examples without image or text.
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
from study.data.formats.tar_index import IMAGE, JSON, TEXT, load_or_scan
from study.data.formats.webdataset import WebdatasetReader
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.tokenizer import Tokenizer, train_tokenizer
from study.records.record import write_json

INDEXED = "indexed"  # recipe["kind"] of a data set that was indexed rather than made here
_TOKENIZER_TEXTS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexResult:
    """The data set, its number of examples without image or text, and errors of skipped shards."""

    dataset: Dataset
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
    progress: ProgressFn = no_progress,
) -> IndexResult:
    """Writes `<out>/dataset.json`, or completes an existing one.

    The fingerprint covers names, keys and byte ranges of all examples (for ArrayRecord: sizes,
    counts, first and last records), the tokenizer, class names and templates.

    Arguments:
      source: a folder of shards, or a pattern such as "/data/cc12m/*.tar".
      out: the folder of dataset.json; None is `source`.
      splits: a pattern of shards for each split, relative to `source`; None takes the splits from
        file names (`val-00000.tar`, `coco-val.array_record-00000-of-00001`), else all is train.
      tokenizer: a SentencePiece model; None takes the only .model file in `out`.
      train_pieces: instead, train a model of this size on the captions of the first split.
      image_key, text_key: see `WebdatasetReader` and `ArrayRecordReader`.
      hash_files: also record the SHA-256 of every shard, which reads all of them.
      skip_damaged: skip shards that cannot be read instead of raising.
      workers: processes.

    Raises:
      DataError: no shards, a damaged one, no tokenizer, or a folder that cannot be written.
    """
    pattern = str(source) if set(str(source)) & set("*?[") else None
    if pattern is not None and out is None:
        raise DataError(f"{pattern} is a pattern; name a folder for its {DATASET_FILE} with --out")
    base = Path() if pattern is not None else Path(source)
    folder = Path(out) if out is not None else base
    if pattern is None and not base.is_dir():
        raise DataError(f"no folder {base}; give a folder of shards, or a pattern in quotes")
    manifest = _read_unfinished(folder)
    paths = _find_shards(base, pattern, splits, manifest)
    image_key = image_key or manifest.get("image_key")
    text_key = text_key or manifest.get("text_key")
    try:
        cache = folder / "cache" / "tars"
        folder.mkdir(parents=True, exist_ok=True)
        scan = functools.partial(_scan, cache=cache, image_key=image_key, text_key=text_key)
        shards: dict[Path, _Shard] = {}
        count = sum(map(len, paths.values()))
        results = map_unordered(scan, [*itertools.chain(*paths.values())], workers=workers)
        for done, shard in enumerate(results, start=1):
            shards[shard.path] = shard
            progress("scanning", done, count)
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
            "name": manifest.get("name", folder.resolve().name),
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
            if key not in manifest and (folder / file).is_file():
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
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; choose another folder with --out"
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
        paths = {name: _glob(base, patterns) for name, patterns in splits.items()}
        for name in paths:
            if not paths[name]:
                raise DataError(f"no shard of {base} matches {splits[name]} for the split {name}")
        return paths
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in _glob(base, pattern or ["*.tar", f"*{SUFFIX}*"]):
        if SUFFIX in path.name:  # coco-val.array_record-00000-of-00001
            split = path.name.split(SUFFIX)[0].rpartition("-")[2]
        else:  # val-00000.tar
            match = re.fullmatch(r"([A-Za-z]\w*)-\d+\.tar", path.name)
            split = match.group(1) if match else ""
        by_name[split or "train"].append(path)
    if not by_name:
        raise DataError(f"no shards (*.tar, *{SUFFIX}*) at {pattern or base}")
    return dict(by_name)


def _glob(base: Path, patterns: Any) -> list[Path]:
    paths: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = base / pattern
        paths.update(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    return sorted(path for path in paths if not path.name.endswith(".index.npz"))


def _scan(path: Path, *, cache: Path, image_key: str | None, text_key: str | None) -> _Shard:
    digest = hashlib.sha256(path.name.encode())
    try:
        if is_array_record(path):
            reader = ArrayRecordReader([path], image_key=image_key, text_key=text_key)
            digest.update(f"{path.stat().st_size} {len(reader)}".encode())
            for i in {0, len(reader) - 1} if len(reader) else set():
                digest.update(reader.record(i))
            return _Shard(path=path, examples=len(reader), digest=digest.hexdigest())
        index = load_or_scan(path, cache)
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
        if (folder / DATASET_FILE).exists():
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
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _find_tokenizer(folder: Path, name: str | Path | None) -> Path:
    if name is not None:
        model = folder / name if (folder / name).is_file() else Path(name)
    else:
        models = sorted(folder.glob("*.model"))
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
        try:
            texts.append(reader.text(i))
        except BadExampleError:
            continue
    if not any(text.strip() for text in texts):
        raise DataError("no caption to train a tokenizer on; see --text-key")
    path = folder / TOKENIZER
    path.write_bytes(train_tokenizer(texts, vocabulary=pieces))
    return path
