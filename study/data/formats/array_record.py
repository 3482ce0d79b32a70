"""Examples of ArrayRecord files of tf.train.Example, as TFDS writes them."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.data.formats.dataset import HINT, DataError, Dataset
from study.data.formats.reader import Reader, check_length
from study.data.formats.tf_example import Value, parse

SUFFIX = ".array_record"
IMAGE_KEYS = ("image", "image/encoded", "jpg", "png")
TEXT_KEYS = ("caption", "captions", "text", "txt", "captions/text", "image/caption")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """All records of a file, in the words of ArrayRecord, which then need not open it to count."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class ArrayRecordReader(Reader):
    """Examples of ArrayRecord files. Threads and processes may share it.

    Arguments:
      counts: records of each file, if known: else each file is opened to count them.
      image_key, text_key: the features that hold the encoded image and the caption; None takes
        the first usual name that the first record has. Of several captions the first is taken.

    Raises:
      DataError: a file that is missing or no ArrayRecord, or features that are not there.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        image_key: str | None = None,
        text_key: str | None = None,
        counts: Sequence[int] | None = None,
    ):
        self.paths = tuple(Path(path) for path in paths)
        self.counts = tuple(counts or map(_count, self.paths))
        self._ends = list(itertools.accumulate(self.counts))
        self._source = _opened(
            [
                _Part(filename=str(path), skip=0, take=count, examples_in_shard=count)
                for path, count in zip(self.paths, self.counts, strict=True)
            ]
        )
        self.image_key = image_key or self._usual("image", IMAGE_KEYS)
        self.text_key = text_key or self._usual("text", TEXT_KEYS)

    @classmethod
    def open(cls, dataset: Dataset, split: str) -> ArrayRecordReader:
        """The reader of a split, whose number of examples must be the one in dataset.json."""
        about = dataset.split(split)
        reader = cls(
            about.shards,
            image_key=dataset.image_key,
            text_key=dataset.text_key,
            counts=about.counts,
        )
        check_length(reader, dataset, split)
        return reader

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, i: int) -> str:
        return f"record {i - self._start(i)}"

    def path(self, i: int) -> Path:
        return self.paths[bisect.bisect_right(self._ends, i)]

    def image(self, i: int) -> bytes:
        return self._bytes(i, self._features(i), "image", self.image_key)

    def text(self, i: int) -> str:
        return self._text(i, self._features(i))

    def pair(self, i: int) -> tuple[bytes, str]:
        features = self._features(i)
        return self._bytes(i, features, "image", self.image_key), self._text(i, features)

    def json(self, i: int) -> dict[str, Any]:
        """All other features, a single value as itself; "class" is the feature "label"."""
        about: dict[str, Any] = {}
        for name, values in self._features(i).items():
            if name not in (self.image_key, self.text_key):
                plain = [_plain(value) for value in values]
                about[name] = plain[0] if len(plain) == 1 else plain
        return about | ({"class": about["label"]} if "label" in about else {})

    # --- records --------------------------------------------------------------------------------

    def _start(self, i: int) -> int:
        shard = bisect.bisect_right(self._ends, i)
        return self._ends[shard - 1] if shard else 0

    def record(self, i: int) -> bytes:
        """The record as it is."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        try:
            return self._source[i]
        except (ValueError, RuntimeError) as error:
            raise self.bad_example(i, f"it cannot be read ({_said(error)})") from None

    def _features(self, i: int) -> dict[str, Value]:
        record = self.record(i)
        try:
            return parse(record)
        except ValueError as error:
            raise self.bad_example(i, f"it cannot be read ({error})") from None

    def _text(self, i: int, features: dict[str, Value]) -> str:
        try:
            return self._bytes(i, features, "text", self.text_key).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad_example(i, f"its text is not UTF-8 ({error.reason})") from None

    def _bytes(self, i: int, features: dict[str, Value], what: str, name: str) -> bytes:
        values = features.get(name)
        if not values or not isinstance(values[0], bytes):
            raise self.bad_example(i, f"it has no {what} (feature {name!r})")
        return values[0]

    def _usual(self, what: str, names: Sequence[str]) -> str:
        if not len(self):
            return names[0]
        here = self._features(0)
        for name in names:
            if name in here:
                return name
        raise DataError(
            f"{self.paths[0]}: no feature is called as {what}s usually are ({', '.join(names)}); "
            f"it has {', '.join(sorted(here))}: name one with `study data index --{what}-key`"
        )


def _opened(files: Any) -> Any:
    from grain.sources import ArrayRecordDataSource  # slow to import, and tars do without

    return ArrayRecordDataSource(files)


def _count(path: Path) -> int:
    if not path.is_file():
        raise DataError(f"{path}: No such file; {HINT}")
    try:
        return len(_opened(str(path)))
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(f"{path} is no ArrayRecord file ({_said(error)}); {HINT}") from None


def _plain(value: bytes | float) -> str | float:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
