"""A data set as a folder: shards, a tokenizer, class names and templates, under one fingerprint.

<folder>/dataset.json           written last: a folder without it is unfinished
         <split>-00000.tar ...  webdataset shards, as img2dataset writes them, or ArrayRecord
         sentencepiece.model    any SentencePiece model
         classnames.txt  templates.txt   where zero-shot classification is evaluated
         embeddings/<tower>/    cached image embeddings (`study.data.embeddings`)
         cache/                 what can be made again (`study.data.cache`)

A set that others wrote needs a dataset.json of two entries, which `study data index` completes
with counts and a fingerprint; shards and tokenizer may lie elsewhere:

{"splits": {"train": {"shards": ["/data/cc12m/*.tar"]}}, "tokenizer": "c4_en.model"}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from study.errors import UserError
from study.records.record import write_json

DATASET_FILE = "dataset.json"
TOKENIZER, CLASS_NAMES, TEMPLATES = "sentencepiece.model", "classnames.txt", "templates.txt"
HINT = "write the set again (`study data glyphs --out ... --force`) or download it again"


class DataError(UserError, ValueError):
    """Data that cannot be used: one line that names what is wrong and how to mend it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its shards in order, how many examples they hold together and, if known, each."""

    name: str
    shards: tuple[Path, ...]
    examples: int
    counts: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A finished data set on disk. Equal fingerprints mean equal examples in equal order.

    class_names, templates: empty where the set has none. image_key, text_key: where an example's
    image and caption are, if not where its format has them. channels: of all images, if noted.
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

    @property
    def index_cache(self) -> Path:
        """Where indexes of tars in a read-only folder are kept."""
        return self.folder / "cache" / "tars"

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Reads dataset.json and checks that each file it names is there.

        Raises:
          DataError: no such folder, an unfinished one, a file that is missing or no text.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(
                f"no data set at {folder}; bring shards there and `study data index {folder}` (a "
                f"benchmark: `study data import`; the built-in: `study data glyphs --out {folder}`)"
                ", or choose another --data"
            )
        about = read_manifest(folder)
        if about is None:
            raise DataError(
                f"{folder} has no readable {DATASET_FILE}, so the data set is unfinished; run the "
                f"command that writes it again (glyphs: `study data glyphs --out {folder}`), or "
                f"`study data index {folder}` if another program wrote its shards"
            )
        try:
            unfinished = any("examples" not in split for split in about["splits"].values())
            if unfinished or "fingerprint" not in about:
                raise DataError(
                    f"{folder / DATASET_FILE} lacks the contents of its shards; complete it with "
                    f"`study data index {folder}`"
                )
            splits = {
                name: Split(
                    name=name,
                    shards=tuple(folder / shard for shard in split["shards"]),
                    examples=int(split["examples"]),
                    counts=tuple(split["counts"]) if "counts" in split else None,
                )
                for name, split in about["splits"].items()
            }
            tokenizer = folder / (about.get("tokenizer") or TOKENIZER)
            fingerprint = str(about["fingerprint"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / DATASET_FILE} lacks the entry {error}; {HINT}") from None
        lists = {key: folder / about[key] for key in ("class_names", "templates") if key in about}
        shards = [shard for split in splits.values() for shard in split.shards]
        # What is only evaluated on has no tokenizer: its texts are read with the cell's own.
        needed = [tokenizer] if about.get("tokenizer") else []
        for path in [*shards, *needed, *lists.values()]:
            if not path.is_file():
                raise DataError(f"{path} is missing; {HINT}")
        return cls(
            folder=folder,
            name=str(about.get("name", folder.name)),
            fingerprint=fingerprint,
            splits=splits,
            class_names=tuple(read_lines(lists["class_names"])) if "class_names" in lists else (),
            templates=tuple(read_lines(lists["templates"])) if "templates" in lists else (),
            tokenizer=tokenizer,
            recipe=about.get("recipe", {}),
            hashes=about.get("sha256", {}),
            image_key=about.get("image_key"),
            text_key=about.get("text_key"),
            channels=about.get("channels"),
        )

    def split(self, name: str) -> Split:
        """The split of that name; DataError lists those that exist."""
        if name not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise DataError(f"the data set {self.name} has no split {name!r}; it has: {known}")
        return self.splits[name]

    def verify(self) -> None:
        """Reads every file and compares it with the SHA-256 noted when the set was written.

        Raises:
          DataError: the first file that differs, or no hashes noted.
        """
        if not self.hashes:
            raise DataError(
                f"{self.folder} has no hashes to compare with; note them once with "
                f"`study data index {self.folder} --hash`"
            )
        for name, now in sha256_files(self.folder, sorted(self.hashes)).items():
            if now != self.hashes[name]:
                raise DataError(f"{self.folder / name} has changed since it was written; {HINT}")


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
    """The lines of a UTF-8 file, see `split_lines`.

    Raises:
      DataError: the file is not UTF-8.
      OSError: it cannot be read.
    """
    try:  # `read_text` would turn a "\r" inside a line into the end of it
        return split_lines(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of dataset.json, or None where it is missing or no JSON object."""
    try:
        about = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def write_manifest(
    folder: Path,
    *,
    name: str,
    splits: Mapping[str, tuple[list[str], int]],
    recipe: dict[str, Any],
    version: int = 1,
) -> Dataset:
    """Writes dataset.json over files that are already there, and opens the data set.

    splits: for each split its shard names in order, and its number of examples. A tokenizer is
    part of it if there is one.
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


def sha256_files(folder: Path, files: list[str]) -> dict[str, str]:
    """The SHA-256 of each file, named from `folder`."""

    def digest(file: str) -> str:
        with (folder / file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter
        return dict(zip(files, pool.map(digest, files), strict=True))
