"""Examples in ArrayRecord files of tf.train.Example, as TFDS writes them; without TensorFlow.

Files in a bucket are read from copies on this machine if the whole split fits into the data cache.
Else the library reads them itself, one request for each record, by the retries of Google's client:
it takes names of files, not streams, so the ranges of a window cannot be handed to it.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from study.data.files import exists, is_bucket, to_path
from study.data.formats.dataset import HINT, DataError
from study.data.formats.reader import Reader
from study.data.local_cache import Copies

SUFFIX = ".array_record"
IMAGE_KEYS = ("image", "image/encoded", "jpg", "png")
TEXT_KEYS = ("caption", "captions", "text", "txt", "captions/text", "image/caption")

_THREADS = 4  # copy files from a bucket
Features = dict[str, list[bytes] | list[float] | list[int]]

# tensorflow/core/example/example.proto and feature.proto, as a descriptor.
_EXAMPLE_PROTO = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 oneof_index: 0
    label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
  field { name: "float_list" number: 2 oneof_index: 0
    label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.FloatList" }
  field { name: "int64_list" number: 3 oneof_index: 0
    label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Int64List" } }
message_type { name: "Features"
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2
      label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Feature" } }
  field { name: "feature" number: 1
    label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".tensorflow.Features.FeatureEntry" } }
message_type { name: "Example"
  field { name: "features" number: 1
    label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.Features" } }
"""


@functools.cache
def example_class() -> Any:
    """The message class of tf.train.Example."""
    # Its own pool, because TensorFlow, if some library imports it, defines the same messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """One file and its number of records, with the attributes that ArrayRecord expects."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class ArrayRecordReader(Reader):
    """Examples of ArrayRecord files. Threads and processes may share it.

    Arguments:
      copies: where files of a bucket are copied to before they are read; None reads them in place.
      counts: number of records in each file; None opens each file to count them.
      image_key, text_key: the features with the encoded image and the caption; None takes the
        first of `IMAGE_KEYS` and `TEXT_KEYS` in the first record. Of several captions the first
        is used.

    Raises:
      DataError: a file that is missing or not ArrayRecord, or records without these features.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        image_key: str | None = None,
        text_key: str | None = None,
        counts: Sequence[int] | None = None,
        copies: Copies | None = None,
    ):
        self.paths = tuple(to_path(path) for path in paths)
        self.counts = tuple(counts or map(_count, self.paths))
        self._ends = list(itertools.accumulate(self.counts))
        self._copies = copies if copies is not None and copies.admitted else None
        self._copied = [self._copies is None or not is_bucket(path) for path in self.paths]
        self._source = _open(
            [
                _File(
                    filename=str(path if done else self._copies.target(path)),  # type: ignore[union-attr]
                    skip=0,
                    take=count,
                    examples_in_shard=count,
                )
                for path, done, count in zip(self.paths, self._copied, self.counts, strict=True)
            ]
        )
        self.image_key = image_key or self._find_key("image", IMAGE_KEYS)
        self.text_key = text_key or self._find_key("text", TEXT_KEYS)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, i: int) -> str:
        shard = bisect.bisect_right(self._ends, i)
        return f"record {i - (self._ends[shard - 1] if shard else 0)}"

    def path(self, i: int) -> Path:
        return self.paths[bisect.bisect_right(self._ends, i)]

    def prefetch(
        self, index_N: np.ndarray, *, image: bool = True, text: bool = True, json: bool = False
    ) -> None:
        if self._copies is not None:
            shards = np.unique(np.searchsorted(self._ends, np.asarray(index_N), side="right"))
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._copy, shards.tolist()))

    def _copy(self, shard: int) -> None:
        if not self._copied[shard] and self._copies is not None:
            self._copies.path(self.paths[shard])
            self._copied[shard] = True

    def image(self, i: int) -> bytes:
        return self._image(i, self._features(i))

    def text(self, i: int) -> str:
        return self._text(i, self._features(i))

    def pair(self, i: int) -> tuple[bytes, str]:
        features = self._features(i)  # read and parsed once
        return self._image(i, features), self._text(i, features)

    def json(self, i: int) -> dict[str, Any]:
        """All other features, a single value without its list; "class" is the feature "label"."""
        metadata: dict[str, Any] = {}
        for name, values in self._features(i).items():
            if name not in (self.image_key, self.text_key):
                plain = [
                    v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values
                ]
                metadata[name] = plain[0] if len(plain) == 1 else plain
        return metadata | ({"class": metadata["label"]} if "label" in metadata else {})

    def record(self, i: int) -> bytes:
        """The serialized tf.train.Example."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        self._copy(bisect.bisect_right(self._ends, i))
        try:
            return self._source[i]
        except (ValueError, RuntimeError) as error:
            raise self.bad_example(i, f"it cannot be read ({_first_line(error)})") from None

    def _features(self, i: int) -> Features:
        try:
            example = example_class().FromString(self.record(i))
        except message.DecodeError as error:
            raise self.bad_example(
                i, f"it cannot be read (not a tf.train.Example: {error})"
            ) from None
        features: Features = {}
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind")
            features[name] = list(getattr(feature, kind).value) if kind else []
        return features

    def _image(self, i: int, features: Features) -> bytes:
        return self._bytes(i, features, "image", self.image_key)

    def _text(self, i: int, features: Features) -> str:
        try:
            return self._bytes(i, features, "text", self.text_key).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad_example(i, f"its text is not UTF-8 ({error.reason})") from None

    def _bytes(self, i: int, features: Features, what: str, name: str) -> bytes:
        values = features.get(name)
        if not values or not isinstance(values[0], bytes):
            raise self.bad_example(i, f"it has no {what} (feature {name!r})")
        return values[0]

    def _find_key(self, what: str, names: Sequence[str]) -> str:
        if not len(self):
            return names[0]
        features = self._features(0)
        for name in names:
            if name in features:
                return name
        raise DataError(
            f"{self.paths[0]}: none of the usual {what} features ({', '.join(names)}) exists; it "
            f"has {', '.join(sorted(features))}: name one with `study data index --{what}-key`"
        )


def _open(files: Any) -> Any:
    from grain.sources import ArrayRecordDataSource  # slow to import, and tars do not need it

    return ArrayRecordDataSource(files)


def _count(path: Path) -> int:
    if not exists(path):
        raise DataError(f"{path}: No such file; {HINT}")
    try:
        return len(_open(str(path)))
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(
            f"{path} is not an ArrayRecord file ({_first_line(error)}); {HINT}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
