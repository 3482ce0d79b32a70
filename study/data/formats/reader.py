"""The interface of all shard formats: examples by index, and their decoded pixels."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from study.config.data import Resize
from study.data.formats.dataset import HINT, DataError
from study.data.images import count_channels, decode


class BadExampleError(DataError):
    """One example whose image or text cannot be used, in a shard that can be read."""


class Reader(abc.ABC):
    """Examples of some shards by index, in shard order.

    `reader[i]` is {"key": str, "image": encoded bytes, "text": str, "json": dict}.

    Raises:
      BadExampleError: an example that cannot be used; names shard and key.
      DataError: a shard that cannot be read.
    """

    paths: tuple[Path, ...]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def key(self, i: int) -> str:
        """The name of the example in its shard."""

    @abc.abstractmethod
    def path(self, i: int) -> Path:
        """The shard of the example."""

    @abc.abstractmethod
    def image(self, i: int) -> bytes:
        """The encoded image."""

    @abc.abstractmethod
    def text(self, i: int) -> str:
        """The caption."""

    @abc.abstractmethod
    def json(self, i: int) -> dict[str, Any]:
        """The metadata; empty if the example has none."""

    def prefetch(  # noqa: B027
        self, index_N: np.ndarray, *, image: bool = True, text: bool = True, json: bool = False
    ) -> None:
        """Fetches examples that will be read soon in long runs, in the background.

        What was fetched is kept until the example's image is read. Does nothing for shards on a
        local disk.

        Arguments:
          index_N: the examples, in the order in which they will be read.
          image, text, json: what of them will be read.
        """

    def pair(self, i: int) -> tuple[bytes, str]:
        """Image and text."""
        return self.image(i), self.text(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        image, text = self.pair(i)
        return {"key": self.key(i), "image": image, "text": text, "json": self.json(i)}

    def decode_image(
        self, i: int, data: bytes, *, size: int, channels: int, resize: Resize = "bicubic"
    ) -> np.ndarray:
        """Decodes `data`, the image of example `i`, to uint8 size x size x channels."""
        try:
            return decode(data, size=size, channels=channels, resize=resize)
        except Exception as error:  # PIL raises many kinds, SyntaxError among them
            raise self.bad_image(i, str(error)) from None

    def read_images(
        self, index_N: Iterable[int], *, size: int, channels: int, resize: Resize = "bicubic"
    ) -> np.ndarray:
        """Decoded images, uint8 N x size x size x channels."""
        images, errors = self.try_read_images(index_N, size=size, channels=channels, resize=resize)
        for error in errors.values():
            raise error
        return images

    def try_read_images(
        self, index_N: Iterable[int], *, size: int, channels: int, resize: Resize = "bicubic"
    ) -> tuple[np.ndarray, dict[int, BadExampleError]]:
        """As `read_images`, but returns errors by example; a bad image is black."""
        index = [int(i) for i in index_N]
        self.prefetch(np.array(index, np.int64))
        out_NxHxWxC = np.zeros((len(index), size, size, channels), np.uint8)
        errors: dict[int, BadExampleError] = {}
        for row, i in enumerate(index):
            try:
                out_NxHxWxC[row] = self.decode_image(
                    i, self.image(i), size=size, channels=channels, resize=resize
                )
            except BadExampleError as error:
                errors[i] = error
        return out_NxHxWxC, errors

    def channels(self) -> int:
        """1 if the first images are all grayscale, else 3."""
        counts = []
        self.prefetch(np.arange(min(16, len(self))), text=False)
        for i in range(min(16, len(self))):
            try:
                counts.append(count_channels(self.image(i)))
            except Exception:  # a bad example is reported when it is used
                continue
        return max(counts, default=3)

    def bad_example(self, i: int, reason: str) -> BadExampleError:
        """The error for example `i`, which names its shard and key."""
        return BadExampleError(f"{self.path(i)}: {self.key(i)}: {reason}; {HINT}")

    def bad_image(self, i: int, reason: str) -> BadExampleError:
        """The error for example `i`, whose image does not decode."""
        return self.bad_example(i, f"its image does not decode ({reason})")
