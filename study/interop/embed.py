"""Embeddings of images and texts by the towers of a checkpoint, of any kind that can be read.

They are of unit length and not scaled by t, so that any two implementations can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from study.config.cell import Data, Pad, Resize
from study.config.vocabulary import Vocabulary
from study.data.formats.dataset import DATASET_FILE, DataError, Dataset, read_lines
from study.data.formats.tar_index import IMAGE_NAMES
from study.data.formats.webdataset import WebdatasetReader
from study.data.images import decode, scale_pixels
from study.data.parallel import ProgressFn, no_progress
from study.data.tokenizer import Tokenizer
from study.evals.encode import Encoder
from study.interop.infer_model import infer_model
from study.interop.load import load_params, split_spec

BATCH = 32


class FrozenTowers:
    """The towers of a checkpoint. As a `study.data.embed_shards.Tower` it is its image tower.

    Arguments:
      image_size: in pixels, where the checkpoint does not say it.

    Attributes:
      pad: what the texts of a released checkpoint were filled with, else None.

    Raises:
      DataError: a file that cannot be read, or of no model that we know.
    """

    def __init__(self, spec: str | Path, *, image_size: int | None = None):
        # A tower alone comes without t, which the module asks for and an embedding does not use.
        self._spec, self._params = spec, {"t": np.zeros(1, np.float32)} | load_params(spec)
        self.model, self._channels, vocabulary, self.text_length, self.pad = infer_model(
            self._params, image_size=image_size
        )
        self._vocabulary = vocabulary or 0
        # The module needs a vocabulary; of its ids a transformer asks for none.
        self._encoder = Encoder(
            self.model, Data(), Vocabulary(vocabulary or 1, eos=0, pad=0), size=BATCH
        )
        self._params = self._encoder.place(self._params)

    @property
    def size(self) -> int:
        return self._image_tower.image_size

    @property
    def channels(self) -> int:
        assert self._channels is not None
        return self._channels

    @property
    def dim(self) -> int:
        return self.model.embed_dim

    @property
    def metadata(self) -> dict[str, Any]:
        path, _ = split_spec(self._spec)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"tower": self._image_tower.variant, "checkpoint": path.name, "sha256": digest}

    @property
    def _image_tower(self) -> Any:
        if "img" not in self._params:
            raise DataError(f"{self._spec} has no image tower")
        return self.model.image

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        """uint8 images of the tower's size, or floats in [-1, 1], to unit rows N x E."""
        want = (self.size, self.size, self.channels)
        if images_NxHxWxC.shape[1:] != want:
            shape = "x".join(map(str, images_NxHxWxC.shape))
            raise DataError(f"{self._spec} takes images N x {' x '.join(map(str, want))}: {shape}")
        if images_NxHxWxC.dtype == np.uint8:
            images_NxHxWxC = scale_pixels(images_NxHxWxC)
        return self._encoder.embed_pixels(self._params, images_NxHxWxC.astype(np.float32))

    def images(
        self, source: str | Path, *, resize: Resize = "bicubic", progress: ProgressFn = no_progress
    ) -> np.ndarray:
        """Unit rows of all images of a source, in its order.

        Arguments:
          source: a folder of images (by name), a webdataset tar, a folder of such tars (by
            name), or a `.npy` of uint8 or of floats in [-1, 1]. Images of another size than the
            tower's are resized to a square.
          resize: how; see `study.data.images.decode`.
        """
        count, part = _images(Path(source), size=self.size, channels=self.channels, resize=resize)
        rows = []
        for start in range(0, count, BATCH):
            stop = min(start + BATCH, count)
            rows.append(self(part(range(start, stop))))
            progress("images", stop, count)
        return np.concatenate(rows)

    def texts(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        pad: Pad | None = None,
    ) -> np.ndarray:
        """Unit rows of all texts of a source, in its order.

        Texts become tokens as in the code base: A to Z lowered, one EOS, then padding.

        Arguments:
          source: UTF-8, one text on each line, or a `.npy` of tokens N x L.
          tokenizer: the SentencePiece model, for a source of texts.
          pad: what fills a text after its EOS; None is what the checkpoint was trained with, and
            "eos" for one that is not a released checkpoint.
        """
        if "txt" not in self._params:
            raise DataError(f"{self._spec} has no text tower")
        assert self.text_length is not None
        tokens_NxL = _tokens(Path(source), tokenizer, self.text_length, pad or self.pad or "eos")
        length, most = tokens_NxL.shape[1], int(tokens_NxL.max())
        if length != self.text_length or tokens_NxL.min() < 0 or most >= self._vocabulary:
            raise DataError(
                f"{source}: {self._spec} takes {self.text_length} tokens below "
                f"{self._vocabulary}, these are {length}, up to {most}; choose its own tokenizer"
            )
        return self._encoder.embed_texts(self._params, tokens_NxL)


def _images(
    source: Path, *, size: int, channels: int, resize: Resize
) -> tuple[int, Callable[[range], np.ndarray]]:
    """How many images there are, and a function that gives those of a range."""
    if source.suffix == ".npy":
        array = _array(source)
        if array.ndim != 4 or array.dtype.kind not in "fu" or not len(array):
            raise DataError(f"{source} is no array of images N x H x W x C, uint8 or float")
        return len(array), lambda rows: np.asarray(array[rows.start : rows.stop])
    if (source / DATASET_FILE).is_file():
        shards = [s for split in Dataset.open(source).splits.values() for s in split.shards]
    else:
        shards = [source] if source.suffix == ".tar" else sorted(source.glob("*.tar"))
    if shards:
        reader = WebdatasetReader(shards)
        return len(reader), lambda rows: reader.read_images(
            rows, size=size, channels=channels, resize=resize
        )
    paths = sorted(p for p in _listed(source) if p.suffix.lower().lstrip(".") in IMAGE_NAMES)
    if not paths:
        raise DataError(
            f"{source} has no image ({', '.join(IMAGE_NAMES)}) and no .tar; give a folder of "
            "images, webdataset shards or a .npy"
        )

    def pixels(rows: range) -> np.ndarray:
        return np.stack([_decoded(paths[i], size, channels, resize) for i in rows])

    return len(paths), pixels


def _decoded(path: Path, size: int, channels: int, resize: Resize) -> np.ndarray:
    try:
        return decode(path.read_bytes(), size=size, channels=channels, resize=resize)
    except Exception as error:  # PIL raises many kinds, SyntaxError among them
        raise DataError(f"{path} does not decode ({error}); remove or replace it") from None


def _tokens(source: Path, tokenizer: str | Path | None, length: int, pad: Pad) -> np.ndarray:
    if source.suffix == ".npy":
        tokens_NxL = _array(source)
        if tokens_NxL.ndim != 2 or tokens_NxL.dtype.kind not in "iu" or not tokens_NxL.size:
            raise DataError(f"{source} is no array of tokens N x L, integers")
        return np.asarray(tokens_NxL, np.int32)
    if tokenizer is None:
        raise DataError(f"{source} is text: give the checkpoint's SentencePiece model as tokenizer")
    try:
        lines = read_lines(source)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; give a file of UTF-8 text") from None
    if not lines:
        raise DataError(f"{source} has no text; write one on each line")
    return Tokenizer(tokenizer, length, lower_case="ascii", pad=pad)(lines)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no .npy file that can be read ({error})") from None


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; give a folder of images") from None
