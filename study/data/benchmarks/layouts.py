"""Reads benchmarks in the layouts that they are published in, as streams of examples.

<source>/<split>/0.tar ...                 CLIP benchmark: webdataset tars of image and .cls
         classnames.txt                      (classification) or image and .txt (retrieval,
         zeroshot_classification_templates.txt   one caption per line)
<source>/<split>/<class>/*.jpg             ImageFolder, optionally with both files above.
                                             Classes are sorted by name, or by number.
                                             Without <split>/ the split is "test".
dataset_coco.json and its images           Karpathy's splits of COCO and Flickr
<source>/captions.jsonl, images/           Crossmodal-3600: captions in 36 languages
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from study.data.formats.dataset import DataError, read_lines, split_lines
from study.data.formats.tar_index import IMAGE_NAMES

CLASSES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
PLAIN_TEMPLATE = "a photo of a {}."
_HOW = "give a folder or file in one of the layouts that `study data import --help` lists"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image, encoded, with its class or its captions."""

    source: str
    kind: str
    image: bytes
    label: int | None = None
    captions: list[str] | dict[str, list[str]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A published benchmark: for each split, a function that starts a stream of its examples."""

    layout: str
    splits: dict[str, Callable[[], Iterator[Example]]]
    class_names: list[str] = dataclasses.field(default_factory=list)
    templates: list[str] = dataclasses.field(default_factory=list)


def detect_layout(source: Path, *, images: Path | None = None) -> Benchmark:
    """Detects the layout of the benchmark at `source`, from lists of files alone.

    Arguments:
      images: the folder of the images that a listing names; None is its usual place.

    Raises:
      DataError: an unknown layout.
    """
    if source.is_file() and source.suffix == ".json":
        return _karpathy(source, images or source.parent)
    if (source / "captions.jsonl").is_file():
        return _crossmodal(source, images or source / "images")
    if not source.is_dir():
        raise DataError(f"{source} does not exist; {_HOW}")
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    if with_tars := [folder for folder in folders if any(folder.glob("*.tar"))]:
        return _clip_benchmark(source, with_tars)
    if with_classes := [folder for folder in folders if _class_folders(folder)]:
        return _image_folder(source, {folder.name: folder for folder in with_classes})
    if _class_folders(source):
        return _image_folder(source, {"test": source})
    raise DataError(f"{source} has an unknown layout; {_HOW}")


def _clip_benchmark(source: Path, folders: list[Path]) -> Benchmark:
    names = _lines(source / CLASSES)
    templates = [line.replace("{c}", "{}") for line in _lines(source / TEMPLATES)]

    def reader(folder: Path) -> Callable[[], Iterator[Example]]:
        tars = sorted(folder.glob("*.tar"), key=lambda p: (len(p.stem), p.stem))  # 2 before 10
        return lambda: (example for tar in tars for example in _read_tar(tar))

    return Benchmark(
        layout="CLIP benchmark",
        splits={folder.name: reader(folder) for folder in folders},
        class_names=names,
        templates=templates or ([PLAIN_TEMPLATE] if names else []),
    )


def _read_tar(tar: Path) -> Iterator[Example]:
    """The examples of a webdataset tar, in which members of one key are adjacent."""
    key = ""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(tar, "r:*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, slash, base = member.name.rpartition("/")
                stem, _, kind = base.partition(".")
                if folder + slash + stem != key:
                    if members:
                        yield _example(f"{tar.name}/{key}", members)
                    key, members = folder + slash + stem, {}
                file = archive.extractfile(member)
                assert file is not None
                members[kind.lower()] = file.read()
        if members:
            yield _example(f"{tar.name}/{key}", members)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{tar} is damaged ({error}); download it again") from None


def _example(name: str, members: dict[str, bytes]) -> Example:
    kind = next((k for k in members if k in IMAGE_NAMES), None)
    if kind is None:
        raise DataError(f"{name} has no image ({', '.join(IMAGE_NAMES)}); download it again")
    if "cls" in members:
        try:
            label = int(members["cls"])
        except ValueError:
            raise DataError(f"the class of {name} is not an integer; download it again") from None
        return Example(source=name, kind=kind, image=members[kind], label=label)
    try:
        captions = [line for line in split_lines(members.get("txt", b"").decode("utf-8")) if line]
    except UnicodeDecodeError:
        raise DataError(f"the captions of {name} are not UTF-8; download it again") from None
    if not captions:
        raise DataError(f"{name} has neither a class (cls) nor captions (txt)")
    return Example(source=name, kind=kind, image=members[kind], captions=captions)


def _image_folder(source: Path, splits: dict[str, Path]) -> Benchmark:
    folders = {folder.name for split in splits.values() for folder in _class_folders(split)}
    numbers = all(name.isdecimal() for name in folders)
    classes = sorted(folders, key=int if numbers else str)
    names = _lines(source / CLASSES) or classes
    if len(names) != len(classes):
        raise DataError(
            f"{source}: {len(names)} lines in {CLASSES}, {len(classes)} class folders; "
            "write one line per folder, in the order of their names"
        )
    templates = [line.replace("{c}", "{}") for line in _lines(source / TEMPLATES)]
    label = {name: i for i, name in enumerate(classes)}

    def reader(split: Path) -> Callable[[], Iterator[Example]]:
        return lambda: (
            Example(
                source=str(path.relative_to(source)),
                kind=_kind(path),
                image=_bytes(path),
                label=label[folder.name],
            )
            for folder in _class_folders(split)
            for path in sorted(folder.iterdir())
            if _kind(path) in IMAGE_NAMES
        )

    return Benchmark(
        layout="ImageFolder",
        splits={name: reader(folder) for name, folder in splits.items()},
        class_names=names,
        templates=templates or [PLAIN_TEMPLATE],
    )


def _karpathy(path: Path, images: Path) -> Benchmark:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["images"]
        by_split: dict[str, list[tuple[str, list[str]]]] = {}
        for entry in entries:
            name = str(Path(entry.get("filepath", ""), entry["filename"]))
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            by_split.setdefault(entry["split"], []).append((name, texts))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a Karpathy split ({error!r}); {_HOW}") from None

    def reader(split: str) -> Callable[[], Iterator[Example]]:
        return lambda: (
            _captioned(_inside(images, name, path), texts) for name, texts in by_split[split]
        )

    return Benchmark(layout="Karpathy split", splits={split: reader(split) for split in by_split})


def _crossmodal(source: Path, images: Path) -> Benchmark:
    def read() -> Iterator[Example]:
        path = source / "captions.jsonl"
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    key = row["image/key"]
                    texts = {
                        language: about["caption"]
                        for language, about in row.items()
                        if isinstance(about, dict) and "caption" in about
                    }
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{path}, line {number}: {error!r}; download it again"
                    ) from None
                yield _captioned(_inside(images, f"{key}.jpg", path), texts)

    return Benchmark(layout="Crossmodal-3600", splits={"test": read})


def _inside(images: Path, name: str, listing: Path) -> Path:
    """The image `name` of a listing, which must be inside `images` after following links.

    A listing is downloaded. Without this check it could copy any file of this machine.
    """
    try:
        file = (images / name).resolve()
        if file.is_relative_to(images.resolve()):
            return images / name
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte
        pass
    raise DataError(
        f"{listing}: the image {name!r} is not inside {images}; correct the entry, or give the "
        "folder that holds all images with --images"
    )


def _captioned(file: Path, captions: list[str] | dict[str, list[str]]) -> Example:
    if _kind(file) not in IMAGE_NAMES:
        raise DataError(f"{file} is not an image by its name ({', '.join(IMAGE_NAMES)}); rename it")
    return Example(source=file.name, kind=_kind(file), image=_bytes(file), captions=captions)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror}; complete the benchmark, or give the folder of its images "
            "with --images"
        ) from None


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _class_folders(split: Path) -> list[Path]:
    """Folders in `split` that contain images."""
    return [
        folder
        for folder in sorted(split.iterdir())
        if folder.is_dir() and any(_kind(path) in IMAGE_NAMES for path in folder.iterdir())
    ]


def _lines(path: Path) -> list[str]:
    """The lines of a file; none if it is missing."""
    return read_lines(path) if path.is_file() else []
