"""Describes shards that others wrote: counts, fingerprint, splits, tokenizer in a dataset.json.

Nothing is copied. Each tar is scanned once, header by header, and its index kept; the scan also
finds examples without image or text.
"""

from __future__ import annotations

import dataclasses
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
from study.data.formats.tar_index import IMAGE, JSON, TEXT, index_of
from study.data.formats.webdataset import WebdatasetReader
from study.data.parallel import ProgressFn, map_unordered, no_progress
from study.data.tokenizer import Tokenizer, train_tokenizer
from study.records.record import write_json

INDEXED = "indexed"  # the kind of recipe of a set that was found, not made
_TOKENIZER_TEXTS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexResult:
    """What was found: the data set, examples without image or text, shards that were left out."""

    dataset: Dataset
    incomplete: int
    skipped: tuple[str, ...]


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
    """Writes `<out>/dataset.json`, completing the one that is there if there is one.

    Arguments:
      source: a folder of shards, or a pattern such as "/data/cc12m/*.tar".
      out: the folder of the description; None is `source`.
      splits: a pattern of shards for each split, from `source`; None takes the names of files
        (`val-00000.tar`, `coco-val.array_record-00000-of-00001`) or calls all of it train.
      tokenizer: a SentencePiece model; None takes the only .model in `out`.
      train_pieces: train a model of so many pieces on the captions of the first split instead.
      image_key, text_key: see `study.data.formats.webdataset` and `.array_record`.
      hash_files: also note the SHA-256 of every shard, which reads all of them.
      skip_damaged: leave out shards that cannot be read instead of refusing them.

    The fingerprint covers names, keys and byte ranges of all examples (of ArrayRecord: sizes,
    counts, first and last records), the tokenizer, class names and templates.

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
    about = _begun(folder)
    shards = _shards(base, pattern, splits, about)
    image_key = image_key or about.get("image_key")
    text_key = text_key or about.get("text_key")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache = folder / "cache" / "tars"
        tasks = [
            _Task(path=path, cache=cache, image_key=image_key, text_key=text_key)
            for path in itertools.chain(*shards.values())
        ]
        found: dict[Path, _Found] = {}
        for done, one in enumerate(map_unordered(_scan, tasks, workers=workers), start=1):
            found[one.path] = one
            progress("scanning", done, len(tasks))
        damaged = tuple(one.error for one in found.values() if one.error)
        if damaged and not skip_damaged:
            raise DataError(
                f"{len(damaged)} of {len(tasks)} shards are damaged, the first: {damaged[0]}; "
                "or leave them out with --skip-damaged"
            )
        kept = {
            split: [found[path] for path in paths if not found[path].error]
            for split, paths in shards.items()
        }
        kept = {split: ones for split, ones in kept.items() if ones}
        if not kept:
            raise DataError(f"no shard of {source} can be read; the first: {damaged[0]}")
        first = _reader(next(iter(kept.values())), cache, image_key, text_key)
        if isinstance(first, ArrayRecordReader):
            image_key, text_key = first.image_key, first.text_key
        if train_pieces is not None:
            tokenizer = _trained(first, folder, train_pieces)
        model = _tokenizer(folder, tokenizer or about.get("tokenizer"))
        about |= {
            "name": about.get("name", folder.resolve().name),
            "recipe": {"kind": INDEXED},
            "splits": {
                split: {
                    "shards": [_name(one.path, folder) for one in ones],
                    "examples": sum(one.examples for one in ones),
                    "counts": [one.examples for one in ones],
                }
                for split, ones in kept.items()
            },
            "tokenizer": _name(model, folder),
            "channels": about.get("channels") or first.channels(),
        }
        about |= {"image_key": image_key} if image_key else {}
        about |= {"text_key": text_key} if text_key else {}
        for key, file in (("class_names", CLASS_NAMES), ("templates", TEMPLATES)):
            if key not in about and (folder / file).is_file():
                about[key] = file
        files = [about[key] for key in ("tokenizer", "class_names", "templates") if key in about]
        small = sha256_files(folder, files)
        digests = [f"{split} {one.digest}" for split, ones in kept.items() for one in ones]
        listing = "\n".join([*digests, *small.values()])
        about["fingerprint"] = hashlib.sha256(listing.encode()).hexdigest()
        about.pop("sha256", None)
        if hash_files:
            names = [name for split in about["splits"].values() for name in split["shards"]]
            about["sha256"] = small | sha256_files(folder, names)
        write_json(folder / DATASET_FILE, about)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; choose another folder with --out"
        ) from None
    incomplete = sum(one.incomplete for ones in kept.values() for one in ones)
    return IndexResult(dataset=Dataset.open(folder), incomplete=incomplete, skipped=damaged)


# --- one shard ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    path: Path
    cache: Path
    image_key: str | None
    text_key: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """What a shard holds, or why it cannot be read."""

    path: Path
    examples: int = 0
    incomplete: int = 0
    digest: str = ""
    error: str = ""


def _scan(task: _Task) -> _Found:
    path = task.path
    digest = hashlib.sha256(path.name.encode())
    try:
        if is_array_record(path):
            reader = ArrayRecordReader([path], image_key=task.image_key, text_key=task.text_key)
            digest.update(f"{path.stat().st_size} {len(reader)}".encode())
            for i in {0, len(reader) - 1} if len(reader) else set():
                digest.update(reader.record(i))
            return _Found(path=path, examples=len(reader), digest=digest.hexdigest())
        found = index_of(path, task.cache)
    except DataError as error:
        return _Found(path=path, error=str(error))
    for array in (found.keys_N, found.offsets_Nx3, found.sizes_Nx3):
        digest.update(array.tobytes())
    size_Nx3 = found.sizes_Nx3
    without_text_N = (size_Nx3[:, JSON] < 0) & (size_Nx3[:, TEXT] < 0)
    incomplete = int(((size_Nx3[:, IMAGE] <= 0) | without_text_N).sum())
    return _Found(path=path, examples=len(found), incomplete=incomplete, digest=digest.hexdigest())


def _reader(ones: list[_Found], cache: Path, image_key: str | None, text_key: str | None) -> Reader:
    paths, counts = [one.path for one in ones], [one.examples for one in ones]
    if is_array_record(paths[0]):
        return ArrayRecordReader(paths, image_key=image_key, text_key=text_key, counts=counts)
    return WebdatasetReader(paths, text_key=text_key, cache=cache, counts=counts)


# --- what is described --------------------------------------------------------------------------


def _begun(folder: Path) -> dict[str, Any]:
    """The description that is there, which must not be one of a set that was made here."""
    about = read_manifest(folder)
    if about is None:
        if (folder / DATASET_FILE).exists():
            raise DataError(f"{folder / DATASET_FILE} is no JSON object; mend or remove it")
        return {}
    if "fingerprint" in about and about.get("recipe", {}).get("kind") != INDEXED:
        raise DataError(
            f"{folder} is described already, by what wrote it; describe its shards elsewhere "
            "with --out if you must"
        )
    return about


def _shards(
    base: Path, pattern: str | None, splits: Mapping[str, str] | None, about: dict[str, Any]
) -> dict[str, list[Path]]:
    """The shards of each split, in order of their names."""
    if splits or (pattern is None and isinstance(about.get("splits"), dict)):
        wanted = splits or {name: _patterns(said) for name, said in about["splits"].items()}
        found = {name: _matching(base, patterns) for name, patterns in wanted.items()}
        for name, paths in found.items():
            if not paths:
                raise DataError(f"no shard of {base} matches {wanted[name]} for the split {name}")
        return found
    paths = _matching(base, pattern or ["*.tar", f"*{SUFFIX}*"])
    if not paths:
        raise DataError(f"no shards (*.tar, *{SUFFIX}*) at {pattern or base}")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_name[_split_of(path) or "train"].append(path)
    return dict(by_name)


def _patterns(said: Any) -> Any:
    return said.get("shards", []) if isinstance(said, dict) else said


def _matching(base: Path, patterns: Any) -> list[Path]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    found: list[Path] = []
    for one in listed:
        path = base / one
        found += Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted({path for path in found if not path.name.endswith(".index.npz")})


def _split_of(path: Path) -> str | None:
    """The split that a shard's name tells: `val` of val-00000.tar and coco-val.array_record-..."""
    if SUFFIX in path.name:
        return path.name.split(SUFFIX)[0].rpartition("-")[2] or None
    match = re.fullmatch(r"([A-Za-z]\w*)-\d+\.tar", path.name)
    return match.group(1) if match else None


def _name(path: Path, folder: Path) -> str:
    """How dataset.json calls a file: from its folder if it lies inside, else by its full path."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _tokenizer(folder: Path, said: str | Path | None) -> Path:
    if said is not None:
        inside = folder / said
        model = inside if inside.is_file() else Path(said)
    else:
        models = sorted(folder.glob("*.model"))
        if len(models) != 1:
            raise DataError(
                f"{folder} holds {len(models)} SentencePiece models; name one with --tokenizer, "
                "or train one on the captions with --train-tokenizer 32000"
            )
        model = models[0]
    Tokenizer(model, 2)
    return model


def _trained(reader: Reader, folder: Path, pieces: int) -> Path:
    """A model of the first captions, in `folder`."""
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
