"""A data set on disk or in a bucket: shards, tokenizer, class names and templates.

<folder>/dataset.json           the manifest, written last: a folder without it is unfinished
         <split>-00000.tar ...  webdataset shards, as img2dataset writes them, or ArrayRecord
         sentencepiece.model    any SentencePiece model
         classnames.txt  templates.txt   for zero-shot classification
         embeddings/<tower>/    cached image embeddings (`study.data.embeddings`)
         tokens/<tokenizer>/    tokens that do not fit in memory (`study.data.token_shards`)
         cache/                 derived arrays, safe to delete (`study.data.cache`)

For shards of other programs, write a dataset.json of two entries. `study data index` then adds
counts and a fingerprint. Shards and tokenizer may be in other folders, and in buckets:

{"splits": {"train": {"shards": ["gs://lab/cc12m-{00000..01242}.tar"]}}, "tokenizer": "c4_en.model"}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from study.config import Execution
from study.data import files, local_cache
from study.data.errors import HINT, DataError
from study.records.record import write_json
from study.records.storage import read

DATASET_FILE = "dataset.json"
TOKENIZER, CLASS_NAMES, TEMPLATES = "sentencepiece.model", "classnames.txt", "templates.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its shards in order, the number of examples, and of each shard if known.

    Attributes:
      images: the split that has the images, if this one is a table of (image, text) rows over them
        (`study.data.formats.pairs`).
    """

    name: str
    shards: tuple[Path, ...]
    examples: int
    counts: tuple[int, ...] | None = None
    images: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A finished data set. Equal fingerprints mean equal examples in equal order.

    Attributes:
      folder: on disk or in a bucket.
      stats: size and version of the shards that are in a bucket.
      class_names, templates: empty if the data set has none.
      recipe: how the data set was made.
      hashes: the recorded SHA-256 of each file, by name.
      image_key, text_key: the fields with an example's image and caption, if not the usual ones.
      channels: of all images, if recorded.
    """

    folder: Path
    name: str
    fingerprint: str
    splits: dict[str, Split] = dataclasses.field(repr=False)
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    templates: tuple[str, ...] = dataclasses.field(repr=False)
    tokenizer: Path
    recipe: dict[str, Any] = dataclasses.field(repr=False)
    hashes: dict[str, str] = dataclasses.field(repr=False)
    image_key: str | None = None
    text_key: str | None = None
    channels: int | None = None
    stats: Mapping[Path, files.Stat] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def cache_folder(self) -> Path:
        """The folder on this machine for what is derived from the data set."""
        return local_cache.derived(self.folder)

    @property
    def index_cache(self) -> Path:
        """The folder for indexes of tars whose own folder is read-only."""
        return self.cache_folder / "tars"

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Reads dataset.json and checks that the files it names exist.

        Raises:
          DataError: a missing or unfinished folder, or a file that is missing or not text.
        """
        folder = files.to_path(folder)
        manifest = read_manifest(folder)
        remote = files.is_bucket(folder)
        if manifest is None and not (
            files.exists(folder / DATASET_FILE) if remote else folder.is_dir()
        ):
            raise DataError(
                f"no data set at {folder}; put shards there and run `study data index {folder}` "
                f"(benchmarks: `study data import`; built-in: `study data glyphs --out {folder}`), "
                "or choose another --data"
            )
        if manifest is None:
            raise DataError(
                f"{folder} has no readable {DATASET_FILE}, so the data set is unfinished; run the "
                f"command that writes it again (glyphs: `study data glyphs --out {folder}`), or "
                f"`study data index {folder}` if another program wrote its shards"
            )
        try:
            splits = manifest["splits"]
            indexed = all("examples" in split for split in splits.values())
            if not indexed or "fingerprint" not in manifest:
                raise DataError(
                    f"{folder / DATASET_FILE} lacks the contents of its shards; complete it with "
                    f"`study data index {folder}`"
                )
            splits = {
                name: Split(
                    name=name,
                    shards=tuple(files.join(folder, shard) for shard in split["shards"]),
                    examples=int(split["examples"]),
                    counts=tuple(split["counts"]) if "counts" in split else None,
                    images=split.get("images"),
                )
                for name, split in splits.items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / DATASET_FILE} lacks the entry {error}; {HINT}") from None
        paths = [shard for split in splits.values() for shard in split.shards]
        # Data sets for evaluation have no tokenizer: their texts are read with the cell's own.
        names = [manifest.get(key) for key in ("tokenizer", "class_names", "templates")]
        paths += [files.join(folder, name) for name in names if name]
        stats = files.stat_all(paths)
        for path in paths:
            if path not in stats:
                raise DataError(f"{path} is missing; {HINT}")
        lines = {
            key: tuple(read_lines(files.join(folder, manifest[key]))) if key in manifest else ()
            for key in ("class_names", "templates")
        }
        return cls(
            folder=folder,
            name=str(manifest.get("name", folder.name)),
            fingerprint=str(manifest["fingerprint"]),
            splits=splits,
            class_names=lines["class_names"],
            templates=lines["templates"],
            tokenizer=files.join(folder, manifest.get("tokenizer") or TOKENIZER),
            recipe=manifest.get("recipe", {}),
            hashes=manifest.get("sha256", {}),
            image_key=manifest.get("image_key"),
            text_key=manifest.get("text_key"),
            channels=manifest.get("channels"),
            stats={path: stat for path, stat in stats.items() if files.is_bucket(path)},
        )

    def split(self, name: str) -> Split:
        """The split `name`; DataError lists the existing ones."""
        if name not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise DataError(f"the data set {self.name} has no split {name!r}; it has: {names}")
        return self.splits[name]

    def verify(self) -> None:
        """Compares every file with its recorded SHA-256.

        Raises:
          DataError: the first file that differs, or no recorded hashes.
        """
        if not self.hashes:
            raise DataError(
                f"{self.folder} has no recorded hashes; record them with "
                f"`study data index {self.folder} --hash`"
            )
        for name, digest in sha256_files(self.folder, sorted(self.hashes)).items():
            if digest != self.hashes[name]:
                raise DataError(f"{self.folder / name} has changed since it was written; {HINT}")


def open_dataset(execution: Execution, name: str) -> Dataset:
    """Opens a data set where a cell's execution says, with its cache. Raises as `Dataset.open`."""
    local_cache.configure(execution.data_cache, execution.data_cache_gb)
    return Dataset.open(files.to_path(execution.data_root) / name)


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, which end in "\n" or "\r\n".

    `str.splitlines` also splits at U+2028, U+0085 and others, which occur inside captions: every
    later row would then belong to another example.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; see `split_lines`.

    Raises:
      DataError: the file cannot be read, or is not UTF-8.
    """
    try:  # `read_text` would turn a "\r" inside a line into a line end
        return split_lines(files.read_bytes(path).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8"
        ) from None


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of dataset.json; None if it is missing or not a JSON object.

    Raises:
      DataError: a bucket that cannot be read.
    """
    path = folder / DATASET_FILE
    try:
        with files.errors(path):
            manifest = json.loads(read(path))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def write_manifest(
    folder: Path,
    *,
    name: str,
    splits: Mapping[str, tuple[list[str], int]],
    recipe: dict[str, Any],
    version: int = 1,
    images: Mapping[str, str] | None = None,
) -> Dataset:
    """Writes dataset.json for files that exist in `folder`, and opens the data set.

    Arguments:
      splits: for each split its shard names in order, and its number of examples.
      images: for each split of pairs, the split that has the images.
    """
    shards = [shard for names, _ in splits.values() for shard in names]
    tokenizer = [TOKENIZER] if (folder / TOKENIZER).exists() else []
    hashes = sha256_files(folder, sorted([*shards, *tokenizer, CLASS_NAMES, TEMPLATES]))
    listing = "".join(f"{file} {digest}\n" for file, digest in sorted(hashes.items()))
    write_json(
        folder / DATASET_FILE,
        {
            "name": name,
            "version": version,
            "recipe": recipe,
            "splits": {
                split: {"shards": names, "examples": examples}
                | ({"images": images[split]} if images and split in images else {})
                for split, (names, examples) in splits.items()
            },
            "tokenizer": TOKENIZER if tokenizer else None,
            "class_names": CLASS_NAMES,
            "templates": TEMPLATES,
            "bytes": {file: (folder / file).stat().st_size for file in hashes},
            "sha256": hashes,
            "fingerprint": hashlib.sha256(listing.encode()).hexdigest(),
        },
    )
    return Dataset.open(folder)


def sha256_files(folder: Path, names: list[str]) -> dict[str, str]:
    """The SHA-256 of each file, by its name relative to `folder`."""

    def digest(file: str) -> str:
        path = files.join(folder, file)
        if files.is_bucket(path):
            return files.sha256(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with ThreadPoolExecutor(2) as pool:  # hashing releases the GIL
        return dict(zip(names, pool.map(digest, names), strict=True))
